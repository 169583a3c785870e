"""The elements of one tensor, between JSON and raw form.

Numbers are read as double and then cast, as json and numpy do. A float that JSON cannot write travels as the string "NaN",
"Infinity" or "-Infinity" (the JSON mapping of proto3). What is out of a datatype's range is refused, never wrapped.
"""

from libc.math cimport isfinite, isnan
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.string cimport string

from batchmill.core.json_scanner cimport (
    NumberText, brain_to_float, expect, fail, half_to_float, peek, put_float, put_float32, put_int, put_uint, scan_literal, scan_number,
    scan_string, to_double, unescape,
)
from batchmill.core.status cimport utf8_length
from batchmill.core.tensor cimport DataType, element_bytes, element_count

cdef extern from * nogil:
    """
    #include <cmath>
    static const double batchmill_float_overflow = 3.4028235677973366e38;  // half a step above FLT_MAX: rounds to infinity from here
    """
    double FLOAT_OVERFLOW "batchmill_float_overflow"
    double NAN "NAN"
    double INFINITY "INFINITY"


cdef bint read_float(Scanner* scanner, DataType dtype, uint8_t* target) noexcept nogil:
    cdef NumberText number
    cdef string_view word
    cdef bint escaped
    cdef double value
    cdef float narrow
    if peek(scanner) == 34:
        if not scan_string(scanner, &word, &escaped):
            return False
        if word == string_view(b"NaN"):
            value = NAN
        elif word == string_view(b"Infinity"):
            value = INFINITY
        elif word == string_view(b"-Infinity"):
            value = -INFINITY
        else:
            return fail(scanner, b"a string where a number is wanted")
    else:
        if not scan_number(scanner, &number):
            return False
        if not to_double(number, &value):
            return fail(scanner, b"a number is too large for its datatype")
        if dtype == DataType.kFp32 and (value >= FLOAT_OVERFLOW or value <= -FLOAT_OVERFLOW):
            return fail(scanner, b"a number is too large for its datatype")
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
    cdef uint64_t value
    cdef uint64_t digit
    if not scan_number(scanner, &number):
        return False
    if not number.integer:
        return fail(scanner, b"an integer is wanted")
    if number.digits > 20:
        return fail(scanner, b"a number is out of the range of its datatype")
    value = number.mantissa
    if number.digits == 20:     # may still fit into uint64
        digit = (number.end - 1)[0] - 48
        if value > (<uint64_t> -1 - digit) // 10:
            return fail(scanner, b"a number is out of the range of its datatype")
        value = value * 10 + digit
    if not in_range(dtype, number.negative, value):
        return fail(scanner, b"a number is out of the range of its datatype")
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
    return fail(scanner, b"true or false is wanted")


cdef bint read_bytes(Scanner* scanner, Buffer* arena) noexcept nogil:
    cdef string_view raw
    cdef bint escaped
    cdef string plain
    cdef uint32_t size
    if peek(scanner) != 34:
        return fail(scanner, b"a string is wanted")
    if not scan_string(scanner, &raw, &escaped):
        return False
    if escaped:
        unescape(raw, plain)
        raw = string_view(plain.data(), plain.size())
    size = <uint32_t> raw.size()
    return (arena.append(&size, 4) and arena.append(raw.data(), size)) or fail(scanner, b"out of memory")


cdef bint read_element(Scanner* scanner, DataType dtype, Buffer* arena) noexcept nogil:
    cdef size_t width = element_bytes(dtype)
    cdef uint8_t* target
    if dtype == DataType.kBytes:
        return read_bytes(scanner, arena)
    target = arena.extend(width)
    if target == NULL:
        return fail(scanner, b"out of memory")
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
        return count == 0 or fail(scanner, b"data has fewer elements than its shape says")
    while True:
        if seen == count:
            return fail(scanner, b"data has more elements than its shape says")
        if not read_element(scanner, tensor.dtype, arena):
            return False
        seen += 1
        if peek(scanner) == 44:
            scanner.at += 1
            continue
        if not expect(scanner, 93):
            return False
        return seen == count or fail(scanner, b"data has fewer elements than its shape says")


cdef bint read_nested(Scanner* scanner, TensorView* tensor, Buffer* arena) noexcept nogil:
    """After the first of several opening brackets: every level must have exactly its axis' size."""
    cdef int64_t seen[17]       # kMaxRank + 1: how many children of each open array have ended
    cdef int level = 1          # open arrays
    cdef int rank = tensor.shape.rank
    seen[1] = 0
    while level:
        if peek(scanner) == 93 and seen[level] == 0:
            if tensor.shape.dims[level - 1] != 0:
                return fail(scanner, b"data is not nested as its shape says")
            scanner.at += 1
        elif level == rank:
            if not read_flat(scanner, tensor, tensor.shape.dims[rank - 1], arena):
                return False
        else:
            if not expect(scanner, 91):
                return False
            level += 1
            seen[level] = 0
            continue
        level -= 1
        while level:            # an array has ended inside of this one
            seen[level] += 1
            if peek(scanner) == 44:
                scanner.at += 1
                if seen[level] == tensor.shape.dims[level - 1] or peek(scanner) != 91:
                    return fail(scanner, b"data is not nested as its shape says")
                scanner.at += 1
                level += 1
                seen[level] = 0
                break
            if not expect(scanner, 93):
                return False
            if seen[level] != tensor.shape.dims[level - 1]:
                return fail(scanner, b"data is not nested as its shape says")
            level -= 1
    return True


cdef bint read_data(Scanner* scanner, TensorView* tensor, Buffer* arena) noexcept nogil:
    cdef int64_t count = element_count(tensor.shape)
    cdef int64_t possible = (scanner.end - scanner.at) // 2 + 1    # an element takes at least two bytes of body
    cdef size_t start, width = element_bytes(tensor.dtype)
    cdef bint fine
    if tensor.dtype == DataType.kFp16 or tensor.dtype == DataType.kBf16:
        return fail(scanner, b"FP16 and BF16 travel only as binary data")
    if count < 0:
        return fail(scanner, b"shape: a negative or too large size")
    if count > possible:
        return fail(scanner, b"data has fewer elements than its shape says")
    if arena.extend((64 - arena.size % 64) % 64) == NULL or not arena.reserve(arena.size + <size_t> count * width + 1):
        return fail(scanner, b"out of memory")
    start = arena.size
    if not expect(scanner, 91):
        return False
    if tensor.shape.rank > 1 and peek(scanner) == 91:
        fine = read_nested(scanner, tensor, arena)
    else:
        fine = read_flat(scanner, tensor, count, arena)
    tensor.data = <const uint8_t*> start
    tensor.size = arena.size - start
    return fine


# Out.
cdef bint write_string(Buffer* out, string_view text) noexcept nogil:
    cdef const char* hex_digits = b"0123456789abcdef"
    cdef const uint8_t* at = <const uint8_t*> text.data()
    cdef size_t index = 0, length
    cdef char escape[6]
    if not out.append(b"\"", 1):
        return False
    while index < text.size():
        length = utf8_length(at + index, text.size() - index)
        if length == 0:
            return False
        if at[index] == 34 or at[index] == 92:
            escape[0] = 92
            escape[1] = <char> at[index]
            if not out.append(escape, 2):
                return False
        elif at[index] < 0x20:
            memcpy(escape, b"\\u00", 4)
            escape[4] = hex_digits[at[index] >> 4]
            escape[5] = hex_digits[at[index] & 15]
            if not out.append(escape, 6):
                return False
        elif not out.append(at + index, length):
            return False
        index += length
    return out.append(b"\"", 1)


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


cdef bint write_data(Buffer* out, const TensorView* tensor) noexcept nogil:
    cdef size_t index = 0, width = element_bytes(tensor.dtype)
    cdef uint32_t length
    cdef char* at
    if not out.append(b"[", 1):
        return False
    while index < tensor.size:
        if index and not out.append(b",", 1):
            return False
        if tensor.dtype == DataType.kBytes:
            memcpy(&length, tensor.data + index, 4)
            if not write_string(out, string_view(<const char*> tensor.data + index + 4, length)):
                return False
            index += 4 + length
            continue
        if not out.reserve(out.size + 40):      # the longest number has 25 characters
            return False
        at = <char*> out.data + out.size
        out.size += put_element(at, tensor.dtype, tensor.data + index) - at
        index += width
    return out.append(b"]", 1)
