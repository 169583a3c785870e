"""A strict single-pass JSON scanner (RFC 8259): validates everything, copies nothing, recurses never."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp

from batchmill.core.status cimport append_echo, kInvalidArgument, utf8_length

cdef int DEPTH_MAX = 64     # values that are skipped may nest so deep; what is read nests at most 20
cdef int TOKEN_BYTES = 256  # of a refused value; append_echo() cuts it shorter


cdef extern from * nogil:
    """
    #include <string>
    """
    string to_string "std::to_string"(size_t)


cdef bint fail(Scanner* scanner, const char* text) noexcept nogil:
    cdef string message
    if not scanner.failed:
        if scanner.at == scanner.end:
            text = b"it ends too early"
        message.append(b"the body is not valid JSON at byte ").append(to_string(<size_t> (scanner.at - scanner.begin)))
        message.append(b": ").append(text)
        scanner.status.set(kInvalidArgument, b"INVALID_JSON", message)
    scanner.failed = True
    scanner.at = scanner.end    # so that no loop goes on
    return False


cdef void append_where(string& message, const Scanner* scanner) noexcept nogil:
    """'input "x": shape: ', as far as it is known."""
    if scanner.kind != NULL and scanner.name != NULL:
        message.append(scanner.kind).append(b" \"")
        append_echo(message, string_view(scanner.name, scanner.name_size))
        message.append(b"\": ")
    elif scanner.kind != NULL:
        message.append(scanner.kind).append(b"s[").append(to_string(scanner.index)).append(b"]: ")
    if scanner.field != NULL:
        message.append(scanner.field).append(b": ")


cdef void append_token(string& message, const Scanner* scanner, const char* token) noexcept nogil:
    """The value that begins at token, cut; it need not be valid."""
    cdef const char* at = token + 1
    cdef bint quoted = token[0] == 34
    if token[0] == 91:
        message.append(b"an array")
        return
    if token[0] == 123:
        message.append(b"an object")
        return
    while at < scanner.end and at - token < TOKEN_BYTES:
        if quoted and at[0] == 34:
            at += 1
            break
        if quoted and at[0] == 92 and at + 1 < scanner.end:
            at += 1
        elif not quoted and at[0] in b",]}: \t\r\n":
            break
        at += 1
    append_echo(message, string_view(token, at - token))


cdef bint refuse(Scanner* scanner, const char* text) noexcept nogil:
    cdef string message
    if not scanner.failed:
        append_where(message, scanner)
        message.append(text)
        scanner.status.set(kInvalidArgument, b"INVALID_REQUEST", message)
    scanner.failed = True
    scanner.at = scanner.end
    return False


cdef bint refuse_value(Scanner* scanner, const char* token, const char* wanted) noexcept nogil:
    cdef string message
    if token >= scanner.end or token[0] in b",]}:":
        return fail(scanner, b"a value was expected")
    if not scanner.failed:
        append_where(message, scanner)
        append_token(message, scanner, token)
        message.append(b" given, ").append(wanted).append(b" wanted")
        scanner.status.set(kInvalidArgument, b"INVALID_REQUEST", message)
    scanner.failed = True
    scanner.at = scanner.end
    return False


cdef int hex_value(char digit) noexcept nogil:
    if digit >= 48 and digit <= 57:
        return digit - 48
    digit |= 32
    return digit - 87 if digit >= 97 and digit <= 102 else -1


cdef int64_t hex4(const char* at, const char* end) noexcept nogil:
    cdef int index, value
    cdef int64_t code = 0
    if end - at < 4:
        return -1
    for index in range(4):
        value = hex_value(at[index])
        if value < 0:
            return -1
        code = code << 4 | value
    return code


cdef bint scan_escape(Scanner* scanner) noexcept nogil:
    """At the character after a backslash."""
    cdef char kind
    cdef int64_t code, low
    if scanner.at == scanner.end:
        return fail(scanner, b"a string is cut")
    kind = scanner.at[0]
    scanner.at += 1
    if kind != 117:     # u
        return kind in b"\"\\/bfnrt" or fail(scanner, b"a string has an unknown escape")
    code = hex4(scanner.at, scanner.end)
    if code < 0:
        return fail(scanner, b"a string has a broken \\u escape")
    scanner.at += 4
    if code >= 0xDC00 and code <= 0xDFFF:
        return fail(scanner, b"a string has half a surrogate pair")
    if code >= 0xD800 and code <= 0xDBFF:
        if scanner.end - scanner.at < 6 or scanner.at[0] != 92 or scanner.at[1] != 117:
            return fail(scanner, b"a string has half a surrogate pair")
        low = hex4(scanner.at + 2, scanner.end)
        if low < 0xDC00 or low > 0xDFFF:
            return fail(scanner, b"a string has half a surrogate pair")
        scanner.at += 6
    return True


cdef bint scan_string(Scanner* scanner, string_view* raw, bint* escaped) noexcept nogil:
    cdef const char* start
    cdef uint8_t byte
    cdef size_t length
    if not expect(scanner, 34):
        return False
    start = scanner.at
    escaped[0] = False
    while scanner.at < scanner.end:
        byte = <uint8_t> scanner.at[0]
        if byte == 34:
            raw[0] = string_view(start, scanner.at - start)
            scanner.at += 1
            return True
        if byte < 0x20:
            return fail(scanner, b"a string has a control character")
        if byte == 92:
            escaped[0] = True
            scanner.at += 1
            if not scan_escape(scanner):
                return False
        elif byte < 0x80:
            scanner.at += 1
        else:
            length = utf8_length(<const unsigned char*> scanner.at, scanner.end - scanner.at)
            if length == 0:
                return fail(scanner, b"a string is not UTF-8")
            scanner.at += length
    return fail(scanner, b"a string is cut")


cdef void put_utf8(string& target, uint32_t code) noexcept nogil:
    if code < 0x80:
        target.push_back(<char> code)
    elif code < 0x800:
        target.push_back(<char> (0xC0 | code >> 6))
        target.push_back(<char> (0x80 | (code & 63)))
    elif code < 0x10000:
        target.push_back(<char> (0xE0 | code >> 12))
        target.push_back(<char> (0x80 | (code >> 6 & 63)))
        target.push_back(<char> (0x80 | (code & 63)))
    else:
        target.push_back(<char> (0xF0 | code >> 18))
        target.push_back(<char> (0x80 | (code >> 12 & 63)))
        target.push_back(<char> (0x80 | (code >> 6 & 63)))
        target.push_back(<char> (0x80 | (code & 63)))


cdef void unescape(string_view raw, string& target) noexcept nogil:
    """raw has passed scan_string()."""
    cdef const char* at = raw.data()
    cdef const char* end = at + raw.size()
    cdef char kind
    cdef uint32_t code
    while at < end:
        if at[0] != 92:
            target.push_back(at[0])
            at += 1
            continue
        kind = at[1]
        at += 2
        if kind == 98:
            target.push_back(8)
        elif kind == 102:
            target.push_back(12)
        elif kind == 110:
            target.push_back(10)
        elif kind == 114:
            target.push_back(13)
        elif kind == 116:
            target.push_back(9)
        elif kind == 117:
            code = <uint32_t> hex4(at, end)
            at += 4
            if code >= 0xD800 and code <= 0xDBFF:
                code = 0x10000 + ((code - 0xD800) << 10) + (<uint32_t> hex4(at + 2, end) - 0xDC00)
                at += 6
            put_utf8(target, code)
        else:
            target.push_back(kind)


cdef inline bint is_digit(Scanner* scanner) noexcept nogil:
    return scanner.at < scanner.end and scanner.at[0] >= 48 and scanner.at[0] <= 57


cdef inline void take_digit(Scanner* scanner, NumberText* number) noexcept nogil:
    cdef char digit = scanner.at[0] - 48
    scanner.at += 1
    if number.digits or digit:
        number.digits += 1
        if number.digits <= 19:
            number.mantissa = number.mantissa * 10 + digit


cdef bint scan_number(Scanner* scanner, NumberText* number) noexcept nogil:
    cdef int32_t exponent = 0
    cdef bint minus = False
    peek(scanner)
    number.begin = scanner.at
    number.mantissa = 0
    number.digits = number.exponent = 0
    number.negative = False
    number.integer = True
    if scanner.at < scanner.end and scanner.at[0] == 45:
        number.negative = True
        scanner.at += 1
    if not is_digit(scanner):
        return fail(scanner, b"a value was expected")
    if scanner.at[0] == 48:
        scanner.at += 1
        if is_digit(scanner):
            return fail(scanner, b"a number begins with 0")
    else:
        while is_digit(scanner):
            take_digit(scanner, number)
    if scanner.at < scanner.end and scanner.at[0] == 46:
        number.integer = False
        scanner.at += 1
        if not is_digit(scanner):
            return fail(scanner, b"a number has no digit after its point")
        while is_digit(scanner):
            take_digit(scanner, number)
            number.exponent -= 1
    if scanner.at < scanner.end and scanner.at[0] | 32 == 101:
        number.integer = False
        scanner.at += 1
        if scanner.at < scanner.end and (scanner.at[0] == 43 or scanner.at[0] == 45):
            minus = scanner.at[0] == 45
            scanner.at += 1
        if not is_digit(scanner):
            return fail(scanner, b"a number has no digit in its exponent")
        while is_digit(scanner):
            if exponent < 100000000:
                exponent = exponent * 10 + scanner.at[0] - 48
            scanner.at += 1
        number.exponent += -exponent if minus else exponent
    number.end = scanner.at
    return True


cdef bint scan_literal(Scanner* scanner, const char* word, size_t size) noexcept nogil:
    if <size_t> (scanner.end - scanner.at) < size or memcmp(scanner.at, word, size):
        return fail(scanner, b"an unknown word")
    scanner.at += size
    return True


cdef bint skip_scalar(Scanner* scanner, char first) noexcept nogil:
    cdef string_view raw
    cdef bint escaped
    cdef NumberText number
    if first == 34:
        return scan_string(scanner, &raw, &escaped)
    if first == 116:
        return scan_literal(scanner, b"true", 4)
    if first == 102:
        return scan_literal(scanner, b"false", 5)
    if first == 110:
        return scan_literal(scanner, b"null", 4)
    return scan_number(scanner, &number)


cdef bint skip_key(Scanner* scanner) noexcept nogil:
    cdef string_view raw
    cdef bint escaped
    return scan_string(scanner, &raw, &escaped) and expect(scanner, 58)


cdef bint skip_value(Scanner* scanner) noexcept nogil:
    cdef uint64_t objects = 0       # one bit a level: 1 is an object
    cdef int depth = 0
    cdef char next
    while True:
        next = peek(scanner)
        if next == 91 or next == 123:
            if depth == DEPTH_MAX:
                return fail(scanner, b"values nest deeper than 64")
            objects = objects << 1 | (next == 123)
            depth += 1
            scanner.at += 1
            if peek(scanner) != (125 if objects & 1 else 93):
                if objects & 1 and not skip_key(scanner):
                    return False
                continue
        elif not skip_scalar(scanner, next):
            return False
        while depth:        # after a value: close what ends here, or go on to the next one
            next = peek(scanner)
            if next == (125 if objects & 1 else 93):
                scanner.at += 1
                depth -= 1
                objects >>= 1
                continue
            if not expect(scanner, 44) or (objects & 1 and not skip_key(scanner)):
                return False
            break
        if depth == 0:
            return True
