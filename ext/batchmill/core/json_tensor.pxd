# The elements of one tensor, between JSON and raw form.
from libcpp.string_view cimport string_view

from batchmill.core.json_scanner cimport Scanner
from batchmill.core.tensor cimport Buffer, TensorView

# Reads an array, flat or nested like the shape, into the arena; tensor.data becomes an offset, for the arena may still move.
cdef bint read_data(Scanner* scanner, TensorView* tensor, Buffer* arena) noexcept nogil

cdef bint write_data(Buffer* out, const TensorView* tensor) noexcept nogil      # False: BYTES that are no UTF-8, or no memory
cdef bint write_string(Buffer* out, string_view text) noexcept nogil            # with quotes and escapes; False: the same
