"""ModelInferRequest, parsed in place.

Field numbers are those of protos/inference.proto. The parser takes what protobuf takes: unknown fields are skipped,
the last of a repeated scalar wins, packed and unpacked repeated numbers both. It has no recursion: messages nest three deep.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libcpp.string cimport string
from libcpp.utility cimport pair

from batchmill.core.message cimport RequestedOutput
from batchmill.core.pb_wire cimport Cursor, block, next_tag, skip, text_of, varint, view
from batchmill.core.status cimport append_echo, kInvalidArgument
from batchmill.core.tensor cimport Buffer, datatype_name, datatype_of, element_bytes, kMaxRank, TensorView

cdef enum:
    MAX_TENSORS = 1024      # inputs or outputs of one request, as in JSON; no model comes near


cdef bint fail(InferRequest* request, const char* text) noexcept nogil:
    request.status.set(kInvalidArgument, b"INVALID_REQUEST", string(text))
    return False


cdef bint fail_name(InferRequest* request, const char* before, string_view name, const char* after) noexcept nogil:
    cdef string text
    text.append(before)
    append_echo(text, name)
    text.append(after)
    request.status.set(kInvalidArgument, b"INVALID_REQUEST", text)
    return False


cdef void take_value(Cursor* value, int* kind, int64_t* number, string_view* text) noexcept nogil:
    """An InferParameter. kind: 1 an integer, 2 a string, 3 a bool, 0 a double, which no parameter of ours is."""
    cdef uint64_t tag
    while value.at < value.end and not value.bad:
        tag = next_tag(value)
        if tag == 16 or tag == 40:      # int64, uint64
            number[0] = <int64_t> varint(value)
            kind[0] = 1
        elif tag == 26:
            text[0] = text_of(value)
            kind[0] = 2
        elif tag == 8:
            number[0] = varint(value) != 0
            kind[0] = 3
        else:
            if tag == 33:       # double
                kind[0] = 0
            skip(value, tag)


cdef void take_parameter(InferRequest* request, Cursor entry, RequestedOutput* output) noexcept nogil:
    """One entry of a map<string, InferParameter>; the ones the server knows are kept. output: of a tensor's own.

    Those of the request itself come back with the answer, but for names that the protocol reserves for the server.
    """
    cdef string_view key, text, whole = view(entry)
    cdef pair[string_view, string_view] given
    cdef int64_t number = 0
    cdef uint64_t tag
    cdef Cursor value
    cdef int kind = 0
    while entry.at < entry.end and not entry.bad:
        tag = next_tag(&entry)
        if tag == 10:
            key = text_of(&entry)
        elif tag == 18:     # comes it twice, then protobuf merges: the last of the oneof wins
            value = block(&entry)
            take_value(&value, &kind, &number, &text)
            entry.bad = entry.bad or value.bad
        else:
            skip(&entry, tag)
    if entry.bad:
        request.status.set(kInvalidArgument, b"INVALID_REQUEST", string(b"ModelInferRequest: broken parameters"))
        return
    if output != NULL:
        if kind == 1 and key == string_view(b"classification"):
            output.classification = number
        elif key.substr(0, 14) == string_view(b"shared_memory_"):
            fail(request, b"shared memory is not offered")
        return
    if key.substr(0, 7) != string_view(b"triton_"):
        request.parameters.push_back(whole)
    if kind == 3 and key == string_view(b"binary_data_output"):
        request.typed_contents = number == 0
    elif kind == 1 and key == string_view(b"timeout"):
        request.timeout_us = number if number > 0 else 0
    elif kind == 1 and key == string_view(b"priority"):
        request.priority = <uint64_t> number
    elif kind == 2 and key == string_view(b"label"):
        request.label = text
    elif kind == 2 and key == string_view(b"route_key"):
        request.route_key = text
    elif kind == 2:
        given.first, given.second = key, text
        request.texts_given.push_back(given)


cdef bint take_shape(InferRequest* request, TensorView* tensor, Cursor* cursor, bint packed) noexcept nogil:
    cdef Cursor inner
    if not packed:
        if tensor.shape.rank == kMaxRank:
            return fail(request, b"a shape has more than 16 dimensions")
        tensor.shape.dims[tensor.shape.rank] = <int64_t> varint(cursor)
        tensor.shape.rank += 1
        return not cursor.bad
    inner = block(cursor)
    while inner.at < inner.end and not inner.bad:
        if tensor.shape.rank == kMaxRank:
            return fail(request, b"a shape has more than 16 dimensions")
        tensor.shape.dims[tensor.shape.rank] = <int64_t> varint(&inner)
        tensor.shape.rank += 1
    if inner.bad:
        cursor.bad = True
    return not cursor.bad


cdef struct Input:
    Cursor contents         # at NULL: none
    bint has_contents


cdef bint take_input(InferRequest* request, Cursor cursor, Input* extra) noexcept nogil:
    cdef TensorView tensor
    cdef uint64_t tag
    cdef string_view datatype
    cdef RequestedOutput ignored
    extra.has_contents = False
    while cursor.at < cursor.end and not cursor.bad:
        tag = next_tag(&cursor)
        if tag == 10:
            tensor.name = text_of(&cursor)
        elif tag == 18:
            datatype = text_of(&cursor)
        elif tag == 26 or tag == 24:
            if not take_shape(request, &tensor, &cursor, tag == 26):
                return False
        elif tag == 34:
            take_parameter(request, block(&cursor), &ignored)
        elif tag == 42:
            if extra.has_contents:      # protobuf would merge the two
                return fail(request, b"ModelInferRequest: an input has contents twice")
            extra.contents = block(&cursor)
            extra.has_contents = True
        else:
            skip(&cursor, tag)
    if cursor.bad:
        return fail(request, b"ModelInferRequest: broken input")
    tensor.dtype = datatype_of(datatype)
    if tensor.dtype == DataType.kInvalid:
        return fail_name(request, b"unknown datatype \"", datatype, b"\"")
    request.inputs.push_back(tensor)
    return True


cdef bint take_output(InferRequest* request, Cursor cursor) noexcept nogil:
    cdef RequestedOutput output
    cdef uint64_t tag
    output.binary = -1
    output.classification = 0
    while cursor.at < cursor.end and not cursor.bad:
        tag = next_tag(&cursor)
        if tag == 10:
            output.name = text_of(&cursor)
        elif tag == 18:
            take_parameter(request, block(&cursor), &output)
        else:
            skip(&cursor, tag)
    if cursor.bad:
        return fail(request, b"ModelInferRequest: broken requested output")
    request.outputs.push_back(output)
    return True


cdef int contents_field(DataType dtype) noexcept nogil:
    """The field of InferTensorContents that carries a datatype; 0: it travels only raw."""
    if dtype == DataType.kBool:
        return 1
    if dtype == DataType.kInt8 or dtype == DataType.kInt16 or dtype == DataType.kInt32:
        return 2
    if dtype == DataType.kInt64:
        return 3
    if dtype == DataType.kUint8 or dtype == DataType.kUint16 or dtype == DataType.kUint32:
        return 4
    if dtype == DataType.kUint64:
        return 5
    if dtype == DataType.kFp32:
        return 6
    if dtype == DataType.kFp64:
        return 7
    if dtype == DataType.kBytes:
        return 8
    return 0


cdef int single_wire(int field) noexcept nogil:
    """The wire type of one element of InferTensorContents that is not packed."""
    return 2 if field == 8 else 1 if field == 7 else 5 if field == 6 else 0


cdef bint store_number(Buffer* arena, DataType dtype, uint64_t value) noexcept nogil:
    """Appends one varint as an element of a datatype; False: out of its range."""
    cdef int64_t number = <int64_t> value
    cdef size_t width = element_bytes(dtype)
    if dtype == DataType.kBool:
        value = value != 0
    elif dtype == DataType.kInt8 or dtype == DataType.kInt16:
        number = <int32_t> <uint32_t> value
        if number < (-128 if width == 1 else -32768) or number > (127 if width == 1 else 32767):
            return False
        value = <uint64_t> number
    elif dtype == DataType.kUint8 or dtype == DataType.kUint16:
        if <uint32_t> value > (255u if width == 1 else 65535u):
            return False
    return arena.append(&value, width)


cdef bint take_contents(InferRequest* request, TensorView* tensor, Cursor cursor) noexcept nogil:
    """Typed contents into the arena, in raw form. tensor.data is set to an offset here: the arena may still move."""
    cdef int wanted = contents_field(tensor.dtype)
    cdef uint64_t tag
    cdef Cursor inner
    cdef size_t start
    cdef uint32_t length
    cdef int field
    cdef Buffer* arena = &request.arena
    cdef size_t pad = (64 - arena.size % 64) % 64
    if wanted == 0:
        return fail_name(request, b"input \"", tensor.name, b"\": its datatype travels only in raw_input_contents")
    if arena.extend(pad) == NULL:
        return fail(request, b"out of memory")
    start = arena.size
    while cursor.at < cursor.end and not cursor.bad:
        tag = next_tag(&cursor)
        field = <int> (tag >> 3)
        if field > 8 or (tag & 7 != 2 and tag & 7 != single_wire(field)):
            skip(&cursor, tag)
            continue
        inner.bad = False
        if tag & 7 == 2:
            inner = block(&cursor)
        else:
            inner.at = cursor.at
            skip(&cursor, tag)
            inner.end = cursor.at
        if cursor.bad:
            break
        if field != wanted:
            if inner.at == inner.end and field != 8:    # packed, and nothing in it
                continue
            return fail_name(request, b"input \"", tensor.name, b"\": contents in the field of another datatype")
        if wanted == 8:
            length = <uint32_t> (inner.end - inner.at)
            if not arena.append(&length, 4) or not arena.append(inner.at, length):
                cursor.bad = True
        elif wanted >= 6:
            if (inner.end - inner.at) % <Py_ssize_t> element_bytes(tensor.dtype) or not arena.append(inner.at, inner.end - inner.at):
                cursor.bad = True
        else:
            while inner.at < inner.end and not inner.bad:
                if not store_number(arena, tensor.dtype, varint(&inner)) and not inner.bad:
                    return fail_name(request, b"input \"", tensor.name, b"\": a value is out of the range of its datatype")
            cursor.bad = cursor.bad or inner.bad
    if cursor.bad:
        return fail_name(request, b"input \"", tensor.name, b"\": broken contents")
    tensor.data = <const uint8_t*> start
    tensor.size = arena.size - start
    return True


cdef bint fail_both(InferRequest* request, const Input* extra) noexcept nogil:
    """Triton's words, which its examples look for."""
    cdef size_t index = 0
    cdef string text = string(b"contents field must not be specified when using raw_input_contents for '")
    while not extra[index].has_contents:
        index += 1
    append_echo(text, request.inputs[index].name)
    text.append(b"' for model '")
    append_echo(text, request.model_name)
    text.append(b"'")
    request.status.set(kInvalidArgument, b"INVALID_REQUEST", text)
    return False


cdef bint parse(InferRequest* request) noexcept nogil:
    cdef Cursor cursor
    cdef Cursor raw[MAX_TENSORS]
    cdef Input extra[MAX_TENSORS]
    cdef uint64_t tag
    cdef size_t raws = 0, index, typed = 0
    cursor.at = request.body.data
    cursor.end = request.body.data + request.body.size
    cursor.bad = False
    while cursor.at < cursor.end and not cursor.bad:
        tag = next_tag(&cursor)
        if tag == 10:
            request.model_name = text_of(&cursor)
        elif tag == 18:
            request.model_version = text_of(&cursor)
        elif tag == 26:
            request.id = text_of(&cursor)
        elif tag == 34:
            take_parameter(request, block(&cursor), NULL)
        elif tag == 42:
            index = request.inputs.size()
            if index == MAX_TENSORS:
                return fail(request, b"a request has more than 1024 inputs")
            if not take_input(request, block(&cursor), &extra[index]):
                return False
            typed += extra[index].has_contents
        elif tag == 50:
            if request.outputs.size() == MAX_TENSORS:
                return fail(request, b"a request names more than 1024 outputs")
            if not take_output(request, block(&cursor)):
                return False
        elif tag == 58:
            if raws == MAX_TENSORS:
                return fail(request, b"raw_input_contents has more than 1024 entries")
            raw[raws] = block(&cursor)
            raws += 1
        else:
            skip(&cursor, tag)
    if cursor.bad:
        return fail(request, b"the bytes are no ModelInferRequest")
    if not request.status.ok():
        return False
    if raws:
        if typed:
            return fail_both(request, extra)
        if raws != request.inputs.size():
            return fail(request, b"raw_input_contents must have one entry for each input")
        for index in range(raws):
            request.inputs[index].data = raw[index].at
            request.inputs[index].size = raw[index].end - raw[index].at
        return True
    for index in range(request.inputs.size()):
        if not extra[index].has_contents:
            extra[index].contents.at = extra[index].contents.end = cursor.end
            extra[index].contents.bad = False
        if not take_contents(request, &request.inputs[index], extra[index].contents):
            return False
    for index in range(request.inputs.size()):
        request.inputs[index].data = request.arena.data + <size_t> request.inputs[index].data
    return True


cdef bint parse_two_strings(const uint8_t* data, size_t size, string_view* first, string_view* second) noexcept nogil:
    cdef Cursor cursor
    cdef uint64_t tag
    cursor.at = data
    cursor.end = data + size
    cursor.bad = False
    while cursor.at < cursor.end and not cursor.bad:
        tag = next_tag(&cursor)
        if tag == 10:
            first[0] = text_of(&cursor)
        elif tag == 18:
            second[0] = text_of(&cursor)
        else:
            skip(&cursor, tag)
    return not cursor.bad


# What tests see.
def decode(bytes message) -> dict:
    """A ModelInferRequest as the data plane reads it. Raises ValueError with the refusal's text."""
    cdef InferRequest* request = new InferRequest()
    cdef size_t index, axis
    try:
        request.body.append(<const char*> message, len(message))
        if not parse(request):
            raise ValueError((<bytes> request.status.message).decode())
        inputs = []
        for index in range(request.inputs.size()):
            inputs.append((
                text(request.inputs[index].name), datatype_name(request.inputs[index].dtype).decode(),
                [request.inputs[index].shape.dims[axis] for axis in range(<size_t> request.inputs[index].shape.rank)],
                (<const char*> request.inputs[index].data)[:request.inputs[index].size]))
        return {
            "model_name": text(request.model_name), "model_version": text(request.model_version), "id": text(request.id),
            "inputs": inputs, "outputs": [text(request.outputs[index].name) for index in range(request.outputs.size())],
            "typed": bool(request.typed_contents), "timeout_us": request.timeout_us, "priority": request.priority,
            "label": text(request.label),
        }
    finally:
        del request


cdef bytes text(string_view given):
    return given.data()[:given.size()]
