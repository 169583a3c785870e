"""The JSON part of a REST infer body.

Keys come in any order; a key that is interpreted may come once. Unknown keys are skipped, but must be well-formed JSON.
"""

from libc.stdint cimport uint64_t
from libcpp.algorithm cimport sort
from libcpp.string_view cimport string_view
from libcpp.utility cimport pair

from batchmill.core.json_scanner cimport (
    NumberText, begins_number, expect, fail, peek, refuse, refuse_value, scan_literal, scan_number, scan_string, skip_value, unescape,
)
from batchmill.core.json_tensor cimport read_data
from batchmill.core.message cimport RequestedOutput
from batchmill.core.tensor cimport DataType, TensorView, datatype_of, kMaxRank

cdef size_t TENSORS_MAX = 1024      # inputs or outputs of one request
cdef int64_t UNSET = -1


cdef bint scan_text(Scanner* scanner, InferRequest* request, string_view* text) noexcept nogil:
    """A string, unescaped; the view points into the body or request.texts."""
    cdef bint escaped
    if peek(scanner) != 34:
        return refuse_value(scanner, scanner.at, b"a string")
    if not scan_string(scanner, text, &escaped):
        return False
    if escaped:
        request.texts.emplace_back()
        unescape(text[0], request.texts.back())
        text[0] = string_view(request.texts.back().data(), request.texts.back().size())
    return True


cdef bint scan_size(Scanner* scanner, int64_t* value) noexcept nogil:
    cdef NumberText number
    if not begins_number(peek(scanner)):
        return refuse_value(scanner, scanner.at, b"an integer from 0 to 2^63 - 1")
    if not scan_number(scanner, &number):
        return False
    if not number.integer or (number.negative and number.digits) or number.digits > 19 or number.mantissa >> 63:
        return refuse_value(scanner, number.begin, b"an integer from 0 to 2^63 - 1")
    value[0] = <int64_t> number.mantissa
    return True


cdef bint scan_bool(Scanner* scanner, bint* value) noexcept nogil:
    cdef char next = peek(scanner)
    value[0] = next == 116
    if next == 116:
        return scan_literal(scanner, b"true", 4)
    if next == 102:
        return scan_literal(scanner, b"false", 5)
    return refuse_value(scanner, scanner.at, b"true or false")


cdef bint begin(Scanner* scanner, char bracket) noexcept nogil:
    cdef const char* wanted = b"an object"
    if bracket == 91:
        wanted = b"an array"
    if peek(scanner) != bracket:
        return refuse_value(scanner, scanner.at, wanted)
    scanner.at += 1
    return True


cdef bint next_key(Scanner* scanner, InferRequest* request, bint* first, string_view* key) noexcept nogil:
    """Steps through an object whose brace has been read. False: its end, or scanner.failed."""
    if peek(scanner) == 125:
        scanner.at += 1
        return False
    if not first[0] and not expect(scanner, 44):
        return False
    first[0] = False
    if peek(scanner) != 34:
        return fail(scanner, b"a key was expected")
    return scan_text(scanner, request, key) and expect(scanner, 58)


cdef bint next_element(Scanner* scanner, bint* first) noexcept nogil:
    """Steps through an array whose bracket has been read. False: its end, or scanner.failed."""
    if peek(scanner) == 93:
        scanner.at += 1
        return False
    if not first[0] and not expect(scanner, 44):
        return False
    first[0] = False
    if peek(scanner) == 93:
        return fail(scanner, b"a value was expected")
    return True


cdef bint begin_field(Scanner* scanner, const char* field, int* seen, int bit) noexcept nogil:
    """Before the value of an interpreted key: names it for refusals, and refuses its second coming."""
    scanner.field = field
    if seen[0] & bit:
        return refuse(scanner, b"given twice")
    seen[0] |= bit
    return True


cdef bint read_parameters(Scanner* scanner, InferRequest* request) noexcept nogil:
    cdef string_view key
    cdef bint first = True, flag
    cdef int64_t number
    cdef int seen = 0
    cdef pair[string_view, string_view] given
    if not begin(scanner, 123):
        return False
    while next_key(scanner, request, &first, &key):
        if key == string_view(b"binary_data_output"):
            if not begin_field(scanner, b"parameters.binary_data_output", &seen, 1) or not scan_bool(scanner, &flag):
                return False
            request.binary_output = flag
        elif key == string_view(b"timeout"):
            if not begin_field(scanner, b"parameters.timeout", &seen, 2) or not scan_size(scanner, &request.timeout_us):
                return False
        elif key == string_view(b"priority"):
            if not begin_field(scanner, b"parameters.priority", &seen, 4) or not scan_size(scanner, &number):
                return False
            request.priority = <uint64_t> number
        elif key == string_view(b"label"):
            if not begin_field(scanner, b"parameters.label", &seen, 8) or not scan_text(scanner, request, &request.label):
                return False
        elif key == string_view(b"route_key"):
            if not begin_field(scanner, b"parameters.route_key", &seen, 16) or not scan_text(scanner, request, &request.route_key):
                return False
        elif peek(scanner) == 34:
            given.first = key
            if not scan_text(scanner, request, &given.second):
                return False
            request.texts_given.push_back(given)
        elif not skip_value(scanner):
            return False
    return not scanner.failed


cdef bint is_shared_memory(string_view key) noexcept nogil:
    return key.substr(0, 14) == string_view(b"shared_memory_")


cdef bint read_input_parameters(Scanner* scanner, InferRequest* request, int64_t* binary_size) noexcept nogil:
    cdef string_view key
    cdef bint first = True
    cdef int seen = 0
    if not begin(scanner, 123):
        return False
    while next_key(scanner, request, &first, &key):
        if key == string_view(b"binary_data_size"):
            if not begin_field(scanner, b"parameters.binary_data_size", &seen, 1) or not scan_size(scanner, binary_size):
                return False
        elif is_shared_memory(key):
            return refuse(scanner, b"shared memory is not offered")
        elif not skip_value(scanner):
            return False
    return not scanner.failed


cdef bint read_output_parameters(Scanner* scanner, InferRequest* request, RequestedOutput* output) noexcept nogil:
    cdef string_view key
    cdef bint first = True, flag
    cdef int seen = 0
    if not begin(scanner, 123):
        return False
    while next_key(scanner, request, &first, &key):
        if key == string_view(b"binary_data"):
            if not begin_field(scanner, b"parameters.binary_data", &seen, 1) or not scan_bool(scanner, &flag):
                return False
            output.binary = flag
        elif key == string_view(b"classification"):
            if not begin_field(scanner, b"parameters.classification", &seen, 2) or not scan_size(scanner, &output.classification):
                return False
        elif is_shared_memory(key):
            return refuse(scanner, b"shared memory is not offered")
        elif not skip_value(scanner):
            return False
    return not scanner.failed


cdef bint read_datatype(Scanner* scanner, InferRequest* request, TensorView* tensor) noexcept nogil:
    cdef const char* token
    cdef string_view name
    peek(scanner)
    token = scanner.at
    if not scan_text(scanner, request, &name):
        return False
    tensor.dtype = datatype_of(name)
    return tensor.dtype != DataType.kInvalid or refuse_value(scanner, token, b"a datatype such as FP32")


cdef bint read_shape(Scanner* scanner, TensorView* tensor) noexcept nogil:
    cdef bint first = True
    tensor.shape.rank = 0
    if not begin(scanner, 91):
        return False
    while next_element(scanner, &first):
        if tensor.shape.rank == kMaxRank:
            return refuse(scanner, b"more than 16 dimensions")
        if not scan_size(scanner, &tensor.shape.dims[tensor.shape.rank]):
            return False
        tensor.shape.rank += 1
    return not scanner.failed


cdef bint read_name(Scanner* scanner, InferRequest* request, string_view* name) noexcept nogil:
    if not scan_text(scanner, request, name):
        return False
    scanner.name = name.data()
    scanner.name_size = name.size()
    return True


cdef bint complete(Scanner* scanner, int seen, bint binary) noexcept nogil:
    """Whether an input has what it needs. seen: 1 name, 2 datatype, 4 shape, 16 data."""
    scanner.field = NULL
    if not seen & 1:
        return refuse(scanner, b"name is missing")
    if not seen & 2:
        return refuse(scanner, b"datatype is missing")
    if not seen & 4:
        return refuse(scanner, b"shape is missing")
    if seen & 16 and binary:
        return refuse(scanner, b"data and binary_data_size are both given")
    return seen & 16 or binary or refuse(scanner, b"neither data nor binary_data_size is given")


cdef bint read_input(Scanner* scanner, InferRequest* request, int64_t* binary_size) noexcept nogil:
    cdef TensorView tensor
    cdef string_view key
    cdef bint first = True
    cdef int seen = 0
    cdef const char* data = NULL    # where data begins that came before its shape
    cdef const char* after
    binary_size[0] = UNSET
    if not begin(scanner, 123):
        return False
    while next_key(scanner, request, &first, &key):
        if key == string_view(b"name"):
            if not begin_field(scanner, b"name", &seen, 1) or not read_name(scanner, request, &tensor.name):
                return False
        elif key == string_view(b"datatype"):
            if not begin_field(scanner, b"datatype", &seen, 2) or not read_datatype(scanner, request, &tensor):
                return False
        elif key == string_view(b"shape"):
            if not begin_field(scanner, b"shape", &seen, 4) or not read_shape(scanner, &tensor):
                return False
        elif key == string_view(b"parameters"):
            if not begin_field(scanner, b"parameters", &seen, 8) or not read_input_parameters(scanner, request, binary_size):
                return False
        elif key == string_view(b"data"):
            if not begin_field(scanner, b"data", &seen, 16):
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
    if scanner.failed or not complete(scanner, seen, binary_size[0] != UNSET):
        return False
    if data != NULL:
        after = scanner.at
        scanner.at = data
        scanner.field = b"data"
        if not read_data(scanner, &tensor, &request.arena):
            return False
        scanner.at = after
    request.inputs.push_back(tensor)
    return True


cdef bint read_output(Scanner* scanner, InferRequest* request) noexcept nogil:
    cdef RequestedOutput output
    cdef string_view key
    cdef bint first = True
    cdef int seen = 0
    if not begin(scanner, 123):
        return False
    while next_key(scanner, request, &first, &key):
        if key == string_view(b"name"):
            if not begin_field(scanner, b"name", &seen, 1) or not read_name(scanner, request, &output.name):
                return False
        elif key == string_view(b"parameters"):
            if not begin_field(scanner, b"parameters", &seen, 2) or not read_output_parameters(scanner, request, &output):
                return False
        elif not skip_value(scanner):
            return False
    if scanner.failed:
        return False
    if not seen & 1:
        scanner.field = NULL
        return refuse(scanner, b"name is missing")
    request.outputs.push_back(output)
    return True


cdef bint read_tensors(Scanner* scanner, InferRequest* request, const char* key, const char* kind,
                       vector[int64_t]* binary_sizes) noexcept nogil:
    """The array of inputs, or of requested outputs (binary_sizes NULL)."""
    cdef bint first = True
    cdef int64_t size
    if not begin(scanner, 91):
        return False
    scanner.index = 0
    while next_element(scanner, &first):
        if scanner.index == TENSORS_MAX:
            return refuse(scanner, b"more than 1024")
        scanner.kind = kind
        scanner.name = NULL
        scanner.field = NULL
        if binary_sizes == NULL:
            if not read_output(scanner, request):
                return False
        else:
            if not read_input(scanner, request, &size):
                return False
            binary_sizes.push_back(size)
        scanner.kind = NULL
        scanner.field = key
        scanner.index += 1
    return not scanner.failed


cdef bint distinct(Scanner* scanner, const char* kind, vector[string_view]& names) noexcept nogil:
    """Whether all names differ; sorted, so that 1024 names cost no million comparisons."""
    cdef size_t index
    sort(names.begin(), names.end())
    for index in range(1, names.size()):
        if names[index] == names[index - 1]:
            scanner.kind = kind
            scanner.field = NULL
            scanner.name = names[index].data()
            scanner.name_size = names[index].size()
            return refuse(scanner, b"given twice")
    return True


cdef bint check_names(Scanner* scanner, InferRequest* request) noexcept nogil:
    cdef vector[string_view] names
    cdef size_t index
    if request.inputs.size() > 1:
        for index in range(request.inputs.size()):
            names.push_back(request.inputs[index].name)
        if not distinct(scanner, b"input", names):
            return False
    names.clear()
    if request.outputs.size() > 1:
        for index in range(request.outputs.size()):
            names.push_back(request.outputs[index].name)
        return distinct(scanner, b"output", names)
    return True


cdef bint read_request(Scanner* scanner, InferRequest* request, vector[int64_t]& binary_sizes) noexcept nogil:
    cdef string_view key
    cdef bint first = True
    cdef int seen = 0
    cdef const char* start
    if not begin(scanner, 123):
        return False
    while next_key(scanner, request, &first, &key):
        if key == string_view(b"inputs"):
            if not begin_field(scanner, b"inputs", &seen, 1) or not read_tensors(scanner, request, b"inputs", b"input", &binary_sizes):
                return False
        elif key == string_view(b"outputs"):
            if not begin_field(scanner, b"outputs", &seen, 2) or not read_tensors(scanner, request, b"outputs", b"output", NULL):
                return False
        elif key == string_view(b"id"):
            if not begin_field(scanner, b"id", &seen, 4) or not scan_text(scanner, request, &request.id):
                return False
        elif key == string_view(b"parameters"):
            start = scanner.at
            if not begin_field(scanner, b"parameters", &seen, 8) or not read_parameters(scanner, request):
                return False
            request.parameters.push_back(string_view(start, scanner.at - start))
        elif not skip_value(scanner):
            return False
    scanner.field = NULL
    if scanner.failed:
        return False
    peek(scanner)
    if scanner.at != scanner.end:
        return fail(scanner, b"bytes follow the JSON")
    if not seen & 1:
        return refuse(scanner, b"inputs is missing")
    return check_names(scanner, request)
