"""The elements of one tensor, between JSON and raw form.

Numbers are read as double and then cast, as json and numpy do. A float that JSON cannot write travels as the string "NaN",
"Infinity" or "-Infinity" (the JSON mapping of proto3). What is out of a datatype's range is refused, never wrapped.
"""

from libc.math cimport isfinite, isnan
from libc.stdint cimport UINT32_MAX, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.string cimport string

from batchmill.core.json_scanner cimport (
    NumberText, begins_number, expect, peek, put_int, refuse, refuse_value, scan_literal, scan_number, scan_string, to_double, unescape,
)
from batchmill.core.status cimport kResourceExhausted, utf8_length
from batchmill.core.tensor cimport DataType, append_shape, count_bytes_elements, datatype_name, element_bytes, element_count

cdef extern from "number_text.hpp" namespace "batchmill" nogil:
    char* put_float "batchmill::put_float<double>"(char* at, double value)
    char* put_float32 "batchmill::put_float<float>"(char* at, float value)
    char* put_uint(char* at, uint64_t value)
    float half_to_float(uint16_t half)
    float brain_to_float(uint16_t brain)

cdef extern from * nogil:
    """
    #include <cmath>
    static const double batchmill_float_overflow = 3.4028235677973366e38;  // half a step above FLT_MAX: rounds to infinity from here
    """
    double FLOAT_OVERFLOW "batchmill_float_overflow"
    double NAN "NAN"
    double INFINITY "INFINITY"


cdef bint wrong_value(Scanner* scanner, const char* token, DataType dtype) noexcept nogil:
    return refuse_value(scanner, token, datatype_name(dtype))


cdef bint out_of_range(Scanner* scanner, const char* token, DataType dtype) noexcept nogil:
    cdef string wanted
    wanted.append(b"a number in the range of ").append(datatype_name(dtype))
    return refuse_value(scanner, token, wanted.c_str())


cdef bint wrong_shape(Scanner* scanner, const char* text, const TensorView* tensor) noexcept nogil:
    cdef string message
    message.append(text)
    append_shape(message, tensor.shape)
    return refuse(scanner, message.c_str())


cdef bint no_memory(Scanner* scanner) noexcept nogil:
    scanner.failed = True
    scanner.at = scanner.end
    scanner.status.set(kResourceExhausted, b"OUT_OF_MEMORY", string(b"no memory for the request's tensors"))
    return False


cdef bint scan_text(Scanner* scanner, DataType dtype, string_view* text, string& plain) noexcept nogil:
    """A string, unescaped; the view points into the body or into plain."""
    cdef bint escaped
    if peek(scanner) != 34:
        return wrong_value(scanner, scanner.at, dtype)
    if not scan_string(scanner, text, &escaped):
        return False
    if escaped:
        unescape(text[0], plain)
        text[0] = string_view(plain.data(), plain.size())
    return True


cdef bint read_word(Scanner* scanner, DataType dtype, double* value) noexcept nogil:
    """What JSON has no number for."""
    cdef const char* token = scanner.at
    cdef string_view word
    cdef string plain
    if not scan_text(scanner, dtype, &word, plain):
        return False
    if word == string_view(b"NaN"):
        value[0] = NAN
    elif word == string_view(b"Infinity"):
        value[0] = INFINITY
    elif word == string_view(b"-Infinity"):
        value[0] = -INFINITY
    else:
        return wrong_value(scanner, token, dtype)
    return True


cdef bint read_float(Scanner* scanner, DataType dtype, uint8_t* target) noexcept nogil:
    cdef NumberText number
    cdef double value
    cdef float narrow
    if begins_number(peek(scanner)):
        if not scan_number(scanner, &number):
            return False
        if not to_double(number, &value):
            return out_of_range(scanner, number.begin, dtype)
        if dtype == DataType.kFp32 and (value >= FLOAT_OVERFLOW or value <= -FLOAT_OVERFLOW):
            return out_of_range(scanner, number.begin, dtype)
    elif not read_word(scanner, dtype, &value):
        return False
    if dtype == DataType.kFp64:
        memcpy(target, &value, 8)
    else:
        narrow = <float> value
        memcpy(target, &narrow, 4)
    return True


cdef bint in_range(DataType dtype, bint negative, uint64_t magnitude) noexcept nogil:
    cdef size_t bits = element_bytes(dtype) * 8
    if dtype == DataType.kInt8 or dtype == DataType.kInt16 or dtype == DataType.kInt32 or dtype == DataType.kInt64:
        return magnitude <= (<uint64_t> 1 << (bits - 1)) - (0 if negative else 1)
    if negative and magnitude:
        return False
    return bits == 64 or magnitude < <uint64_t> 1 << bits


cdef bint read_integer(Scanner* scanner, DataType dtype, uint8_t* target) noexcept nogil:
    cdef NumberText number
    cdef uint64_t value, digit
    if not begins_number(peek(scanner)):
        return wrong_value(scanner, scanner.at, dtype)
    if not scan_number(scanner, &number):
        return False
    if not number.integer:
        return wrong_value(scanner, number.begin, dtype)
    if number.digits > 20:
        return out_of_range(scanner, number.begin, dtype)
    value = number.mantissa
    if number.digits == 20:     # may still fit into uint64
        digit = (number.end - 1)[0] - 48
        if value > (<uint64_t> -1 - digit) // 10:
            return out_of_range(scanner, number.begin, dtype)
        value = value * 10 + digit
    if not in_range(dtype, number.negative, value):
        return out_of_range(scanner, number.begin, dtype)
    if number.negative:
        value = <uint64_t> 0 - value
    memcpy(target, &value, element_bytes(dtype))
    return True


cdef bint read_bool(Scanner* scanner, uint8_t* target) noexcept nogil:
    cdef char first = peek(scanner)
    target[0] = first == 116
    if first == 116:
        return scan_literal(scanner, b"true", 4)
    if first == 102:
        return scan_literal(scanner, b"false", 5)
    return wrong_value(scanner, scanner.at, DataType.kBool)


cdef bint read_bytes(Scanner* scanner, Buffer* arena) noexcept nogil:
    cdef string_view text
    cdef string plain
    cdef uint32_t size
    if not scan_text(scanner, DataType.kBytes, &text, plain):
        return False
    if text.size() > UINT32_MAX:
        return refuse(scanner, b"an element of more than 4 GiB")
    size = <uint32_t> text.size()
    return (arena.append(&size, 4) and arena.append(text.data(), size)) or no_memory(scanner)


cdef bint read_element(Scanner* scanner, DataType dtype, Buffer* arena) noexcept nogil:
    cdef size_t width = element_bytes(dtype)
    cdef uint8_t* target
    if dtype == DataType.kBytes:
        return read_bytes(scanner, arena)
    target = arena.extend(width)
    if target == NULL:
        return no_memory(scanner)
    if dtype == DataType.kFp32 or dtype == DataType.kFp64:
        return read_float(scanner, dtype, target)
    if dtype == DataType.kBool:
        return read_bool(scanner, target)
    return read_integer(scanner, dtype, target)


cdef bint read_flat(Scanner* scanner, TensorView* tensor, int64_t count, Buffer* arena) noexcept nogil:
    """After the opening bracket of an array that holds elements."""
    cdef int64_t seen = 0
    if peek(scanner) == 93:
        scanner.at += 1
        return count == 0 or wrong_shape(scanner, b"fewer elements than in shape ", tensor)
    while True:
        if seen == count:
            return wrong_shape(scanner, b"more elements than in shape ", tensor)
        if not read_element(scanner, tensor.dtype, arena):
            return False
        seen += 1
        if peek(scanner) == 44:
            scanner.at += 1
            continue
        if not expect(scanner, 93):
            return False
        return seen == count or wrong_shape(scanner, b"fewer elements than in shape ", tensor)


cdef bint open_row(Scanner* scanner) noexcept nogil:
    if peek(scanner) != 91:
        return refuse_value(scanner, scanner.at, b"an array")
    scanner.at += 1
    return True


cdef bint read_nested(Scanner* scanner, TensorView* tensor, Buffer* arena) noexcept nogil:
    """After the first of several opening brackets: every level must have exactly its axis' size."""
    cdef int64_t seen[17]       # kMaxRank + 1: how many children of each open array have ended
    cdef int level = 1          # open arrays
    cdef int rank = tensor.shape.rank
    seen[1] = 0
    while level:
        if peek(scanner) == 93 and seen[level] == 0:
            if tensor.shape.dims[level - 1] != 0:
                return wrong_shape(scanner, b"not nested like shape ", tensor)
            scanner.at += 1
        elif level == rank:
            if not read_flat(scanner, tensor, tensor.shape.dims[rank - 1], arena):
                return False
        else:
            if not open_row(scanner):
                return False
            level += 1
            seen[level] = 0
            continue
        level -= 1
        while level:            # an array has ended inside of this one
            seen[level] += 1
            if peek(scanner) == 44:
                scanner.at += 1
                if seen[level] == tensor.shape.dims[level - 1]:
                    return wrong_shape(scanner, b"not nested like shape ", tensor)
                if not open_row(scanner):
                    return False
                level += 1
                seen[level] = 0
                break
            if not expect(scanner, 93):
                return False
            if seen[level] != tensor.shape.dims[level - 1]:
                return wrong_shape(scanner, b"not nested like shape ", tensor)
            level -= 1
    return True


cdef bint read_data(Scanner* scanner, TensorView* tensor, Buffer* arena) noexcept nogil:
    cdef int64_t count = element_count(tensor.shape)
    cdef int64_t possible = (scanner.end - scanner.at) // 2 + 1    # an element takes at least two bytes of body
    cdef size_t start, width = element_bytes(tensor.dtype)
    cdef bint fine
    if tensor.dtype == DataType.kFp16 or tensor.dtype == DataType.kBf16:
        return refuse(scanner, b"FP16 and BF16 travel only as binary data (binary_data_size)")
    if count < 0:
        return wrong_shape(scanner, b"too many elements in shape ", tensor)
    if peek(scanner) != 91:
        return refuse_value(scanner, scanner.at, b"an array")
    if count > possible:
        return wrong_shape(scanner, b"fewer elements than in shape ", tensor)
    if arena.extend((64 - arena.size % 64) % 64) == NULL or not arena.reserve(arena.size + <size_t> count * width + 1):
        return no_memory(scanner)
    start = arena.size
    scanner.at += 1
    if tensor.shape.rank > 1 and peek(scanner) == 91:
        fine = read_nested(scanner, tensor, arena)
    else:
        fine = read_flat(scanner, tensor, count, arena)
    tensor.data = <const uint8_t*> start
    tensor.size = arena.size - start
    return fine


# Out.
cdef size_t escape(uint8_t byte, char* target) noexcept nogil:
    """Bytes of the escape for a quote, a backslash or a control character; 0: the byte stands for itself."""
    cdef const char* hex_digits = b"0123456789abcdef"
    if byte == 34 or byte == 92:
        target[0] = 92
        target[1] = <char> byte
        return 2
    if byte >= 0x20:
        return 0
    memcpy(target, b"\\u00", 4)
    target[4] = hex_digits[byte >> 4]
    target[5] = hex_digits[byte & 15]
    return 6


cdef WriteResult write_text(Buffer* out, string_view text) noexcept nogil:
    cdef const uint8_t* at = <const uint8_t*> text.data()
    cdef size_t index = 0, length, plain = 0    # plain: where the run begins that is still to be copied
    cdef char escaped[6]
    if not out.append(b"\"", 1):
        return kNoMemory
    while index < text.size():
        length = utf8_length(at + index, text.size() - index)
        if length == 0:
            return kNotText
        index += length
        if length > 1:
            continue
        length = escape(at[index - 1], escaped)
        if length:
            if not out.append(at + plain, index - 1 - plain) or not out.append(escaped, length):
                return kNoMemory
            plain = index
    return kWritten if out.append(at + plain, index - plain) and out.append(b"\"", 1) else kNoMemory


cdef bint write_string(Buffer* out, string_view text) noexcept nogil:
    return write_text(out, text) == kWritten


cdef char* put_double(char* at, double value, bint narrow) noexcept nogil:
    if isfinite(value):
        return put_float32(at, <float> value) if narrow else put_float(at, value)
    if isnan(value):
        memcpy(at, b"\"NaN\"", 5)
        return at + 5
    if value > 0:
        memcpy(at, b"\"Infinity\"", 10)
        return at + 10
    memcpy(at, b"\"-Infinity\"", 11)
    return at + 11


cdef char* put_element(char* at, DataType dtype, const uint8_t* from_) noexcept nogil:
    cdef double wide
    cdef float narrow
    cdef uint64_t bits = 0
    cdef size_t width = element_bytes(dtype)
    if dtype == DataType.kFp32:
        memcpy(&narrow, from_, 4)
        return put_double(at, narrow, True)
    if dtype == DataType.kFp64:
        memcpy(&wide, from_, 8)
        return put_double(at, wide, False)
    memcpy(&bits, from_, width)
    if dtype == DataType.kFp16:
        return put_double(at, half_to_float(<uint16_t> bits), True)
    if dtype == DataType.kBf16:
        return put_double(at, brain_to_float(<uint16_t> bits), True)
    if dtype == DataType.kBool:
        memcpy(at, b"true" if bits else b"false", 4 if bits else 5)
        return at + (4 if bits else 5)
    if dtype == DataType.kInt8:
        return put_int(at, <int8_t> bits)
    if dtype == DataType.kInt16:
        return put_int(at, <int16_t> bits)
    if dtype == DataType.kInt32:
        return put_int(at, <int32_t> bits)
    if dtype == DataType.kInt64:
        return put_int(at, <int64_t> bits)
    return put_uint(at, bits)


cdef WriteResult write_texts(Buffer* out, const TensorView* tensor) noexcept nogil:
    cdef size_t index = 0
    cdef uint32_t length
    cdef WriteResult result
    if count_bytes_elements(tensor.data, tensor.size) < 0:
        return kNotText
    while index < tensor.size:
        if index and not out.append(b",", 1):
            return kNoMemory
        memcpy(&length, tensor.data + index, 4)
        result = write_text(out, string_view(<const char*> tensor.data + index + 4, length))
        if result != kWritten:
            return result
        index += 4 + <size_t> length
    return kWritten


cdef WriteResult write_data(Buffer* out, const TensorView* tensor) noexcept nogil:
    cdef size_t index = 0, width = element_bytes(tensor.dtype)
    cdef WriteResult result
    cdef char* at
    if not out.append(b"[", 1):
        return kNoMemory
    if tensor.dtype == DataType.kBytes:
        result = write_texts(out, tensor)
        if result != kWritten:
            return result
    else:
        while index < tensor.size:
            if not out.reserve(out.size + 40):      # the longest number has 25 characters
                return kNoMemory
            at = <char*> out.data + out.size
            if index:
                at[0] = 44
                at += 1
            at = put_element(at, tensor.dtype, tensor.data + index)
            out.size = <uint8_t*> at - out.data
            index += width
    return kWritten if out.append(b"]", 1) else kNoMemory
