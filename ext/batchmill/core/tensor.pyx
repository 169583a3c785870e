"""What a tensor is: datatype, shape and bytes; all arithmetic on sizes is overflow-checked."""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy

cdef extern from * nogil:
    """
    #include <string>
    static inline bool batchmill_multiply(int64_t a, int64_t b, int64_t* product) { return !__builtin_mul_overflow(a, b, product); }
    static const char* const batchmill_names[] = {"INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16",
        "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES", "BF16"};
    static const unsigned char batchmill_widths[] = {0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 0, 2};
    """
    bint multiply "batchmill_multiply"(int64_t a, int64_t b, int64_t* product)
    const char** DATATYPE_NAMES "batchmill_names"
    const unsigned char* DATATYPE_WIDTHS "batchmill_widths"
    string to_string "std::to_string"(int64_t)

DATATYPES = tuple(DATATYPE_NAMES[i].decode() for i in range(1, 15))


cdef size_t element_bytes(DataType dtype) noexcept nogil:
    return DATATYPE_WIDTHS[<int> dtype]


cdef DataType datatype_of(string_view name) noexcept nogil:
    cdef int index
    for index in range(1, 15):
        if name == string_view(DATATYPE_NAMES[index]):
            return <DataType> index
    return DataType.kInvalid


cdef const char* datatype_name(DataType dtype) noexcept nogil:
    return DATATYPE_NAMES[<int> dtype]


cdef int64_t element_count(const Shape& shape) noexcept nogil:
    cdef int64_t count = 1
    cdef int axis
    cdef bint empty = False
    for axis in range(shape.rank):
        if shape.dims[axis] < 0:
            return -1
        if shape.dims[axis] == 0:
            empty = True
        elif not multiply(count, shape.dims[axis], &count):
            return -1  # also beside an empty axis: no caller means such a shape
    return 0 if empty else count


cdef int64_t count_bytes_elements(const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t at = 0
    cdef int64_t count = 0
    cdef uint32_t length
    while at < size:
        if size - at < 4:
            return -1
        memcpy(&length, data + at, 4)
        at += 4
        if length > size - at:
            return -1
        at += length
        count += 1
    return count


cdef int64_t total_bytes(const TensorView* tensors, size_t count) noexcept nogil:
    cdef size_t index, total = 0
    for index in range(count):
        total += tensors[index].size
    return <int64_t> total


cdef void append_shape(string& text, const Shape& shape) noexcept nogil:
    cdef int axis
    text.append(b"[")
    for axis in range(shape.rank):
        if axis:
            text.append(b",")
        text.append(to_string(shape.dims[axis]))
    text.append(b"]")
