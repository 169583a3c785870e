# Whether two tensors are equal, as near as floats can be.
from libc.stdint cimport uint8_t

from batchmill.core.tensor cimport DataType

# Element by element |a - b| <= atol + rtol * |b|; equal infinities and two NaN are close; all but floats must be equal.
cdef bint is_close(const uint8_t* a, const uint8_t* b, size_t size, DataType dtype, double rtol, double atol) noexcept nogil

# Of an element of FP16, BF16, FP32 or FP64.
cdef double value_at(const uint8_t* at, DataType dtype) noexcept nogil
