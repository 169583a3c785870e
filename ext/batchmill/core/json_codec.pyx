"""REST bodies: JSON, or JSON followed by binary tensors (the binary tensor extension), to and from raw form.

Keys come in any order; a key that is interpreted may come once. Unknown keys are skipped, but must be well-formed JSON.
"""

from libc.stdint cimport int8_t

from libcpp.string cimport string
from libcpp.vector cimport vector

from batchmill.core.json_scanner cimport (
    NumberText, Scanner, expect, fail, peek, put_int, scan_literal, scan_number, scan_string, skip_value, unescape,
)
from batchmill.core.json_tensor cimport read_data, write_data, write_string
from batchmill.core.message cimport RequestedOutput
from batchmill.core.status cimport append_echo, kInvalidArgument, kResourceExhausted
from batchmill.core.tensor cimport DataType, datatype_name, datatype_of, kMaxRank

cdef size_t TENSORS_MAX = 1024      # inputs or outputs of one request
cdef int64_t UNSET = -1


cdef bint scan_text(Scanner* scanner, InferRequest* request, string_view* text) noexcept nogil:
    """A string, unescaped; the view points into the body or request.texts."""
    cdef bint escaped
    if peek(scanner) != 34:
        return fail(scanner, b"a string is wanted")
    if not scan_string(scanner, text, &escaped):
        return False
    if escaped:
        request.texts.emplace_back()
        unescape(text[0], request.texts.back())
        text[0] = string_view(request.texts.back().data(), request.texts.back().size())
    return True


cdef bint scan_size(Scanner* scanner, int64_t* value) noexcept nogil:
    """An integer from 0 to 2^63 - 1."""
    cdef NumberText number
    if not scan_number(scanner, &number):
        return False
    if not number.integer or (number.negative and number.mantissa) or number.digits > 19 or number.mantissa >> 63:
        return fail(scanner, b"an integer that is not negative is wanted")
    value[0] = <int64_t> number.mantissa
    return True


cdef bint next_key(Scanner* scanner, InferRequest* request, bint* first, string_view* key) noexcept nogil:
    """Steps through an object whose brace has been read. False: its end, or an error (scanner.error)."""
    cdef char next = peek(scanner)
    if next == 125:
        scanner.at += 1
        return False
    if not first[0] and not expect(scanner, 44):
        return False
    first[0] = False
    return scan_text(scanner, request, key) and expect(scanner, 58)


cdef bint next_element(Scanner* scanner, bint* first) noexcept nogil:
    """Steps through an array whose bracket has been read."""
    if peek(scanner) == 93:
        scanner.at += 1
        return False
    if not first[0] and not expect(scanner, 44):
        return False
    first[0] = False
    return True


cdef bint once(Scanner* scanner, int* seen, int bit) noexcept nogil:
    if seen[0] & bit:
        return fail(scanner, b"a key is given twice")
    seen[0] |= bit
    return True


cdef bint scan_bool(Scanner* scanner, bint* value) noexcept nogil:
    value[0] = peek(scanner) == 116
    return scan_literal(scanner, b"true", 4) if value[0] else scan_literal(scanner, b"false", 5)


cdef bint read_parameters(Scanner* scanner, InferRequest* request) noexcept nogil:
    cdef string_view key
    cdef bint first = True, flag
    cdef int64_t number
    cdef int seen = 0
    if not expect(scanner, 123):
        return False
    while next_key(scanner, request, &first, &key):
        if key == string_view(b"binary_data_output"):
            if not once(scanner, &seen, 1) or not scan_bool(scanner, &flag):
                return False
            request.binary_output = flag
        elif key == string_view(b"timeout"):
            if not once(scanner, &seen, 2) or not scan_size(scanner, &request.timeout_us):
                return False
        elif key == string_view(b"priority"):
            if not once(scanner, &seen, 4) or not scan_size(scanner, &number):
                return False
            request.priority = number
        elif key == string_view(b"label"):
            if not once(scanner, &seen, 8) or not scan_text(scanner, request, &request.label):
                return False
        elif key == string_view(b"route_key"):
            if not once(scanner, &seen, 16) or not scan_text(scanner, request, &request.route_key):
                return False
        elif not skip_value(scanner):
            return False
    return scanner.error == NULL


cdef bint read_shape(Scanner* scanner, TensorView* tensor) noexcept nogil:
    cdef bint first = True
    tensor.shape.rank = 0
    if not expect(scanner, 91):
        return False
    while next_element(scanner, &first):
        if tensor.shape.rank == kMaxRank:
            return fail(scanner, b"a shape has more than 16 dimensions")
        if not scan_size(scanner, &tensor.shape.dims[tensor.shape.rank]):
            scanner.error = b"shape: sizes are integers from 0 to 2^63 - 1"
            return False
        tensor.shape.rank += 1
    return scanner.error == NULL


cdef bint read_size_parameter(Scanner* scanner, InferRequest* request, const char* name, int64_t* value, int8_t* binary) noexcept nogil:
    """parameters of an input (binary_data_size) or of a requested output (binary_data, classification)."""
    cdef string_view key
    cdef bint first = True, flag
    cdef int seen = 0
    if not expect(scanner, 123):
        return False
    while next_key(scanner, request, &first, &key):
        if key == string_view(name):
            if not once(scanner, &seen, 1) or not scan_size(scanner, value):
                return False
        elif binary != NULL and key == string_view(b"binary_data"):
            if not once(scanner, &seen, 2) or not scan_bool(scanner, &flag):
                return False
            binary[0] = flag
        elif not skip_value(scanner):
            return False
    return scanner.error == NULL


cdef bint read_input(Scanner* scanner, InferRequest* request, int64_t* binary_size) noexcept nogil:
    cdef TensorView tensor
    cdef string_view key, datatype
    cdef bint first = True
    cdef int seen = 0
    cdef const char* data = NULL    # where data begins that came before its shape
    cdef const char* after
    binary_size[0] = UNSET
    scanner.input = string_view()
    if not expect(scanner, 123):
        return False
    while next_key(scanner, request, &first, &key):
        if key == string_view(b"name"):
            if not once(scanner, &seen, 1) or not scan_text(scanner, request, &tensor.name):
                return False
            scanner.input = tensor.name
        elif key == string_view(b"datatype"):
            if not once(scanner, &seen, 2) or not scan_text(scanner, request, &datatype):
                return False
            tensor.dtype = datatype_of(datatype)
            if tensor.dtype == DataType.kInvalid:
                return fail(scanner, b"unknown datatype")
        elif key == string_view(b"shape"):
            if not once(scanner, &seen, 4) or not read_shape(scanner, &tensor):
                return False
        elif key == string_view(b"parameters"):
            if not once(scanner, &seen, 8) or not read_size_parameter(scanner, request, b"binary_data_size", binary_size, NULL):
                return False
        elif key == string_view(b"data"):
            if not once(scanner, &seen, 16):
                return False
            if seen & 6 == 6:
                if not read_data(scanner, &tensor, &request.arena):
                    return False
            else:
                data = scanner.at
                if not skip_value(scanner):
                    return False
        elif not skip_value(scanner):
            return False
    if scanner.error != NULL:
        return False
    if seen & 7 != 7:
        return fail(scanner, b"an input needs name, datatype and shape")
    if (seen & 16 != 0) == (binary_size[0] != UNSET):
        return fail(scanner, b"an input needs either data or binary_data_size")
    if data != NULL:
        after = scanner.at
        scanner.at = data
        if not read_data(scanner, &tensor, &request.arena):
            return False
        scanner.at = after
    scanner.input = string_view()
    request.inputs.push_back(tensor)
    return True


cdef bint read_inputs(Scanner* scanner, InferRequest* request, vector[int64_t]& sizes) noexcept nogil:
    cdef bint first = True
    cdef int64_t size
    if not expect(scanner, 91):
        return False
    while next_element(scanner, &first):
        if request.inputs.size() == TENSORS_MAX:
            return fail(scanner, b"a request has more than 1024 inputs")
        if not read_input(scanner, request, &size):
            return False
        sizes.push_back(size)
    return scanner.error == NULL


cdef bint read_outputs(Scanner* scanner, InferRequest* request) noexcept nogil:
    cdef RequestedOutput output
    cdef string_view key
    cdef bint first = True, first_key
    cdef int seen
    if not expect(scanner, 91):
        return False
    while next_element(scanner, &first):
        if request.outputs.size() == TENSORS_MAX:
            return fail(scanner, b"a request names more than 1024 outputs")
        output.name = string_view()
        output.binary = -1
        output.classification = 0
        seen = 0
        first_key = True
        if not expect(scanner, 123):
            return False
        while next_key(scanner, request, &first_key, &key):
            if key == string_view(b"name"):
                if not once(scanner, &seen, 1) or not scan_text(scanner, request, &output.name):
                    return False
            elif key == string_view(b"parameters"):
                if not once(scanner, &seen, 2) or not read_size_parameter(
                        scanner, request, b"classification", &output.classification, &output.binary):
                    return False
            elif not skip_value(scanner):
                return False
        if scanner.error != NULL:
            return False
        if not seen & 1:
            return fail(scanner, b"a requested output needs a name")
        request.outputs.push_back(output)
    return scanner.error == NULL


cdef bint read_request(Scanner* scanner, InferRequest* request, vector[int64_t]& sizes) noexcept nogil:
    cdef string_view key
    cdef bint first = True
    cdef int seen = 0
    if not expect(scanner, 123):
        return False
    while next_key(scanner, request, &first, &key):
        if key == string_view(b"inputs"):
            if not once(scanner, &seen, 1) or not read_inputs(scanner, request, sizes):
                return False
        elif key == string_view(b"outputs"):
            if not once(scanner, &seen, 2) or not read_outputs(scanner, request):
                return False
        elif key == string_view(b"id"):
            if not once(scanner, &seen, 4) or not scan_text(scanner, request, &request.id):
                return False
        elif key == string_view(b"parameters"):
            if not once(scanner, &seen, 8) or not read_parameters(scanner, request):
                return False
        elif not skip_value(scanner):
            return False
    if scanner.error != NULL:
        return False
    if not seen & 1:
        return fail(scanner, b"\"inputs\" is missing")
    if peek(scanner):
        return fail(scanner, b"there are bytes after the JSON")
    return True


cdef bint refuse(InferRequest* request, const char* reason, const char* text, string_view where) noexcept nogil:
    cdef string message
    message.append(text)
    if where.size():
        message.append(b": ")
        append_echo(message, where)
    request.status.set(kInvalidArgument, reason, message)
    return False


cdef bint refuse_json(InferRequest* request, const Scanner* scanner) noexcept nogil:
    """What is wrong, in which input, and where in the body."""
    cdef string message
    cdef char digits[24]
    if scanner.input.size():
        message.append(b"input \"")
        append_echo(message, scanner.input)
        message.append(b"\": ")
    message.append(scanner.error)
    message.append(b" (at byte ")
    message.append(digits, put_int(digits, <int64_t> scanner.error_at) - digits)
    message.append(b")")
    request.status.set(kInvalidArgument, b"INVALID_JSON", message)
    return False


cdef bint cut_binary(InferRequest* request, const uint8_t* at, size_t left, const vector[int64_t]& sizes) noexcept nogil:
    """Gives each binary input its bytes; the others come from the arena, which moves no more."""
    cdef size_t index
    for index in range(sizes.size()):
        if sizes[index] == UNSET:
            request.inputs[index].data = request.arena.data + <size_t> request.inputs[index].data
            continue
        if <size_t> sizes[index] > left:
            return refuse(request, b"INVALID_REQUEST", b"binary_data_size: more than the body has", request.inputs[index].name)
        request.inputs[index].data = at
        request.inputs[index].size = <size_t> sizes[index]
        at += sizes[index]
        left -= <size_t> sizes[index]
    if left:
        return refuse(request, b"INVALID_REQUEST", b"the body has bytes that belong to no input", string_view())
    return True


cdef bint parse(InferRequest* request, const uint8_t* body, size_t size, int64_t json_size) noexcept nogil:
    cdef Scanner scanner
    cdef vector[int64_t] sizes
    cdef TensorView raw
    if json_size == 0:
        raw.data = body
        raw.size = size
        request.inputs.push_back(raw)
        request.raw_binary = request.binary_output = True
        return True
    if json_size > <int64_t> size:
        return refuse(request, b"INVALID_REQUEST", b"Inference-Header-Content-Length is more than the body has", string_view())
    scanner.begin = scanner.at = <const char*> body
    scanner.end = scanner.at + (size if json_size < 0 else <size_t> json_size)
    scanner.error = NULL
    scanner.error_at = 0
    if not read_request(&scanner, request, sizes):
        return refuse_json(request, &scanner)
    return cut_binary(request, body + (scanner.end - scanner.begin), size - (scanner.end - scanner.begin), sizes)


# Out.
cdef inline bint put(Buffer* out, const char* text, size_t size) noexcept nogil:
    return out.append(text, size)


cdef bint put_number(Buffer* out, int64_t value) noexcept nogil:
    cdef char text[24]
    return out.append(text, put_int(text, value) - text)


cdef bint is_binary(InferRequest* request, string_view name) noexcept nogil:
    cdef size_t index
    for index in range(request.outputs.size()):
        if request.outputs[index].name == name and request.outputs[index].binary >= 0:
            return request.outputs[index].binary == 1
    return request.binary_output


cdef bint put_output(InferRequest* request, const TensorView* output, bint binary, Buffer* out) noexcept nogil:
    cdef const char* datatype = datatype_name(output.dtype)
    cdef int axis
    put(out, b"{\"name\":", 8)
    write_string(out, output.name)
    put(out, b",\"datatype\":\"", 13)
    put(out, datatype, string_view(datatype).size())
    put(out, b"\",\"shape\":[", 11)
    for axis in range(output.shape.rank):
        if axis:
            put(out, b",", 1)
        put_number(out, output.shape.dims[axis])
    if binary:
        put(out, b"],\"parameters\":{\"binary_data_size\":", 35)
        put_number(out, <int64_t> output.size)
        return put(out, b"}}", 2)
    put(out, b"],\"data\":", 9)
    if not write_data(out, output):
        return refuse(request, b"NOT_UTF8", b"an output holds bytes that JSON cannot: ask for it with binary_data", output.name)
    return put(out, b"}", 1)


cdef bint encode(InferRequest* request, string_view model, string_view version, const TensorView* outputs, size_t count,
                 Buffer* out, int64_t* json_size) noexcept nogil:
    cdef size_t index, room = 256, start = out.size
    cdef bint any_binary = False
    for index in range(count):
        room += outputs[index].size + 160 + outputs[index].name.size()
    json_size[0] = -1
    if not out.reserve(out.size + room):
        request.status.set(kResourceExhausted, b"OUT_OF_MEMORY", string(b"no memory for the answer"))
        return False
    put(out, b"{\"model_name\":", 14)
    write_string(out, model)
    put(out, b",\"model_version\":", 17)
    write_string(out, version)
    if request.id.size():
        put(out, b",\"id\":", 6)
        write_string(out, request.id)
    put(out, b",\"outputs\":[", 12)
    for index in range(count):
        if index:
            put(out, b",", 1)
        any_binary = any_binary or is_binary(request, outputs[index].name)
        if not put_output(request, &outputs[index], is_binary(request, outputs[index].name), out):
            return False
    put(out, b"]}", 2)
    if any_binary:
        json_size[0] = <int64_t> (out.size - start)
        for index in range(count):
            if is_binary(request, outputs[index].name) and not out.append(outputs[index].data, outputs[index].size):
                request.status.set(kResourceExhausted, b"OUT_OF_MEMORY", string(b"no memory for the answer"))
                return False
    return True


# What tests see.
cdef bytes text(string_view given):
    return given.data()[:given.size()]


def decode(bytes body, int64_t json_size=-1) -> dict:
    """A REST infer body as the data plane reads it. Raises ValueError with the refusal's text."""
    cdef InferRequest* request = new InferRequest()
    cdef size_t index
    cdef int axis
    try:
        if not parse(request, <const uint8_t*> <const char*> body, len(body), json_size):
            raise ValueError((<bytes> request.status.message).decode())
        inputs = []
        for index in range(request.inputs.size()):
            inputs.append((text(request.inputs[index].name), datatype_name(request.inputs[index].dtype).decode(),
                           [request.inputs[index].shape.dims[axis] for axis in range(request.inputs[index].shape.rank)],
                           (<const char*> request.inputs[index].data)[:request.inputs[index].size]))
        return {
            "id": text(request.id), "inputs": inputs, "timeout_us": request.timeout_us, "priority": request.priority,
            "label": text(request.label), "binary_output": bool(request.binary_output),
            "outputs": [(text(request.outputs[index].name), request.outputs[index].binary) for index in range(request.outputs.size())],
        }
    finally:
        del request


def encode_response(bytes model, bytes version, bytes id, list outputs) -> tuple:
    """(body, bytes of JSON or -1) for outputs of (name, datatype, shape, raw bytes, binary)."""
    cdef InferRequest* request = new InferRequest()
    cdef vector[TensorView] views
    cdef TensorView one
    cdef RequestedOutput wish
    cdef Buffer* out = &request.response
    cdef bytes name, raw, datatype
    cdef int axis
    try:
        for name, datatype, shape, raw, binary in outputs:
            one.name = wish.name = string_view(<const char*> name, len(name))
            wish.binary = binary
            wish.classification = 0
            one.dtype = datatype_of(string_view(<const char*> datatype, len(datatype)))
            one.shape.rank = len(shape)
            for axis in range(len(shape)):
                one.shape.dims[axis] = shape[axis]
            one.data = <const uint8_t*> <const char*> raw
            one.size = len(raw)
            views.push_back(one)
            request.outputs.push_back(wish)
        request.id = string_view(<const char*> id, len(id))
        if not encode(request, string_view(<const char*> model, len(model)), string_view(<const char*> version, len(version)),
                      views.data(), views.size(), out, &request.json_size):
            raise ValueError((<bytes> request.status.message).decode())
        return (<const char*> out.data)[:out.size], request.json_size
    finally:
        del request
