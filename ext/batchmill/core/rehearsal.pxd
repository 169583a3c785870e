# Requests made by hand. For tests.
from libcpp.string_view cimport string_view

from batchmill.core.tensor cimport TensorView

# Both borrow.
cdef string_view view(bytes text)
cdef int fill(TensorView* tensor, bytes name, bytes datatype, shape, bytes raw) except -1
