"""The head of an HTTP/1.1 request, strictly: what two servers could read in two ways is refused (RFC 9112, section 11.2).

Refused: differing or repeated Content-Length, Content-Length with Transfer-Encoding, any Transfer-Encoding but chunked,
folded lines, white space before a colon, no or two Hosts, control characters, versions other than 1.0 and 1.1, targets
that do not begin with a slash.
"""

from libcpp.string_view cimport string_view
from libcpp.utility cimport pair

from batchmill.core.rest cimport parse_header_length, parse_timeout_ms

cdef int LINES_MAX = 100


cdef inline bint is_token(unsigned char byte) noexcept nogil:
    """RFC 9110, section 5.6.2."""
    if byte >= 97 and byte <= 122 or byte >= 65 and byte <= 90 or byte >= 48 and byte <= 57:
        return True
    return (byte == 45 or byte == 95 or byte == 33 or byte >= 35 and byte <= 39 or byte == 42 or byte == 43 or byte == 46
            or byte == 94 or byte == 96 or byte == 124 or byte == 126)


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
        elif head.http10 and has_word(value, string_view(b"keep-alive")):
            head.keep_alive = True
    elif size == 14 and is_word(name, size, string_view(b"content-length")):
        number = parse_header_length(value)
        if number < 0 or head.content_length >= 0:
            return 400
        head.content_length = number
    elif size == 16 and is_word(name, size, string_view(b"content-encoding")):
        head.encoded = not is_word(value.data(), value.size(), string_view(b"identity"))
    elif size == 17 and is_word(name, size, string_view(b"transfer-encoding")):
        if head.chunked or head.http10:
            return 400
        if not is_word(value.data(), value.size(), string_view(b"chunked")):
            return 501
        head.chunked = True
    elif size == 20 and is_word(name, size, string_view(b"x-request-timeout-ms")):
        head.timeout_ms = parse_timeout_ms(value)
    elif size == 31 and is_word(name, size, string_view(b"inference-header-content-length")):
        head.json_size = parse_header_length(value) if head.json_size == -1 else -1
        if head.json_size < 0:
            head.json_size = -2
    return 0


cdef int header_line(Http1Head* head, const char* line, size_t size, bint keep) noexcept nogil:
    """keep: also remember it, for Python. A line that begins with white space is a fold, and refused."""
    cdef size_t at = 0, start, index
    cdef pair[string, string] header
    cdef unsigned char byte
    head.lines += 1
    if head.lines > LINES_MAX:
        return 431
    while at < size and is_token(line[at]):
        at += 1
    if at == 0 or at == size or line[at] != 58:
        return 400
    start = at + 1
    for index in range(start, size):
        byte = <unsigned char> line[index]
        if byte < 0x20 and byte != 9 or byte == 0x7F:
            return 400
    while start < size and (line[start] == 32 or line[start] == 9):
        start += 1
    size = start + trimmed(line + start, size - start)
    if keep:
        for index in range(at):
            header.first.push_back(lower(line[index]))
        header.second.assign(line + start, size - start)
        head.headers.push_back(header)
    return interpret(head, line, at, string_view(line + start, size - start))


cdef int head_end(Http1Head* head) noexcept nogil:
    if head.chunked and head.content_length >= 0:
        return 400
    if head.hosts == 0 and not head.http10:
        return 400
    return 0


cdef int64_t chunk_size(const char* line, size_t size) noexcept nogil:
    """Hex digits, and extensions after a semicolon, which are ignored."""
    cdef size_t at = 0
    cdef int64_t number = 0
    cdef char digit
    while at < size and at < 16:
        digit = lower(line[at])
        if digit >= 48 and digit <= 57:
            number = number << 4 | (digit - 48)
        elif digit >= 97 and digit <= 102:
            number = number << 4 | (digit - 87)
        else:
            break
        at += 1
    if at == 0 or at == 16 or (at < size and line[at] != 59 and line[at] != 32 and line[at] != 9):
        return -1
    while at < size:
        if <unsigned char> line[at] < 0x20 and line[at] != 9:
            return -1
        at += 1
    return number
