# What shadows have found: comparisons of answers, and what Python sees of them.
from libcpp.vector cimport vector

from batchmill.core.message cimport InferRequest
from batchmill.core.router cimport Shadow
from batchmill.core.status cimport Status
from batchmill.core.tensor cimport TensorView

# Holds what a candidate said against what was answered. On the thread that runs shadows.
cdef void compare_answers(Shadow* shadow, InferRequest* request, const vector[TensorView]& said) noexcept nogil

# The candidate failed.
cdef void count_error(Shadow* shadow, const Status& status) noexcept nogil
