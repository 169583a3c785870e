# What the modules for tests share.
from libcpp.string_view cimport string_view

from batchmill.core.tensor cimport TensorView

cdef string_view view(bytes text)                                                       # borrows it
cdef int fill(TensorView* tensor, bytes name, bytes datatype, shape, bytes raw) except -1    # borrows name and raw
