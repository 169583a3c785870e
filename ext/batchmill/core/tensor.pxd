# What a tensor is: datatype, shape, bytes and owner.
from libc.stdint cimport int32_t, int64_t, uint8_t
from libcpp.atomic cimport atomic
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from batchmill.core.status cimport Status

cdef extern from "tensor.hpp" namespace "batchmill" nogil:
    int kMaxRank

    enum class DataType(uint8_t):
        kInvalid, kBool, kUint8, kUint16, kUint32, kUint64, kInt8, kInt16, kInt32, kInt64, kFp16, kFp32, kFp64, kBytes, kBf16

    cdef cppclass Shape:
        int32_t rank
        int64_t* dims               # kMaxRank of them; only the first rank are set

    cdef cppclass TensorView:
        string_view name
        DataType dtype
        Shape shape
        const uint8_t* data         # raw form: row-major, little-endian; BYTES as uint32 length + bytes each
        size_t size                 # bytes

    cdef cppclass TensorSpec:
        string name
        DataType dtype
        Shape shape                 # -1: free
        bint ranked                 # False: the model gives no shape, any fits; shape has rank 0 then

cdef extern from "buffer.hpp" namespace "batchmill" nogil:
    size_t kKeepScratchBytes "batchmill::Buffer::kKeepScratchBytes"

    cdef cppclass Buffer:
        uint8_t* data
        size_t size
        size_t capacity
        size_t limit                # reserve() refuses more
        bint over                   # it has done so
        bint reserve(size_t wanted)
        bint append(const void* bytes, size_t count)
        uint8_t* extend(size_t count)
        void clear()
        void clear(size_t keep)
        void release()
        void swap(Buffer& other)

    cdef cppclass MemoryBudget:
        atomic[int64_t] used, limit
        bint take(int64_t bytes)
        bint cover(int64_t* charged, int64_t wanted)
        void give(int64_t bytes)

cdef size_t element_bytes(DataType dtype) noexcept nogil            # 0: BYTES, or invalid
cdef DataType datatype_of(string_view name) noexcept nogil          # "FP32" -> kFp32; kInvalid when unknown
cdef const char* datatype_name(DataType dtype) noexcept nogil
cdef int64_t element_count(const Shape& shape) noexcept nogil       # -1: a negative axis, or over 2^63 - 1
cdef int64_t count_bytes_elements(const uint8_t* data, size_t size) noexcept nogil   # -1: a length runs past the end
cdef int64_t total_bytes(const TensorView* tensors, size_t count) noexcept nogil
cdef void append_shape(string& text, const Shape& shape) noexcept nogil              # "[1,64]"
