"""The gRPC code numbers, what HTTP says for them, and error texts that are safe to send."""

cdef extern from * nogil:
    """
    #include <string>
    """
    string to_string "std::to_string"(int64_t)

cdef size_t ECHO_BYTES = 200  # a status text over 16 KiB makes gRPC clients fail the call for its header size


cdef int http_status_of(const Status& status) noexcept nogil:
    if status.http_status:
        return status.http_status
    if status.code == kOk:
        return 200
    if status.code == kNotFound:
        return 404
    if status.code == kInvalidArgument or status.code == kOutOfRange or status.code == kAlreadyExists:
        return 400
    if status.code == kFailedPrecondition:
        return 400
    if status.code == kResourceExhausted:
        return 429
    if status.code == kUnavailable:
        return 503
    if status.code == kDeadlineExceeded:
        return 504
    if status.code == kUnimplemented:
        return 501
    if status.code == kUnauthenticated:
        return 401
    if status.code == kPermissionDenied:
        return 403
    if status.code == kCancelled:
        return 499
    return 500


cdef int64_t retry_after_ms(const Status& status) noexcept nogil:
    if status.retry_ms:
        return status.retry_ms
    return 1000 if http_status_of(status) == 503 else 0


cdef int64_t retry_after_secs(const Status& status) noexcept nogil:
    return (retry_after_ms(status) + 999) // 1000


cdef void set_too_large(Status& status, int64_t tensors, int64_t limit) noexcept nogil:
    cdef string message = string(b"the answer is over the server's limit of ")
    message.append(to_string(limit)).append(b" bytes (max_response_mib): its outputs hold ").append(to_string(tensors)).append(b" bytes")
    status.set(kResourceExhausted, b"RESPONSE_TOO_LARGE", message)


cdef size_t utf8_length(const unsigned char* at, size_t left) noexcept nogil:
    """Bytes of the well-formed character at `at`, 0 if there is none (RFC 3629: no overlong forms, no surrogates)."""
    cdef unsigned char first = at[0]
    if first < 0x80:
        return 1
    if first < 0xC2:
        return 0
    if first < 0xE0:
        return 2 if left >= 2 and at[1] & 0xC0 == 0x80 else 0
    if first < 0xF0:
        if left < 3 or at[1] & 0xC0 != 0x80 or at[2] & 0xC0 != 0x80:
            return 0
        if (first == 0xE0 and at[1] < 0xA0) or (first == 0xED and at[1] > 0x9F):
            return 0
        return 3
    if first < 0xF5:
        if left < 4 or at[1] & 0xC0 != 0x80 or at[2] & 0xC0 != 0x80 or at[3] & 0xC0 != 0x80:
            return 0
        if (first == 0xF0 and at[1] < 0x90) or (first == 0xF4 and at[1] > 0x8F):
            return 0
        return 4
    return 0


cdef bint is_control(const unsigned char* at, size_t length) noexcept nogil:
    """C0, DEL and C1, and what ends a line although it is none of them: U+2028 and U+2029."""
    if length == 1:
        return at[0] < 0x20 or at[0] == 0x7F
    if length == 2:
        return at[0] == 0xC2 and at[1] < 0xA0
    return length == 3 and at[0] == 0xE2 and at[1] == 0x80 and (at[2] == 0xA8 or at[2] == 0xA9)


cdef void append_echo(string& text, string_view given) noexcept nogil:
    cdef const unsigned char* at = <const unsigned char*> given.data()
    cdef size_t size = given.size()
    cdef size_t index = 0
    cdef size_t length
    while index < size and index < ECHO_BYTES:
        length = utf8_length(at + index, size - index)
        if length == 0 or is_control(at + index, length):
            text.append(b"?")
            index += max(length, <size_t> 1)
        else:
            text.append(<const char*> at + index, length)
            index += length
    if index < size:
        text.append(b"...")


def echo(bytes given) -> bytes:
    """What an error text repeats of a caller's input: at most 200 bytes of it, one line, valid UTF-8."""
    cdef string text
    append_echo(text, string_view(<const char*> given, len(given)))
    return text
