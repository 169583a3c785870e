"""REST bodies: JSON, or JSON followed by binary tensors (the binary tensor extension), to and from raw form."""

from libcpp.string cimport string
from libcpp.vector cimport vector

from batchmill.core.json_request cimport read_request
from batchmill.core.json_scanner cimport Scanner, put_int, refuse
from batchmill.core.json_tensor cimport WriteResult, kNoMemory, kNotText, kWritten, write_data, write_text
from batchmill.core.message cimport RequestedOutput
from batchmill.core.status cimport append_echo, kInvalidArgument, kResourceExhausted, set_too_large
from batchmill.core.tensor cimport (
    DataType, append_shape, count_bytes_elements, datatype_name, datatype_of, element_bytes, element_count, kMaxRank, total_bytes,
)

cdef extern from * nogil:
    """
    #include <string>
    """
    string to_string "std::to_string"(size_t)


# In.
cdef bint check_binary(Scanner* scanner, const TensorView* tensor) noexcept nogil:
    """Whether the bytes are what datatype and shape say."""
    cdef int64_t count = element_count(tensor.shape)
    cdef size_t width = element_bytes(tensor.dtype)
    cdef string message
    if count < 0:
        message.append(b"too many elements in shape ")
    elif tensor.dtype == DataType.kBytes:
        if count_bytes_elements(tensor.data, tensor.size) == count:
            return True
        message.append(b"its lengths and bytes do not make the elements of shape ")
    else:
        if tensor.size % width == 0 and tensor.size // width == <size_t> count:
            return True
        message.append(to_string(tensor.size)).append(b" bytes given do not fit ").append(datatype_name(tensor.dtype)).append(b" of shape ")
    append_shape(message, tensor.shape)
    return refuse(scanner, message.c_str())


cdef bint place_data(Scanner* scanner, InferRequest* request, const uint8_t* at, size_t left, const vector[int64_t]& sizes) noexcept nogil:
    """Gives each binary input its bytes; the others lie in the arena, which moves no more."""
    cdef size_t index
    cdef TensorView* tensor
    cdef string message
    scanner.field = b"parameters.binary_data_size"
    for index in range(sizes.size()):
        tensor = &request.inputs[index]
        if sizes[index] < 0:
            tensor.data = request.arena.data + <size_t> tensor.data
            continue
        scanner.kind = b"input"
        scanner.name = tensor.name.data()
        scanner.name_size = tensor.name.size()
        if <size_t> sizes[index] > left:
            message.append(to_string(<size_t> sizes[index])).append(b" given, the body has ").append(to_string(left)).append(b" more bytes")
            return refuse(scanner, message.c_str())
        tensor.data = at
        tensor.size = <size_t> sizes[index]
        if not check_binary(scanner, tensor):
            return False
        at += tensor.size
        left -= tensor.size
    if left:
        scanner.kind = NULL
        scanner.field = NULL
        message.append(to_string(left)).append(b" bytes after the JSON belong to no input")
        return refuse(scanner, message.c_str())
    return True


cdef bint read_raw(InferRequest* request, const uint8_t* body, size_t size) noexcept nogil:
    """A raw request: one input without name, datatype and shape, which the model's signature settles; all outputs are binary."""
    cdef TensorView tensor
    tensor.data = body
    tensor.size = size
    request.inputs.push_back(tensor)
    request.raw_binary = request.binary_output = True
    return True


cdef bint parse(InferRequest* request, const uint8_t* body, size_t size, int64_t json_size) noexcept nogil:
    cdef Scanner scanner
    cdef vector[int64_t] sizes
    cdef size_t head = size if json_size < 0 else <size_t> json_size
    if json_size == 0:
        return read_raw(request, body, size)
    scanner.begin = scanner.at = <const char*> body
    scanner.status = &request.status
    scanner.failed = False
    scanner.index = scanner.name_size = 0
    scanner.kind = scanner.name = scanner.field = NULL
    if json_size < -1 or head > size:
        scanner.end = scanner.at + size
        return refuse(&scanner, b"Inference-Header-Content-Length is not within the body")
    scanner.end = scanner.at + head
    if not read_request(&scanner, request, sizes):
        return False
    return place_data(&scanner, request, body + head, size - head, sizes)


# Out.
cdef inline WriteResult put(Buffer* out, const char* text, size_t size) noexcept nogil:
    return kWritten if out.append(text, size) else kNoMemory


cdef WriteResult put_number(Buffer* out, int64_t value) noexcept nogil:
    cdef char text[24]
    return put(out, text, put_int(text, value) - text)


cdef WriteResult put_field(Buffer* out, const char* key, size_t size, string_view text) noexcept nogil:
    """key: what stands before the string, with quotes and colon."""
    cdef WriteResult result = put(out, key, size)
    return write_text(out, text) if result == kWritten else result


cdef bint is_binary(InferRequest* request, string_view name) noexcept nogil:
    cdef size_t index
    for index in range(request.outputs.size()):
        if request.outputs[index].name == name and request.outputs[index].binary >= 0:
            return request.outputs[index].binary == 1
    return request.binary_output


cdef bint wrote(InferRequest* request, WriteResult result, string_view output) noexcept nogil:
    """Whether all went well; else request.status says what did not."""
    cdef string message
    if result == kWritten:
        return True
    if result == kNotText:
        message.append(b"output \"")
        append_echo(message, output)
        message.append(b"\": holds bytes that are no UTF-8, which JSON cannot carry: ask for binary_data")
        request.status.set(kInvalidArgument, b"NOT_UTF8", message)
    else:
        request.status.set(kResourceExhausted, b"OUT_OF_MEMORY", string(b"no memory for the answer"))
    return False


cdef WriteResult put_shape(Buffer* out, const TensorView* output) noexcept nogil:
    cdef const char* datatype = datatype_name(output.dtype)
    cdef int axis
    if not out.reserve(out.size + 64 + 21 * <size_t> output.shape.rank):     # so that these cannot fail
        return kNoMemory
    put(out, b",\"datatype\":\"", 13)
    put(out, datatype, string_view(datatype).size())
    put(out, b"\",\"shape\":[", 11)
    for axis in range(output.shape.rank):
        if axis:
            put(out, b",", 1)
        put_number(out, output.shape.dims[axis])
    return kWritten


cdef WriteResult put_output(Buffer* out, const TensorView* output, bint binary) noexcept nogil:
    cdef WriteResult result = put_field(out, b"{\"name\":", 8, output.name)
    if result == kWritten:
        result = put_shape(out, output)
    if result != kWritten:
        return result
    if binary:
        if not out.reserve(out.size + 64):
            return kNoMemory
        put(out, b"],\"parameters\":{\"binary_data_size\":", 35)
        put_number(out, <int64_t> output.size)
        return put(out, b"}}", 2)
    result = put(out, b"],\"data\":", 9)
    if result == kWritten:
        result = write_data(out, output)
    return put(out, b"}", 1) if result == kWritten else result


cdef string_view inside(string_view given) noexcept nogil:
    """What stands within the braces of an object; empty where nothing but spaces does."""
    cdef size_t index
    cdef size_t begin = given.find(123) + 1     # spaces may stand before it
    given = given.substr(begin, given.size() - begin - 1)
    for index in range(given.size()):
        if <unsigned char> given.data()[index] > 32:
            return given
    return string_view()


cdef WriteResult put_parameters(InferRequest* request, Buffer* out) noexcept nogil:
    """Those that the caller gave, and what is remarked."""
    cdef string_view given = inside(request.parameters[0]) if request.parameters.size() else string_view()
    cdef string_view name
    cdef int index
    cdef size_t room = 32 + given.size()
    for index in range(request.remark_count):
        room += 8 + string_view(request.remarks[index].parameter).size() + request.remarks[index].value.size()
    if not out.reserve(out.size + room):     # so that these cannot fail
        return kNoMemory
    put(out, b",\"parameters\":{", 15)
    put(out, given.data(), given.size())
    for index in range(request.remark_count):
        name = string_view(request.remarks[index].parameter)
        put(out, b",\"" if index or given.size() else b"\"", 2 if index or given.size() else 1)
        put(out, name.data(), name.size())
        put(out, b"\":\"", 3)
        put(out, request.remarks[index].value.data(), request.remarks[index].value.size())
        put(out, b"\"", 1)
    return put(out, b"}", 1)


cdef WriteResult put_head(InferRequest* request, string_view model, string_view version, Buffer* out) noexcept nogil:
    cdef WriteResult result = put_field(out, b"{\"model_name\":", 14, model)
    if result == kWritten:
        result = put_field(out, b",\"model_version\":", 17, version)
    if result == kWritten and request.id.size():
        result = put_field(out, b",\"id\":", 6, request.id)
    if result == kWritten and (request.parameters.size() or request.remark_count):
        result = put_parameters(request, out)
    return put(out, b",\"outputs\":[", 12) if result == kWritten else result


cdef bint put_all(InferRequest* request, string_view model, string_view version, const TensorView* outputs, size_t count,
                  Buffer* out, int64_t* json_size) noexcept nogil:
    cdef size_t index, start = out.size
    cdef bint binary, any_binary = False
    if not wrote(request, put_head(request, model, version, out), string_view()):
        return False
    for index in range(count):
        binary = is_binary(request, outputs[index].name)
        any_binary = any_binary or binary
        if index and not out.append(b",", 1):
            return wrote(request, kNoMemory, outputs[index].name)
        if not wrote(request, put_output(out, &outputs[index], binary), outputs[index].name):
            return False
    if not out.append(b"]}", 2):
        return wrote(request, kNoMemory, string_view())
    if not any_binary:
        return True
    json_size[0] = <int64_t> (out.size - start)
    for index in range(count):
        if is_binary(request, outputs[index].name) and not out.append(outputs[index].data, outputs[index].size):
            return wrote(request, kNoMemory, outputs[index].name)
    return True


cdef bint encode(InferRequest* request, string_view model, string_view version, const TensorView* outputs, size_t count,
                 Buffer* out, int64_t* json_size) noexcept nogil:
    cdef size_t index, room = 256, start = out.size
    cdef bint done, over
    for index in range(count):
        room += outputs[index].size + 160 + outputs[index].name.size()
    json_size[0] = -1
    out.limit = start + <size_t> request.max_response_bytes
    out.over = False
    done = out.reserve(min(start + room, out.limit)) and put_all(request, model, version, outputs, count, out, json_size)
    over = out.over or out.size > out.limit
    out.limit = <size_t> -1
    if done and not over:
        return True
    if over:
        set_too_large(request.status, total_bytes(outputs, count), request.max_response_bytes)
    elif request.status.ok():
        wrote(request, kNoMemory, string_view())
    out.size = start        # what was begun is no answer
    json_size[0] = -1
    return False


# What tests see.
cdef bytes text(string_view given):
    return given.data()[:given.size()]


cdef tuple named(const TensorView* tensor):
    cdef int axis
    shape = []
    for axis in range(tensor.shape.rank):
        shape.append(tensor.shape.dims[axis])
    return text(tensor.name), datatype_name(tensor.dtype).decode(), shape, (<const char*> tensor.data)[:tensor.size]


def decode(bytes body, int64_t json_size=-1) -> dict:
    """A REST infer body as the data plane reads it. Raises ValueError with the refusal's text."""
    cdef InferRequest* request = new InferRequest()
    cdef size_t index
    cdef RequestedOutput* output
    inputs = []
    outputs = []
    try:
        # A copy of its own: bytes of Python have one more behind their end.
        if not request.body.append(<const char*> body, len(body)):
            raise MemoryError
        if not parse(request, request.body.data, request.body.size, json_size):
            raise ValueError((<bytes> request.status.message).decode())
        for index in range(request.inputs.size()):
            inputs.append(named(&request.inputs[index]))
        for index in range(request.outputs.size()):
            output = &request.outputs[index]
            outputs.append((text(output.name), output.binary, output.classification))
        parameters = {"binary_data_output": bool(request.binary_output), "timeout": request.timeout_us, "priority": request.priority,
                      "label": text(request.label), "route_key": text(request.route_key)}
        return {"id": text(request.id), "parameters": parameters, "inputs": inputs, "outputs": outputs}
    finally:
        del request


def arena_offsets(bytes body) -> list:
    """Where each input of a JSON body lies, in bytes from a multiple of 64."""
    cdef InferRequest* request = new InferRequest()
    cdef size_t index
    try:
        if not parse(request, <const uint8_t*> <const char*> body, len(body), -1):
            raise ValueError((<bytes> request.status.message).decode())
        offsets = []
        for index in range(request.inputs.size()):
            offsets.append(<size_t> request.inputs[index].data % 64)
        return offsets
    finally:
        del request


cdef bint fill(TensorView* view, bytes name, bytes datatype, list shape, bytes raw) except -1:
    """Borrows name and raw. Raises ValueError for bytes that are no tensor of that datatype and shape."""
    cdef int axis
    cdef int64_t count
    if len(shape) > kMaxRank:
        raise ValueError("more than 16 dimensions")
    view.name = string_view(<const char*> name, len(name))
    view.dtype = datatype_of(string_view(<const char*> datatype, len(datatype)))
    view.shape.rank = <int> len(shape)
    for axis in range(view.shape.rank):
        view.shape.dims[axis] = shape[axis]
    view.data = <const uint8_t*> <const char*> raw
    view.size = len(raw)
    count = element_count(view.shape)
    if view.dtype == DataType.kInvalid or count < 0:
        raise ValueError("no datatype or no shape")
    if view.dtype == DataType.kBytes:
        if count_bytes_elements(view.data, view.size) != count:
            raise ValueError("no elements of that shape")
    elif len(raw) != count * <object> element_bytes(view.dtype):
        raise ValueError("no elements of that shape")
    return True


def encode_response(bytes model, bytes version, bytes id, list outputs, int64_t max_bytes=1 << 62) -> tuple:
    """(body, bytes of JSON or -1) for outputs of (name, datatype, shape, raw bytes, binary). Raises ValueError with the refusal's text."""
    cdef InferRequest* request = new InferRequest()
    cdef vector[TensorView] views
    cdef RequestedOutput wish
    cdef Buffer* out = &request.response
    cdef size_t index = 0
    try:
        views.resize(len(outputs))
        for name, datatype, shape, raw, binary in outputs:
            fill(&views[index], name, datatype, shape, raw)
            wish.name = views[index].name
            wish.binary = bool(binary)
            request.outputs.push_back(wish)
            index += 1
        request.id = string_view(<const char*> id, len(id))
        request.max_response_bytes = max_bytes
        if not encode(request, string_view(<const char*> model, len(model)), string_view(<const char*> version, len(version)),
                      views.data(), views.size(), out, &request.json_size):
            raise ValueError((<bytes> request.status.message).decode())
        return (<const char*> out.data)[:out.size], request.json_size
    finally:
        del request
