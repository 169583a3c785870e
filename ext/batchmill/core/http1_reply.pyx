"""The answering half of the HTTP/1.1 front end: writes answers, and lets them go in the order of the requests."""

from libc.stdint cimport int32_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core.bridge cimport drop
from batchmill.core.front cimport ColdReplyKind, HeaderList
from batchmill.core.http1_parser cimport Http1State
from batchmill.core.json_scanner cimport put_int
from batchmill.core.notes cimport Coding, name_of
from batchmill.core.rest cimport append_error_json, parse_header_length, reason_phrase
from batchmill.core.router cimport ModelVersion
from batchmill.core.status cimport http_status_of, kInvalidArgument, kUnavailable, retry_after_secs


cdef void text(Buffer* out, string_view given) noexcept nogil:
    out.append(given.data(), given.size())


cdef void number(Buffer* out, int64_t value) noexcept nogil:
    cdef char digits[24]
    out.append(digits, put_int(digits, value) - digits)


cdef Buffer* target_of(Http1Connection* connection, Http1Exchange* exchange) noexcept nogil:
    """Its own buffer as long as others come before it; and for good once the connection has said its last."""
    return &connection.out if connection.queue.front() == exchange and not connection.last else &exchange.out


cdef bint in_head(Http1Connection* connection) noexcept nogil:
    if connection.state == Http1State.kRequestLine:
        return connection.head.bytes > 0 or connection.in_.size > connection.in_start
    return connection.state == Http1State.kHeaders


cdef void status_line(Buffer* out, int status) noexcept nogil:
    if status == 200:
        text(out, string_view(b"HTTP/1.1 200 OK\r\n"))
        return
    text(out, string_view(b"HTTP/1.1 "))
    number(out, status)
    text(out, string_view(b" "))
    text(out, string_view(reason_phrase(status)))
    text(out, string_view(b"\r\n"))


cdef void head_of(Http1Connection* connection, Http1Exchange* exchange, Buffer* out, int status, int64_t length) noexcept nogil:
    """Status line, Connection, Content-Length and the caller's own request id; the caller adds what else there is and the empty line."""
    if connection.sink.draining.load() and connection.queue.back() == exchange:
        exchange.keep_alive = False     # only the last one says so: a client ignores what follows a close
        connection.state = Http1State.kFailed
    status_line(out, status)
    if not exchange.keep_alive:
        text(out, string_view(b"Connection: close\r\n"))
    elif exchange.http10:
        text(out, string_view(b"Connection: keep-alive\r\n"))
    if length >= 0:
        text(out, string_view(b"Content-Length: "))
        number(out, length)
        text(out, string_view(b"\r\n"))
    if not exchange.notes.request_id.empty():
        text(out, string_view(b"X-Request-Id: "))
        out.append(exchange.notes.request_id.data(), exchange.notes.request_id.size())
        text(out, string_view(b"\r\n"))


cdef void complete(Http1Connection* connection, Http1Exchange* exchange) noexcept nogil:
    """The answer is whole: lets go what waited behind it."""
    exchange.done = True
    while connection.queue.size() and connection.queue.front().done and not connection.last:
        exchange = connection.queue.front()
        connection.queue.pop_front()
        connection.last = not exchange.keep_alive
        exchange.next = connection.free_exchanges
        connection.free_exchanges = exchange
        if connection.last:
            connection.state = Http1State.kFailed
        elif connection.queue.size():
            exchange = connection.queue.front()
            connection.out.append(exchange.out.data, exchange.out.size)
            exchange.out.clear()
    if connection.queue.size() == 0:
        if not in_head(connection):
            connection.waits_since_ns = connection.sink.now_ns
    elif connection.queue.front() == connection.current:
        connection.waits_since_ns = connection.sink.now_ns      # its body had no deadline while others were before it


cdef void answer_status(Http1Connection* connection, Http1Exchange* exchange, const Status& status) noexcept nogil:
    """{"error": "text"} with the status that fits."""
    cdef Buffer body
    cdef Buffer* out = target_of(connection, exchange)
    cdef int code = http_status_of(status)
    append_error_json(&body, status)
    head_of(connection, exchange, out, code, body.size)
    text(out, string_view(b"Content-Type: application/json\r\n"))
    if code == 415:
        text(out, string_view(b"Accept-Encoding: gzip, deflate\r\n"))
    if retry_after_secs(status):
        text(out, string_view(b"Retry-After: "))
        number(out, retry_after_secs(status))
        text(out, string_view(b"\r\n"))
    text(out, string_view(b"\r\n"))
    if not exchange.head_only:
        out.append(body.data, body.size)
    complete(connection, exchange)


cdef void answer_text(Http1Connection* connection, Http1Exchange* exchange, int code, const char* reason,
                      const char* message) noexcept nogil:
    cdef Status status
    status.set(kInvalidArgument, reason, string(message))
    status.http_status = code
    answer_status(connection, exchange, status)


cdef void answer_empty(Http1Connection* connection, Http1Exchange* exchange, int status) noexcept nogil:
    cdef Buffer* out = target_of(connection, exchange)
    head_of(connection, exchange, out, status, 0)
    text(out, string_view(b"\r\n"))
    complete(connection, exchange)


cdef void answer_infer(Http1Connection* connection, Http1Exchange* exchange, InferRequest* request) noexcept nogil:
    cdef Buffer* out = target_of(connection, exchange)
    cdef ModelVersion* version = <ModelVersion*> request.version
    cdef Status status
    cdef string timing
    cdef int32_t index
    cdef size_t size = request.response.size - request.response_start
    if not out.reserve(out.size + 1024 + size):
        status.set(kUnavailable, b"NO_MEMORY", string(b"no memory for the answer"))
        answer_status(connection, exchange, status)
        return
    head_of(connection, exchange, out, 200, size)
    if request.json_size >= 0:
        text(out, string_view(b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: "))
        number(out, request.json_size)
    else:
        text(out, string_view(b"Content-Type: application/json"))
    if request.answer_coding != Coding.kIdentity:
        text(out, string_view(b"\r\nContent-Encoding: "))
        text(out, string_view(name_of(request.answer_coding)))
    text(out, string_view(b"\r\nX-Model-Version: "))
    out.append(version.version.data(), version.version.size())
    for index in range(request.remark_count):
        text(out, string_view(b"\r\n"))
        text(out, string_view(request.remarks[index].header))
        text(out, string_view(b": "))
        text(out, request.remarks[index].value)
    if exchange.notes.server_timing:
        timing = request.times.server_timing()
        text(out, string_view(b"\r\nServer-Timing: "))
        out.append(timing.data(), timing.size())
    text(out, string_view(b"\r\n\r\n"))
    out.append(request.response.data + request.response_start, size)
    complete(connection, exchange)


cdef bint is_clean(const string& given) noexcept nogil:
    """Whether it may stand in a head: a line break in it would forge another header, or another answer."""
    cdef size_t index
    for index in range(given.size()):
        if given[index] == 13 or given[index] == 10 or given[index] == 0:
            return False
    return True


cdef bint is_framing(const string& name) noexcept nogil:
    """Headers that are the connection's own."""
    return (name == string(b"content-length") or name == string(b"transfer-encoding") or name == string(b"connection")
            or name == string(b"keep-alive"))


cdef void settle_framing(Http1Exchange* exchange, int status, HeaderList& headers) noexcept nogil:
    """How the caller will know where the body ends."""
    cdef size_t index
    for index in range(headers.size()):
        if headers[index].first == string(b"content-length"):
            exchange.answer_left = parse_header_length(string_view(headers[index].second.data(), headers[index].second.size()))
        elif headers[index].first == string(b"connection") and headers[index].second == string(b"close"):
            exchange.keep_alive = False
    exchange.bodyless = exchange.head_only or status == 204 or status == 304
    if status == 204:
        exchange.answer_left = -1       # RFC 9110, 8.6: it has no length either
    exchange.chunked = exchange.answer_left < 0 and not exchange.http10 and status != 204 and status != 304
    if exchange.answer_left < 0 and exchange.http10 and not exchange.bodyless:
        exchange.keep_alive = False     # the end of the body is the end of the connection


cdef void start_cold(Http1Connection* connection, Http1Exchange* exchange, int status, HeaderList& headers) noexcept nogil:
    cdef Buffer* out = target_of(connection, exchange)
    cdef size_t index
    exchange.started = True
    settle_framing(exchange, status, headers)
    head_of(connection, exchange, out, status, exchange.answer_left)
    for index in range(headers.size()):
        if is_framing(headers[index].first) or not is_clean(headers[index].first) or not is_clean(headers[index].second):
            continue
        out.append(headers[index].first.data(), headers[index].first.size())
        text(out, string_view(b": "))
        out.append(headers[index].second.data(), headers[index].second.size())
        text(out, string_view(b"\r\n"))
    text(out, string_view(b"Transfer-Encoding: chunked\r\n\r\n") if exchange.chunked else string_view(b"\r\n"))


cdef void put_chunk(Buffer* out, const string& data) noexcept nogil:
    cdef const char* digits = b"0123456789abcdef"
    cdef int shift = 28
    cdef size_t size = data.size()
    while shift and not size >> shift & 15:
        shift -= 4
    while shift >= 0:
        out.append(digits + (size >> shift & 15), 1)
        shift -= 4
    text(out, string_view(b"\r\n"))
    out.append(data.data(), data.size())
    text(out, string_view(b"\r\n"))


cdef void put_data(Http1Connection* connection, Http1Exchange* exchange, const string& data) noexcept nogil:
    cdef size_t size = data.size()
    if exchange.bodyless or size == 0:
        return
    if exchange.chunked:
        put_chunk(target_of(connection, exchange), data)
        return
    if exchange.answer_left >= 0:
        if <int64_t> size > exchange.answer_left:
            size = <size_t> exchange.answer_left        # more than was declared would be read as the next answer
        exchange.answer_left -= size
    target_of(connection, exchange).append(data.data(), size)


cdef void end_cold(Http1Connection* connection, Http1Exchange* exchange) noexcept nogil:
    if exchange.chunked and not exchange.bodyless:
        text(target_of(connection, exchange), string_view(b"0\r\n\r\n"))
    if exchange.answer_left > 0 and not exchange.bodyless:
        exchange.keep_alive = False     # less came than was declared: only the end of the connection can say so
    exchange.cold.reply_to.stream = NULL
    drop(exchange.cold)
    exchange.cold = NULL
    complete(connection, exchange)


cdef void answer_cold(Http1Connection* connection, Http1Exchange* exchange, ColdReply* part) noexcept nogil:
    cdef HeaderList none
    cdef bint head = part.kind == ColdReplyKind.kHeaders
    cdef Buffer* out = target_of(connection, exchange)
    cdef size_t before = out.size
    if not exchange.started:
        start_cold(connection, exchange, part.status if head else 500, part.headers if head else none)
    if part.kind == ColdReplyKind.kData:
        put_data(connection, exchange, part.data)
    elif part.kind == ColdReplyKind.kEnd:
        end_cold(connection, exchange)
        return
    # What the head and the chunks add is pending too; what may not be sent is not.
    part.call.pending.fetch_add(<int64_t> (out.size - before) - <int64_t> part.data.size())
