"""gRPC's own conventions over HTTP/2: timeouts, percent-encoded messages, status details.

Source: grpc/doc/PROTOCOL-HTTP2.md; google/rpc/status.proto and error_details.proto for the details.
"""

from libc.stdint cimport INT64_MAX, uint8_t, uint32_t

from batchmill.core.status cimport retry_after_ms

cdef extern from * nogil:
    """
    #include <string>
    """
    string to_string "std::to_string"(long)

cdef enum:
    kDetailsMost = 512      # hardly any are larger

cdef const char* HEX = b"0123456789ABCDEF"
cdef const char* BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef int64_t parse_timeout(string_view value) noexcept nogil:
    """grpc-timeout: at most 8 digits and a unit of H M S m u n."""
    cdef size_t index, size = value.size()
    cdef int64_t number = 0
    cdef char unit
    if size < 2 or size > 9:
        return -1
    for index in range(size - 1):
        if value.data()[index] < 48 or value.data()[index] > 57:
            return -1
        number = number * 10 + value.data()[index] - 48
    unit = value.data()[size - 1]
    if unit == 72:      # H
        return number * 3600 * 1000000000 if number < 2000000 else INT64_MAX // 2
    if unit == 77:      # M
        return number * 60 * 1000000000
    if unit == 83:      # S
        return number * 1000000000
    if unit == 109:     # m
        return number * 1000000
    if unit == 117:     # u
        return number * 1000
    if unit == 110:     # n
        return number
    return -1


cdef inline bint is_plain(char byte) noexcept nogil:
    return 0x20 <= byte <= 0x7E and byte != 0x25


cdef void percent_encode(string& target, string_view text) noexcept nogil:
    cdef size_t index, begun = 0
    cdef uint8_t byte
    for index in range(text.size()):
        if is_plain(text.data()[index]):
            continue
        byte = <uint8_t> text.data()[index]
        target.append(text.data() + begun, index - begun).push_back(b"%")
        target.push_back(HEX[byte >> 4])
        target.push_back(HEX[byte & 15])
        begun = index + 1
    target.append(text.data() + begun, text.size() - begun)


cdef void put_varint(string& target, size_t value) noexcept nogil:
    while value >= 0x80:
        target.push_back(<char> (value | 0x80))
        value >>= 7
    target.push_back(<char> value)


cdef void put_field(string& target, char tag, string_view data) noexcept nogil:
    target.push_back(tag)
    put_varint(target, data.size())
    target.append(data.data(), data.size())


cdef inline string_view whole(const string& text) noexcept nogil:
    return string_view(text.data(), text.size())


cdef void base64(string& target, string_view data) noexcept nogil:
    """Without padding, as gRPC wants -bin metadata. Replaces what is there."""
    cdef const uint8_t* at = <const uint8_t*> data.data()
    cdef size_t left = data.size()
    cdef char* to
    cdef uint32_t bits
    target.resize((4 * left + 2) // 3)
    to = target.data()
    while left:
        bits = at[0] << 16 | (at[1] << 8 if left > 1 else 0) | (at[2] if left > 2 else 0)
        to[0], to[1] = BASE64[bits >> 18], BASE64[(bits >> 12) & 63]
        if left > 1:
            to[2] = BASE64[(bits >> 6) & 63]
        if left < 3:
            return
        to[3] = BASE64[bits & 63]
        at, to, left = at + 3, to + 4, left - 3


cdef void put_detail(string& target, string_view type_url, const string& message) noexcept nogil:
    cdef string detail
    put_field(detail, 10, type_url)
    put_field(detail, 18, whole(message))
    put_field(target, 26, whole(detail))


cdef void put_status(string& target, const Status& status) noexcept nogil:
    """google.rpc.Status {code=1, message=2, details=3 Any}: ErrorInfo{reason=1, domain=2}, RetryInfo{retry_delay=1
    {seconds=1, nanos=2}}.
    """
    cdef string info, delay, retry
    cdef int64_t wait_ms = retry_after_ms(status)
    put_field(info, 10, string_view(status.reason))
    put_field(info, 18, string_view(b"batchmill"))
    target.push_back(8)
    put_varint(target, <size_t> status.code)
    put_field(target, 18, whole(status.message))
    put_detail(target, string_view(b"type.googleapis.com/google.rpc.ErrorInfo"), info)
    if wait_ms:
        delay.push_back(8)
        put_varint(delay, <size_t> (wait_ms // 1000))
        delay.push_back(16)
        put_varint(delay, <size_t> (wait_ms % 1000 * 1000000))
        put_field(retry, 10, whole(delay))
        put_detail(target, string_view(b"type.googleapis.com/google.rpc.RetryInfo"), retry)


cdef bint tell(ToldStatus& told, const Status& status) noexcept nogil:
    cdef string details
    if (told.code.size() and told.status.code == status.code and told.status.reason == status.reason
            and told.status.retry_ms == status.retry_ms and told.status.http_status == status.http_status
            and told.status.message == status.message):
        return True
    told.status = status
    told.code, told.retry = to_string(<long> status.code), to_string(<long> retry_after_ms(status))
    told.message.clear()
    details.reserve(kDetailsMost)
    percent_encode(told.message, whole(status.message))
    put_status(details, status)
    base64(told.details, whole(details))
    return False


def status_details(int code, str message, bytes reason) -> bytes:
    """google.rpc.Status of an error of Python's, for grpc-status-details-bin."""
    cdef Status status
    cdef string target
    status.set(<Code> code, reason, message.encode(errors="replace"))
    put_status(target, status)
    return target


def timeout_ns(bytes value) -> int:
    """Nanoseconds of a grpc-timeout header; -1 when malformed."""
    return parse_timeout(string_view(<const char*> value, len(value)))


def percent_encoded(bytes text) -> bytes:
    """grpc-message for a text."""
    cdef string target
    percent_encode(target, string_view(<const char*> text, len(text)))
    return target
