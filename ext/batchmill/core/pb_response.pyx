"""ModelInferResponse, written once, behind its gRPC prefix. Field numbers are those of protos/inference.proto."""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.string cimport string
from libcpp.vector cimport vector

from batchmill.core.message cimport Remark
from batchmill.core.pb_request cimport contents_field
from batchmill.core.status cimport kResourceExhausted, set_too_large
from batchmill.core.tensor cimport DataType, datatype_name, datatype_of, element_bytes, total_bytes

# An entry of ModelInferResponse.parameters, triton_final_response = true: clients of streams wait for it, and each request has one answer.
cdef const char* FINAL = b"\x22\x1b\x0a\x15triton_final_response\x12\x02\x08\x01"
cdef size_t FINAL_SIZE = 29
cdef size_t HEAD_ROOM = 16         # gRPC prefix (5), tag (1), length (at most 10): written last, right-aligned


cdef inline size_t varint_size(uint64_t value) noexcept nogil:
    cdef size_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t* put_varint(uint8_t* at, uint64_t value) noexcept nogil:
    while value >= 0x80:
        at[0] = <uint8_t> (value | 0x80)
        value >>= 7
        at += 1
    at[0] = <uint8_t> value
    return at + 1


cdef inline uint8_t* put_block(uint8_t* at, uint8_t tag, const void* data, size_t size) noexcept nogil:
    at[0] = tag
    at = put_varint(at + 1, size)
    if size:
        memcpy(at, data, size)
    return at + size


cdef inline size_t block_size(size_t size) noexcept nogil:
    return 1 + varint_size(size) + size


cdef size_t shape_size(const TensorView* tensor) noexcept nogil:
    cdef size_t size = 0
    cdef int axis
    for axis in range(tensor.shape.rank):
        size += varint_size(<uint64_t> tensor.shape.dims[axis])
    return size


cdef uint8_t* put_tensor(uint8_t* at, const TensorView* tensor, size_t contents, size_t elements) noexcept nogil:
    """An InferOutputTensor; contents > 0: bytes of its InferTensorContents, written too."""
    cdef string_view datatype = string_view(datatype_name(tensor.dtype))
    cdef size_t dims = shape_size(tensor)
    cdef size_t size = block_size(tensor.name.size()) + block_size(datatype.size())
    cdef int axis
    if tensor.shape.rank:
        size += block_size(dims)
    if elements:
        size += block_size(contents)
    at[0] = 42
    at = put_varint(at + 1, size)
    at = put_block(at, 10, tensor.name.data(), tensor.name.size())
    at = put_block(at, 18, datatype.data(), datatype.size())
    if tensor.shape.rank:
        at[0] = 26
        at = put_varint(at + 1, dims)
        for axis in range(tensor.shape.rank):
            at = put_varint(at, <uint64_t> tensor.shape.dims[axis])
    if elements:
        at[0] = 42
        at = put_varint(at + 1, contents)
        at = put_contents(at, tensor)
    return at


cdef uint64_t element_value(const TensorView* tensor, size_t index) noexcept nogil:
    """An integer or boolean element as protobuf writes it: sign-extended to 64 bits."""
    cdef size_t width = element_bytes(tensor.dtype)
    cdef const uint8_t* at = tensor.data + index * width
    cdef uint64_t value = 0
    memcpy(&value, at, width)
    if tensor.dtype == DataType.kInt8:
        return <uint64_t> <int64_t> <int8_t> value
    if tensor.dtype == DataType.kInt16:
        return <uint64_t> <int64_t> <int16_t> value
    if tensor.dtype == DataType.kInt32:
        return <uint64_t> <int64_t> <int32_t> value
    return value


cdef size_t contents_size(const TensorView* tensor) noexcept nogil:
    """Bytes of the tensor's InferTensorContents."""
    cdef int field = contents_field(tensor.dtype)
    cdef size_t size = 0, index
    cdef uint32_t length
    if field == 8:
        index = 0
        while index < tensor.size:
            memcpy(&length, tensor.data + index, 4)
            index += 4 + length
            size += block_size(length)
        return size
    if field >= 6:
        return block_size(tensor.size)
    for index in range(tensor.size // element_bytes(tensor.dtype)):
        size += varint_size(element_value(tensor, index))
    return block_size(size)


cdef uint8_t* put_contents(uint8_t* at, const TensorView* tensor) noexcept nogil:
    cdef int field = contents_field(tensor.dtype)
    cdef size_t size = 0, index = 0, count
    cdef uint32_t length
    if field == 8:
        while index < tensor.size:
            memcpy(&length, tensor.data + index, 4)
            at = put_block(at, 66, tensor.data + index + 4, length)
            index += 4 + length
        return at
    if field >= 6:
        return put_block(at, <uint8_t> (field << 3 | 2), tensor.data, tensor.size)
    count = tensor.size // element_bytes(tensor.dtype)
    for index in range(count):
        size += varint_size(element_value(tensor, index))
    at[0] = <uint8_t> (field << 3 | 2)
    at = put_varint(at + 1, size)
    for index in range(count):
        at = put_varint(at, element_value(tensor, index))
    return at


cdef size_t remark_size(const Remark& remark) noexcept nogil:
    """Of the entry of the map: its key, and its value, an InferParameter with a string_param."""
    return block_size(string_view(remark.parameter).size()) + block_size(block_size(remark.value.size()))


cdef size_t remarks_size(const InferRequest* request) noexcept nogil:
    cdef size_t size = 0
    cdef int32_t index
    for index in range(request.remark_count):
        size += block_size(remark_size(request.remarks[index]))
    return size


cdef uint8_t* put_remarks(uint8_t* at, const InferRequest* request) noexcept nogil:
    cdef int32_t index
    cdef string_view name
    for index in range(request.remark_count):
        name = string_view(request.remarks[index].parameter)
        at[0] = 34
        at = put_varint(at + 1, remark_size(request.remarks[index]))
        at = put_block(at, 10, name.data(), name.size())
        at[0] = 18
        at = put_varint(at + 1, block_size(request.remarks[index].value.size()))
        at = put_block(at, 26, request.remarks[index].value.data(), request.remarks[index].value.size())
    return at


cdef bint encode(InferRequest* request, string_view model, string_view version, const TensorView* outputs, size_t count) noexcept nogil:
    cdef size_t room = HEAD_ROOM + block_size(model.size()) + block_size(version.size()) + block_size(request.id.size())
    cdef size_t index
    cdef bint typed = request.typed_contents
    cdef uint8_t* at
    for index in range(request.parameters.size()):
        room += block_size(request.parameters[index].size())
    room += remarks_size(request)
    if request.stream_reply:
        room += FINAL_SIZE
    for index in range(count):
        typed = typed and contents_field(outputs[index].dtype) != 0
    for index in range(count):
        room += 64 + outputs[index].name.size() + shape_size(&outputs[index])
        room += contents_size(&outputs[index]) + 16 if typed else block_size(outputs[index].size)
    if <int64_t> room > request.max_response_bytes:
        set_too_large(request.status, total_bytes(outputs, count), request.max_response_bytes)
        return False
    request.response.clear()
    if not request.response.reserve(room):
        request.status.set(kResourceExhausted, b"OUT_OF_MEMORY", string(b"no memory for the answer"))
        return False
    at = request.response.data + HEAD_ROOM
    at = put_block(at, 10, model.data(), model.size())
    at = put_block(at, 18, version.data(), version.size())
    if request.id.size():
        at = put_block(at, 26, request.id.data(), request.id.size())
    for index in range(request.parameters.size()):
        at = put_block(at, 34, request.parameters[index].data(), request.parameters[index].size())
    at = put_remarks(at, request)
    if request.stream_reply:
        memcpy(at, FINAL, FINAL_SIZE)
        at += FINAL_SIZE
    for index in range(count):
        if typed:
            at = put_tensor(at, &outputs[index], contents_size(&outputs[index]), outputs[index].size)
        else:
            at = put_tensor(at, &outputs[index], 0, 0)
    if not typed:
        for index in range(count):
            at = put_block(at, 50, outputs[index].data, outputs[index].size)
    request.response.size = at - request.response.data
    finish_frame(request, 18)
    return True


cdef void finish_frame(InferRequest* request, uint8_t stream_tag) noexcept nogil:
    """Puts the prefix (and, on a stream, the wrapping field) right before the message that starts at HEAD_ROOM."""
    cdef size_t size = request.response.size - HEAD_ROOM
    cdef uint8_t* at
    cdef size_t start = HEAD_ROOM
    if request.stream_reply:
        start -= 1 + varint_size(size)
        at = request.response.data + start
        at[0] = stream_tag
        put_varint(at + 1, size)
        size = request.response.size - start
    start -= 5
    at = request.response.data + start
    at[0] = 0
    at[1] = <uint8_t> (size >> 24)
    at[2] = <uint8_t> (size >> 16)
    at[3] = <uint8_t> (size >> 8)
    at[4] = <uint8_t> size
    request.response_start = start


cdef bint encode_stream_error(InferRequest* request, string_view message) noexcept nogil:
    request.response.clear()
    if not request.response.reserve(HEAD_ROOM + message.size()):
        return False
    request.response.size = HEAD_ROOM
    request.response.append(message.data(), message.size())
    finish_frame(request, 10)
    return True


# What tests see.
def encode_response(bytes model, bytes version, bytes id, list outputs, bint typed=False, bint stream=False,
                    int64_t max_bytes=1 << 62) -> bytes:
    """The framed answer for outputs of (name, datatype, shape, raw bytes)."""
    cdef InferRequest* request = new InferRequest()
    cdef vector[TensorView] views
    cdef TensorView one
    cdef bytes name, raw
    cdef int axis
    keep = []
    try:
        for name, datatype, shape, raw in outputs:
            one.name = string_view(<const char*> name, len(name))
            datatype_bytes = datatype.encode()
            one.dtype = datatype_of(string_view(<const char*> datatype_bytes, len(datatype_bytes)))
            one.shape.rank = len(shape)
            for axis in range(len(shape)):
                one.shape.dims[axis] = shape[axis]
            one.data = <const uint8_t*> <const char*> raw
            one.size = len(raw)
            views.push_back(one)
            keep.append((name, raw))
        request.typed_contents = typed
        request.max_response_bytes = max_bytes
        request.stream_reply = stream
        request.id = string_view(<const char*> id, len(id))
        if not encode(request, string_view(<const char*> model, len(model)), string_view(<const char*> version, len(version)),
                      views.data(), views.size()):
            raise ValueError((<bytes> request.status.message).decode())
        return (<const char*> request.response.data + request.response_start)[:request.response.size - request.response_start]
    finally:
        del request
