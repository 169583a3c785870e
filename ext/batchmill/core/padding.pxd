# Rows of different lengths in one run: filled up before it, cut after it.
from libc.stdint cimport int32_t, int64_t, uint8_t
from libcpp.vector cimport vector

from batchmill.core.message cimport InferRequest
from batchmill.core.tensor cimport TensorView

cdef extern from "padding.hpp" namespace "batchmill" nogil:
    cdef cppclass PaddedInput:
        int32_t axis                # 0: as it is
        uint8_t* value              # one element, raw

    cdef cppclass Padding:
        vector[PaddedInput] inputs
        vector[int32_t] output_axes     # 0: as it is
        vector[int64_t] edges           # none: powers of two, and a run is as long as its longest row
        int64_t bucket_of(int64_t length)

# Along the padded axes, of a run of requests of one bucket.
cdef int64_t run_length(const Padding* padding, const InferRequest* batch) noexcept nogil

# Whether some of them must be filled up for that.
cdef bint is_uneven(const InferRequest* batch, int64_t length) noexcept nogil

# Of a tensor of so many bytes, once its axis is longer. length: more than 0.
cdef inline size_t size_at(size_t size, int64_t length, int64_t wanted) noexcept nogil:
    return size // <size_t> length * <size_t> wanted

# Copies a tensor whose axis is `length` long to where it is `wanted` long, and fills the rest with value. target: size_at() bytes.
cdef void pad(uint8_t* target, const TensorView* source, int axis, int64_t length, int64_t wanted, const uint8_t* value) noexcept nogil

# Copies the first `length` of an axis. target: size_at() bytes, where source's shape says what there is.
cdef void cut(uint8_t* target, const TensorView* source, int axis, int64_t length) noexcept nogil
