"""Rows of different lengths in one run: filled up before it, cut after it.

A tensor is seen as so many stretches of memory one behind the other: all that an index of the axes before the padded one leads to.
"""

from libc.string cimport memcpy

from batchmill.core.tensor cimport element_bytes


cdef int64_t run_length(const Padding* padding, const InferRequest* batch) noexcept nogil:
    cdef int64_t longest = batch.length
    if padding.edges.size():
        return batch.bucket
    while batch != NULL:
        longest = max(longest, batch.length)
        batch = batch.next
    return longest


cdef bint is_uneven(const InferRequest* batch, int64_t length) noexcept nogil:
    while batch != NULL:
        if batch.length != length:
            return True
        batch = batch.next
    return False


cdef size_t bytes_behind(const TensorView* tensor, int axis) noexcept nogil:
    """Of one index of that axis."""
    cdef size_t size = element_bytes(tensor.dtype)
    for axis in range(axis + 1, tensor.shape.rank):
        size *= <size_t> tensor.shape.dims[axis]
    return size


cdef void fill(uint8_t* target, size_t size, const uint8_t* value, size_t width) noexcept nogil:
    """What is filled already is copied behind itself: memcpy of twice as much each time."""
    cdef size_t done = min(width, size)
    memcpy(target, value, done)
    while done < size:
        memcpy(target + done, target, min(done, size - done))
        done += min(done, size - done)


cdef void pad(uint8_t* target, const TensorView* source, int axis, int64_t length, int64_t wanted, const uint8_t* value) noexcept nogil:
    cdef size_t inner = bytes_behind(source, axis), width = element_bytes(source.dtype), at = 0
    cdef size_t given = <size_t> length * inner, whole = <size_t> wanted * inner
    assert length <= wanted
    while at < source.size:
        memcpy(target, source.data + at, given)
        fill(target + given, whole - given, value, width)
        target += whole
        at += given


cdef void cut(uint8_t* target, const TensorView* source, int axis, int64_t length) noexcept nogil:
    cdef size_t inner = bytes_behind(source, axis), at = 0
    cdef size_t kept = <size_t> length * inner, whole = <size_t> source.shape.dims[axis] * inner
    assert length <= source.shape.dims[axis]
    while at < source.size:
        memcpy(target, source.data + at, kept)
        target += kept
        at += whole
