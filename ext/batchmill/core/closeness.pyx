"""Whether two tensors are equal, as near as floats can be; in C, so that a probe child need not import numpy."""

from libc.math cimport fabs, INFINITY, ldexp, NAN
from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcmp, memcpy

from batchmill.core.tensor cimport datatype_of, element_bytes


cdef double half_value(uint16_t bits) noexcept nogil:
    """The value of an IEEE binary16."""
    cdef int exponent = (bits >> 10) & 31
    cdef double fraction = bits & 1023
    cdef double value
    if exponent == 31:
        value = NAN if fraction else INFINITY
    elif exponent:
        value = ldexp(1024 + fraction, exponent - 25)
    else:
        value = ldexp(fraction, -24)
    return -value if bits >> 15 else value


cdef double value_at(const uint8_t* at, DataType dtype) noexcept nogil:
    cdef float single
    cdef double value
    cdef uint16_t half
    cdef uint32_t bits
    if dtype == DataType.kFp32:
        memcpy(&single, at, 4)
        return single
    if dtype == DataType.kFp64:
        memcpy(&value, at, 8)
        return value
    memcpy(&half, at, 2)
    if dtype == DataType.kFp16:
        return half_value(half)
    bits = <uint32_t> half << 16
    memcpy(&single, &bits, 4)
    return single


cdef bint is_close(const uint8_t* a, const uint8_t* b, size_t size, DataType dtype, double rtol, double atol) noexcept nogil:
    cdef size_t width = element_bytes(dtype)
    cdef size_t at = 0
    cdef double x, y
    if size == 0 or memcmp(a, b, size) == 0:
        return True
    if dtype != DataType.kFp32 and dtype != DataType.kFp64 and dtype != DataType.kFp16 and dtype != DataType.kBf16:
        return False
    while at + width <= size:
        x = value_at(a + at, dtype)
        y = value_at(b + at, dtype)
        at += width
        if x == y or (x != x and y != y):
            continue
        if not fabs(x - y) <= atol + rtol * fabs(y) or fabs(x) == INFINITY or fabs(y) == INFINITY:
            return False
    return True


def close(raw_a: bytes, raw_b: bytes, datatype: str, rtol: float, atol: float) -> bool:
    """Whether two tensors in raw form are close: |a - b| <= atol + rtol * |b| for floats, the same bytes for all else.

    Equal infinities are close, NaN only to NaN; tensors of different sizes never. ValueError: unknown datatype.
    """
    cdef const uint8_t[::1] a = raw_a
    cdef const uint8_t[::1] b = raw_b
    cdef bytes name = datatype.encode()
    cdef DataType dtype = datatype_of(name)
    cdef double relative = rtol, absolute = atol
    if dtype == DataType.kInvalid:
        raise ValueError(f"no datatype {datatype[:40]!r} in the v2 protocol")
    if a.shape[0] != b.shape[0]:
        return False
    if a.shape[0] == 0:
        return True
    cdef bint answer
    with nogil:
        answer = is_close(&a[0], &b[0], a.shape[0], dtype, relative, absolute)
    return answer
