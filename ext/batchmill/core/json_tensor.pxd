# The elements of one tensor, between JSON and raw form.
from libcpp.string_view cimport string_view

from batchmill.core.json_scanner cimport Scanner
from batchmill.core.tensor cimport Buffer, TensorView

cdef enum WriteResult:
    kWritten, kNotText, kNoMemory       # kNotText: bytes that are no UTF-8

# Reads an array, flat or nested like the shape, into the arena; tensor.data becomes an offset, for the arena may still move.
cdef bint read_data(Scanner* scanner, TensorView* tensor, Buffer* arena) noexcept nogil

cdef WriteResult write_data(Buffer* out, const TensorView* tensor) noexcept nogil
cdef WriteResult write_text(Buffer* out, string_view text) noexcept nogil              # with quotes and escapes
cdef bint write_string(Buffer* out, string_view text) noexcept nogil                   # the same; False: not written
