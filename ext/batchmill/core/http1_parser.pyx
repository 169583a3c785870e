"""The head of an HTTP/1.1 request, strictly: what two servers could read in two ways is refused (RFC 9112, section 11.2).

Refused: differing or repeated Content-Length, Content-Length with Transfer-Encoding, any Transfer-Encoding but chunked,
folded lines, white space before a colon, no or two Hosts, control characters, versions other than 1.0 and 1.1, targets
that do not begin with a slash.
"""

from libc.string cimport memchr
from libcpp.string_view cimport string_view
from libcpp.utility cimport pair

from batchmill.core.rest cimport parse_header_length, parse_timeout_ms

cdef int LINES_MAX = 100


cdef inline bint is_token(unsigned char byte) noexcept nogil:
    return kBytes.token[byte]


cdef inline bint is_control(unsigned char byte) noexcept nogil:
    return byte < 0x20 and byte != 9 or byte == 0x7F


cdef bint has_control(const char* text, size_t size) noexcept nogil:
    """Looks at all of it without a branch a byte, so that the compiler may take many at once."""
    cdef size_t index
    cdef unsigned char byte, found = 0
    for index in range(size):
        byte = <unsigned char> text[index]
        found |= <unsigned char> (<unsigned char> (byte < 0x20) & <unsigned char> (byte != 9)) | <unsigned char> (byte == 0x7F)
    return found


cdef int request_line(Http1Head* head, const char* line, size_t size) noexcept nogil:
    cdef size_t at = 0, start
    while at < size and is_token(line[at]):
        at += 1
    if at == 0 or at == size or line[at] != 32:
        return 400
    head.method.assign(line, at)
    at += 1
    start = at
    while at < size and <unsigned char> line[at] > 0x20 and <unsigned char> line[at] < 0x7F:
        at += 1
    if at == start or line[start] != 47 or at == size or line[at] != 32:
        return 400
    head.target.assign(line + start, at - start)
    at += 1
    if string_view(line + at, size - at) == string_view(b"HTTP/1.1"):
        return 0
    if string_view(line + at, size - at) == string_view(b"HTTP/1.0"):
        head.http10 = True
        head.keep_alive = False
        return 0
    return 505 if size - at == 8 and string_view(line + at, 5) == string_view(b"HTTP/") else 400


cdef inline char lower(char byte) noexcept nogil:
    return byte | 32 if byte >= 65 and byte <= 90 else byte


cdef bint is_word(const char* given, size_t size, string_view word) noexcept nogil:
    """Equal but for case; word is in lower case."""
    cdef size_t index
    if size != word.size():
        return False
    for index in range(size):
        if lower(given[index]) != word.data()[index]:
            return False
    return True


cdef bint has_word(string_view value, string_view word) noexcept nogil:
    """Whether a comma-separated list holds a word."""
    cdef size_t start = 0, end
    while start < value.size():
        end = value.find(44, start)
        if end == <size_t> -1:
            end = value.size()
        while start < end and (value.data()[start] == 32 or value.data()[start] == 9):
            start += 1
        if is_word(value.data() + start, trimmed(value.data() + start, end - start), word):
            return True
        start = end + 1
    return False


cdef size_t trimmed(const char* text, size_t size) noexcept nogil:
    while size and (text[size - 1] == 32 or text[size - 1] == 9):
        size -= 1
    return size


cdef int interpret(Http1Head* head, const char* name, size_t size, string_view value) noexcept nogil:
    """The headers the front end itself needs, by the length of their names."""
    cdef int64_t number
    if size == 4 and is_word(name, size, string_view(b"host")):
        head.hosts += 1
        return 400 if head.hosts > 1 else 0
    if size == 6 and is_word(name, size, string_view(b"expect")):
        if not is_word(value.data(), value.size(), string_view(b"100-continue")):
            return 417
        head.expects_continue = True
    elif size == 10 and is_word(name, size, string_view(b"connection")):
        if has_word(value, string_view(b"close")):
            head.keep_alive = False
            head.closes = True      # whatever another line says
        elif head.http10 and not head.closes and has_word(value, string_view(b"keep-alive")):
            head.keep_alive = True
    elif size == 11 and is_word(name, size, string_view(b"x-route-key")):
        head.notes.route_key.assign(value.data(), value.size())
    elif size == 11 and is_word(name, size, string_view(b"traceparent")):
        head.notes.take_trace(value)
    elif size == 12 and is_word(name, size, string_view(b"x-request-id")):
        head.notes.take_id(value)
    elif size == 14 and is_word(name, size, string_view(b"content-length")):
        number = parse_header_length(value)
        if number < 0 or head.content_length >= 0:
            return 400
        head.content_length = number
    elif size == 15 and is_word(name, size, string_view(b"x-server-timing")):
        head.notes.take_timing(value)
    elif size == 15 and is_word(name, size, string_view(b"accept-encoding")):
        head.notes.accepts.take(value)
    elif size == 16 and is_word(name, size, string_view(b"content-encoding")):
        head.notes.take_coding(value)
    elif size == 17 and is_word(name, size, string_view(b"transfer-encoding")):
        if head.chunked or head.http10:
            return 400
        if not is_word(value.data(), value.size(), string_view(b"chunked")):
            return 501
        head.chunked = True
    elif size == 20 and is_word(name, size, string_view(b"x-request-timeout-ms")):
        head.timeout_ms = parse_timeout_ms(value)
        if head.timeout_ms < 0:
            head.timeout_ms = -2
    elif size == 31 and is_word(name, size, string_view(b"inference-header-content-length")):
        head.json_size = parse_header_length(value) if head.json_size == -1 else -1
        if head.json_size < 0:
            head.json_size = -2
    return 0


cdef size_t name_of(const char* line, size_t size) noexcept nogil:
    """Bytes of a header line's name, 0 when the line is malformed. One that begins with white space is a fold, and refused."""
    cdef size_t at = 0
    while at < size and is_token(line[at]):
        at += 1
    if at == size or line[at] != 58:
        return 0
    return 0 if has_control(line + at + 1, size - at - 1) else at


cdef int trailer_line(const char* line, size_t size) noexcept nogil:
    """One that would frame the message, or end the connection, is refused: others may heed it (RFC 9110, 6.5.1)."""
    cdef size_t at = name_of(line, size)
    if at == 14 and is_word(line, at, string_view(b"content-length")):
        return 400
    if at == 17 and is_word(line, at, string_view(b"transfer-encoding")):
        return 400
    if at == 10 and is_word(line, at, string_view(b"connection")):
        return 400
    return 0 if at else 400


cdef int header_line(Http1Head* head, const char* line, size_t size, bint keep) noexcept nogil:
    """keep: also remember it, for Python."""
    cdef size_t at = name_of(line, size), start = at + 1, index
    cdef pair[string, string] header
    head.lines += 1
    if head.lines > LINES_MAX:
        return 431
    if at == 0:
        return 400
    while start < size and (line[start] == 32 or line[start] == 9):
        start += 1
    size = start + trimmed(line + start, size - start)
    if keep:
        header.first.assign(line, at)
        for index in range(at):
            header.first[index] = lower(line[index])
        header.second.assign(line + start, size - start)
        head.headers.push_back(header)
    if head.watched != NULL:
        head.notes.take_watched(head.watched[0], string_view(line, at), string_view(line + start, size - start))
    return interpret(head, line, at, string_view(line + start, size - start))


cdef int head_end(Http1Head* head) noexcept nogil:
    if head.chunked and head.content_length >= 0:
        return 400
    if head.hosts == 0 and not head.http10:
        return 400
    return 0


cdef inline int hex_digit(char byte) noexcept nogil:
    """Its value; -1: none."""
    if byte >= 48 and byte <= 57:
        return byte - 48
    byte = lower(byte)
    return byte - 87 if byte >= 97 and byte <= 102 else -1


# Chunk extensions (RFC 9112, 7.1.1, without its white space): where in the grammar the next byte stands.
cdef uint8_t EXTENSION = 20         # a semicolon
cdef uint8_t NAME = 21, IN_NAME = 22, VALUE = 23, IN_VALUE = 24, IN_QUOTES = 25, ESCAPED = 26, AFTER_QUOTES = 27


cdef bint may_end(uint8_t part) noexcept nogil:
    return part == IN_NAME or part == IN_VALUE or part == AFTER_QUOTES


cdef uint8_t next_in_extension(uint8_t part, unsigned char byte) noexcept nogil:
    """The part after a byte; 0: it is impossible there."""
    if part == IN_QUOTES:
        return AFTER_QUOTES if byte == 34 else ESCAPED if byte == 92 else 0 if is_control(byte) else IN_QUOTES
    if part == ESCAPED:
        return 0 if is_control(byte) else IN_QUOTES
    if (part == NAME or part == IN_NAME) and is_token(byte):
        return IN_NAME
    if (part == VALUE or part == IN_VALUE) and is_token(byte):
        return IN_VALUE
    if part == VALUE and byte == 34:
        return IN_QUOTES
    if part == IN_NAME and byte == 61:
        return VALUE
    return NAME if byte == 59 and (part == EXTENSION or may_end(part)) else 0


cdef int64_t chunk_size(const char* line, size_t size) noexcept nogil:
    """Hex digits, and extensions after a semicolon, which are ignored but must be well-formed. White space is refused, as llhttp does."""
    cdef size_t at = 0
    cdef int64_t number = 0
    cdef uint8_t part = EXTENSION
    while at < size and hex_digit(line[at]) >= 0:
        if at == 15:        # 60 bits: the sum of two sizes cannot overflow
            return -1
        number = number << 4 | hex_digit(line[at])
        at += 1
    if at == 0 or at == size:
        return number if at else -1
    while at < size and part:
        part = next_in_extension(part, <unsigned char> line[at])
        at += 1
    return number if may_end(part) else -1


# Unfinished lines. Scan.part is where in the grammar the next byte stands; a line feed never comes here.
cdef uint8_t ENDING = 99       # after the carriage return: only a line feed may follow


cdef int examine_request(Http1Scan* scan, unsigned char byte) noexcept nogil:
    """0 start, 1 method, 2 slash, 3 target, 4..11 the bytes of the version, 12 its end."""
    cdef const char* version = b"HTTP/1."
    if scan.part <= 1:
        if byte == 13 and scan.part == 0:
            scan.part = ENDING
        elif byte == 32 and scan.part == 1:
            scan.part = 2
        elif is_token(byte):
            scan.part = 1
        else:
            return 400
    elif scan.part == 2:
        scan.part = 3
        return 0 if byte == 47 else 400
    elif scan.part == 3:
        if byte == 32:
            scan.part = 4
        return 400 if byte < 0x20 or byte >= 0x7F else 0
    elif scan.part == 12:
        scan.part = ENDING
        return 0 if byte == 13 else 400
    else:
        scan.part += 1
        if scan.part == 12:
            return 0 if byte == 48 or byte == 49 else 505 if byte >= 50 and byte <= 57 else 400
        if byte != version[scan.part - 5]:
            return 505 if scan.part == 10 and byte >= 48 and byte <= 57 else 400
    return 0


cdef int examine_header(Http1Scan* scan, unsigned char byte) noexcept nogil:
    """0 start, 1 name, 2 value."""
    if byte == 13 and scan.part != 1:
        scan.part = ENDING
    elif scan.part == 2:
        return 400 if is_control(byte) else 0
    elif byte == 58 and scan.part == 1:
        scan.part = 2
    elif is_token(byte):
        scan.part = 1
    else:
        return 400
    return 0


cdef int examine_chunk_size(Http1Scan* scan, unsigned char byte) noexcept nogil:
    """0..15 so many digits, 20 and more extensions."""
    if byte == 13 and (may_end(scan.part) or (scan.part and scan.part <= 15)):
        scan.part = ENDING
    elif scan.part > 15:
        scan.part = next_in_extension(scan.part, byte)
        return 0 if scan.part else 400
    elif byte == 59 and scan.part:
        scan.part = NAME
    elif hex_digit(byte) >= 0 and scan.part < 15:
        scan.part += 1
    else:
        return 400
    return 0


cdef int examine(Http1State state, Http1Scan* scan, const char* line, size_t size) noexcept nogil:
    cdef int code = 0
    cdef unsigned char byte
    while scan.seen < size and code == 0:
        byte = <unsigned char> line[scan.seen]
        scan.seen += 1
        if scan.part == ENDING:
            return 400
        if state == Http1State.kRequestLine:
            code = examine_request(scan, byte)
        elif state == Http1State.kChunkSize:
            code = examine_chunk_size(scan, byte)
        elif state == Http1State.kChunkEnd:
            code = 0 if byte == 13 else 400
            scan.part = ENDING
        else:
            code = examine_header(scan, byte)
    return code


cdef int parse_lines(Http1Head* head, const char* at, size_t size) noexcept nogil:
    """A whole head at once; 0, or the status that refuses it. Unfinished: 400."""
    cdef const char* end
    cdef size_t length
    cdef int code = 0
    cdef bint first = True
    while code == 0:
        end = <const char*> memchr(at, 10, size)
        if end == NULL or end == at or (end - 1)[0] != 13:
            return 400
        length = end - at - 1
        if first:
            code = request_line(head, at, length)
        elif length == 0:
            return head_end(head) if end + 1 == at + size else 400
        else:
            code = header_line(head, at, length, True)
        first = False
        size -= length + 2
        at = end + 1
    return code


def parse_head(bytes given) -> tuple:
    """(status, method, target, headers, content_length, chunked) of a whole head, for tests.

    status 0: accepted. content_length -1: none given.
    """
    cdef Http1Head head
    cdef int status = parse_lines(&head, given, len(given))
    return (status, <bytes> head.method, <bytes> head.target, [(<bytes> h.first, <bytes> h.second) for h in head.headers],
            head.content_length, bool(head.chunked))
