# What shadows have found: comparisons of answers, and what Python sees of them.
from libc.stdint cimport uint64_t
from libcpp.vector cimport vector

from batchmill.core.message cimport InferRequest
from batchmill.core.router cimport Shadow, Version
from batchmill.core.status cimport Status
from batchmill.core.tensor cimport TensorView

# Holds what a candidate said against what was answered. On the thread that runs shadows.
cdef void compare_answers(Shadow* shadow, InferRequest* request, const vector[TensorView]& said) noexcept nogil

# The candidate failed.
cdef void count_error(Shadow* shadow, const Status& status) noexcept nogil

# The version's shadow of that epoch: the one in force, or a new one in its place.
cdef Shadow* shadow_in_force(Version version, uint64_t epoch, dict settings)

# Ends a version's shadows but those that are wanted, and forgets those that nobody holds any more.
cdef void end_shadows(Version version, uint64_t wanted)
