"""The HTTP/1.1 front end, sans-I/O: reads requests, hands them over, and writes the answers in their order."""

from libc.string cimport memchr, memmove
from libcpp.string cimport string

from batchmill.core.bridge cimport drop
from batchmill.core.front cimport ColdCall, ColdReplyKind, HeaderList
from batchmill.core.http1_parser cimport (
    Http1Exchange, Http1State, chunk_size, head_end, header_line, request_line,
)
from batchmill.core.json_scanner cimport put_int
from batchmill.core.message cimport Encoding
from batchmill.core.rest cimport RestKind, append_error_json, classify, reason_phrase
from batchmill.core.router cimport ModelVersion
from batchmill.core.status cimport Status, http_status_of, kInvalidArgument, kUnavailable

cdef size_t PIPELINE_MAX = 64           # unanswered requests of one connection
cdef size_t OUTPUT_MAX = 1 << 20        # bytes the caller has not read
cdef int64_t CHARGE_STEP = 64 << 10     # the memory budget is asked once for so many bytes
cdef size_t CHUNK_LINE_MAX = 256


cdef Http1Connection* open_connection(Sink* sink, string_view peer) noexcept nogil:
    cdef Http1Connection* connection = new Http1Connection()
    connection.sink = sink
    connection.peer.assign(peer.data(), peer.size())
    connection.waits_since_ns = sink.now_ns
    return connection


# Writing.
cdef void text(Buffer* out, string_view given) noexcept nogil:
    out.append(given.data(), given.size())


cdef void number(Buffer* out, int64_t value) noexcept nogil:
    cdef char digits[24]
    out.append(digits, put_int(digits, value) - digits)


cdef Buffer* target_of(Http1Connection* connection, Http1Exchange* exchange) noexcept nogil:
    """Where an exchange may write: its own buffer as long as others come before it."""
    return &connection.out if connection.queue.front() == exchange else &exchange.out


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
    """Status line, Connection and Content-Length; the caller adds what else there is and the empty line."""
    if connection.sink.draining.load():
        exchange.keep_alive = False
    status_line(out, status)
    if not exchange.keep_alive:
        text(out, string_view(b"Connection: close\r\n"))
    elif exchange.http10:
        text(out, string_view(b"Connection: keep-alive\r\n"))
    if length >= 0:
        text(out, string_view(b"Content-Length: "))
        number(out, length)
        text(out, string_view(b"\r\n"))


cdef void complete(Http1Connection* connection, Http1Exchange* exchange) noexcept nogil:
    """The answer is whole: lets go what waited behind it."""
    exchange.done = True
    while connection.queue.size() and connection.queue.front().done:
        exchange = connection.queue.front()
        connection.queue.pop_front()
        if not exchange.keep_alive:
            connection.last = True
        exchange.next = connection.free_exchanges
        connection.free_exchanges = exchange
        if connection.queue.size():
            exchange = connection.queue.front()
            connection.out.append(exchange.out.data, exchange.out.size)
            exchange.out.clear()
    if connection.queue.size() == 0:
        connection.waits_since_ns = connection.sink.now_ns


cdef void answer_status(Http1Connection* connection, Http1Exchange* exchange, const Status& status) noexcept nogil:
    """{"error": "text"} with the status that fits."""
    cdef Buffer body
    cdef Buffer* out = target_of(connection, exchange)
    cdef int code = http_status_of(status)
    append_error_json(&body, status)
    head_of(connection, exchange, out, code, body.size)
    text(out, string_view(b"Content-Type: application/json\r\n"))
    if code == 429 or code == 503:
        text(out, string_view(b"Retry-After: 1\r\n"))
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


# Reading.
cdef Http1Exchange* new_exchange(Http1Connection* connection) noexcept nogil:
    cdef Http1Exchange* exchange = connection.free_exchanges
    if exchange != NULL:
        connection.free_exchanges = exchange.next
        exchange.reset()
    else:
        exchange = new Http1Exchange()
    connection.queue.push_back(exchange)
    return exchange


cdef void give_up(Http1Connection* connection, int code, const char* message) noexcept nogil:
    """The stream can no longer be trusted: answers what came before, says why, closes."""
    cdef Http1Exchange* exchange = connection.current
    connection.state = Http1State.kFailed
    if exchange == NULL:
        exchange = new_exchange(connection)
    connection.current = NULL
    if exchange.request != NULL and not exchange.on_its_way:
        connection.sink.recycle(connection.sink.self, exchange.request)
        exchange.request = NULL
    exchange.keep_alive = False
    answer_text(connection, exchange, code, b"BAD_REQUEST", message)


cdef InferRequest* take_request(Http1Connection* connection, Http1Exchange* exchange) noexcept nogil:
    cdef InferRequest* request = connection.sink.take(connection.sink.self)
    request.encoding = Encoding.kJson
    request.path_model = exchange.route.model
    request.path_version = exchange.route.version
    request.path_label = exchange.route.label
    request.json_size = connection.head.json_size
    request.times.received = connection.sink.now_ns
    if connection.head.timeout_ms > 0:
        request.deadline_ns = connection.sink.now_ns + connection.head.timeout_ms * 1000000
    request.reply_to.stream = exchange
    request.reply_to.connection = connection
    request.reply_to.io_thread = connection.sink.io_thread
    return request


cdef void begin_body(Http1Connection* connection) noexcept nogil:
    """The head is complete and fine: decides what the request is, before its body."""
    cdef Http1Exchange* exchange = new_exchange(connection)
    cdef int code = head_end(&connection.head)
    exchange.keep_alive = connection.head.keep_alive
    exchange.http10 = connection.head.http10
    exchange.head_only = connection.head.method == string(b"HEAD")
    connection.current = exchange
    connection.body_bytes = 0
    connection.cold_body.clear()
    if code:
        give_up(connection, code, b"the head of the request is ambiguous or has no Host")
        return
    if connection.head.content_length > connection.sink.limits.max_body_bytes:
        give_up(connection, 413, b"the body is larger than the server's limit")
        return
    classify(string_view(connection.head.method.data(), connection.head.method.size()),
             string_view(connection.head.target.data(), connection.head.target.size()), &exchange.route)
    if exchange.route.kind == RestKind.kInfer:
        if connection.head.encoded:
            give_up(connection, 415, b"Content-Encoding: only identity is accepted")
            return
        if connection.head.json_size == -2:
            give_up(connection, 400, b"Inference-Header-Content-Length: digits wanted")
            return
        exchange.request = take_request(connection, exchange)
    if connection.head.expects_continue and (connection.head.chunked or connection.head.content_length > 0):
        text(target_of(connection, exchange), string_view(b"HTTP/1.1 100 Continue\r\n\r\n"))
    if connection.head.chunked:
        connection.state = Http1State.kChunkSize
    else:
        connection.body_left = connection.head.content_length if connection.head.content_length > 0 else 0
        connection.state = Http1State.kBody


cdef bint take_body(Http1Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    cdef Http1Exchange* exchange = connection.current
    cdef InferRequest* request = exchange.request
    cdef Buffer* body = &connection.cold_body if request == NULL else &request.body
    connection.body_bytes += size
    if connection.body_bytes > connection.sink.limits.max_body_bytes:
        give_up(connection, 413, b"the body is larger than the server's limit")
        return False
    while request != NULL and <int64_t> (body.size + size) > request.charged_bytes:
        if not connection.sink.budget.take(CHARGE_STEP):
            give_up(connection, 503, b"too many bytes of requests are held: try again")
            return False
        request.charged_bytes += CHARGE_STEP
    if not body.append(data, size):
        give_up(connection, 503, b"no memory for the request")
        return False
    return True


cdef void open_cold(Http1Connection* connection, Http1Exchange* exchange) noexcept nogil:
    cdef ColdCall* call = new ColdCall()
    cdef Status status
    call.method = connection.head.method
    call.target = connection.head.target
    call.peer = connection.peer
    call.headers.swap(connection.head.headers)
    call.body.assign(<const char*> connection.cold_body.data, connection.cold_body.size)
    call.reply_to.stream = exchange
    call.reply_to.connection = connection
    call.reply_to.io_thread = connection.sink.io_thread
    if connection.sink.cold_open(connection.sink.self, call):
        exchange.cold = call
        return
    del call
    status.set(kUnavailable, b"COLD_QUEUE_FULL", string(b"too many calls wait for the control plane"))
    answer_status(connection, exchange, status)


cdef void answer_model_ready(Http1Connection* connection, Http1Exchange* exchange) noexcept nogil:
    cdef Sink* sink = connection.sink
    cdef int ready = sink.ready(sink.self, string_view(exchange.route.model.data(), exchange.route.model.size()),
                                string_view(exchange.route.version.data(), exchange.route.version.size()))
    if ready < 0:
        answer_text(connection, exchange, 404, b"NOT_FOUND", b"unknown model or version")
    else:
        answer_empty(connection, exchange, 200 if ready else 503)


cdef void end_body(Http1Connection* connection) noexcept nogil:
    cdef Http1Exchange* exchange = connection.current
    cdef Sink* sink = connection.sink
    cdef RestKind kind = exchange.route.kind
    connection.current = NULL
    connection.state = Http1State.kRequestLine
    if not exchange.keep_alive:
        connection.state = Http1State.kFailed       # what follows is not read
    if kind == RestKind.kInfer:
        exchange.on_its_way = True
        connection.outstanding += 1
        sink.infer(sink.self, exchange.request)
    elif kind == RestKind.kLive:
        answer_empty(connection, exchange, 200)
    elif kind == RestKind.kReady:
        answer_empty(connection, exchange, 200 if sink.ready(sink.self, string_view(), string_view()) > 0 else 503)
    elif kind == RestKind.kModelReady:
        answer_model_ready(connection, exchange)
    elif kind == RestKind.kBadPath:
        answer_text(connection, exchange, 400, b"INVALID_PATH", b"the path is malformed")
    else:       # also a method that a hot path does not have: the application answers 405
        open_cold(connection, exchange)
    connection.head.reset()


cdef bint take_line(Http1Connection* connection, const char* line, size_t size) noexcept nogil:
    """One whole line of a head, of chunk framing, or of trailers."""
    cdef int code = 0
    cdef Http1State state = connection.state
    if state == Http1State.kRequestLine:
        if size == 0 and connection.head.bytes <= 4:
            return True         # RFC 9112, 2.2: an empty line before the request line is passed over (one or two)
        code = request_line(&connection.head, line, size)
        connection.state = Http1State.kHeaders
    elif state == Http1State.kHeaders:
        if size == 0:
            begin_body(connection)
            return connection.state != Http1State.kFailed
        code = header_line(&connection.head, line, size, True)
    elif state == Http1State.kChunkSize:
        connection.body_left = chunk_size(line, size)
        connection.state = Http1State.kChunkData if connection.body_left else Http1State.kTrailers
        code = 400 if connection.body_left < 0 else 0
    elif state == Http1State.kChunkEnd:
        connection.state = Http1State.kChunkSize
        code = 400 if size else 0
    elif size == 0:
        end_body(connection)
    if code:
        give_up(connection, code, b"this is no well-formed HTTP/1.1 request")
    return code == 0


cdef size_t consume_line(Http1Connection* connection, const char* data, size_t size) noexcept nogil:
    """Bytes of one line including its end, 0 when it is not there yet or was refused."""
    cdef const char* end = <const char*> memchr(data, 10, size)
    cdef int64_t limit = connection.sink.limits.max_header_bytes - connection.head.bytes
    cdef bint head = connection.state == Http1State.kRequestLine or connection.state == Http1State.kHeaders
    cdef size_t length = end - data + 1 if end != NULL else size
    if connection.state == Http1State.kRequestLine and connection.head.bytes == 0:
        connection.waits_since_ns = connection.sink.now_ns
    if connection.state == Http1State.kTrailers:
        head = True
    if <int64_t> length > (limit if head else <int64_t> CHUNK_LINE_MAX):
        give_up(connection, 431 if head else 400, b"the head of the request is larger than the server's limit")
        return 0
    if end == NULL:
        if connection.state == Http1State.kRequestLine and not plausible_start(data, size):
            give_up(connection, 400, b"this is no HTTP request")
        return 0
    if head:
        connection.head.bytes += length
    if length < 2 or data[length - 2] != 13:
        give_up(connection, 400, b"a line ends without a carriage return")
        return 0
    return length if take_line(connection, data, length - 2) else 0


cdef bint plausible_start(const char* data, size_t size) noexcept nogil:
    """An unfinished request line: no byte of it may be impossible."""
    cdef size_t index
    for index in range(size):
        if <unsigned char> data[index] < 0x20 and data[index] != 13 or <unsigned char> data[index] > 0x7E:
            return False
        if index == 0 and (data[0] | 32 < 97 or data[0] | 32 > 122) and data[0] != 13:
            return False
    return True


cdef size_t consume(Http1Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    """Takes what is whole; returns how much that was."""
    cdef size_t used = 0, part
    while connection.state != Http1State.kFailed:
        if connection.state == Http1State.kRequestLine and connection.queue.size() >= PIPELINE_MAX:
            break
        if connection.state == Http1State.kBody or connection.state == Http1State.kChunkData:
            part = size - used
            if <int64_t> part > connection.body_left:
                part = <size_t> connection.body_left
            if part and not take_body(connection, data + used, part):
                break
            used += part
            connection.body_left -= part
            if connection.body_left:
                break
            if connection.state == Http1State.kBody:
                end_body(connection)
            else:
                connection.state = Http1State.kChunkEnd
            continue
        if used == size:
            break
        part = consume_line(connection, <const char*> data + used, size - used)
        if part == 0:
            break
        used += part
    return used


cdef void consume_held(Http1Connection* connection) noexcept nogil:
    cdef size_t used = consume(connection, connection.in_.data, connection.in_.size)
    if used:
        memmove(connection.in_.data, connection.in_.data + used, connection.in_.size - used)
        connection.in_.size -= used


cdef bint feed(Http1Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t used
    if connection.in_.size:
        if not connection.in_.append(data, size):
            return False
        consume_held(connection)
    else:
        used = consume(connection, data, size)
        if used < size and connection.state != Http1State.kFailed and not connection.in_.append(data + used, size - used):
            return False
    return connection.state != Http1State.kFailed


# Answers from below.
cdef void answer_infer(Http1Connection* connection, Http1Exchange* exchange, InferRequest* request) noexcept nogil:
    cdef Buffer* out = target_of(connection, exchange)
    cdef ModelVersion* version = <ModelVersion*> request.version
    out.reserve(out.size + 256 + request.response.size)
    head_of(connection, exchange, out, 200, request.response.size)
    if request.json_size >= 0:
        text(out, string_view(b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: "))
        number(out, request.json_size)
    else:
        text(out, string_view(b"Content-Type: application/json"))
    text(out, string_view(b"\r\nX-Model-Version: "))
    out.append(version.version.data(), version.version.size())
    text(out, string_view(b"\r\n\r\n"))
    out.append(request.response.data, request.response.size)
    complete(connection, exchange)


cdef bint reply(Http1Connection* connection, InferRequest* request) noexcept nogil:
    cdef Http1Exchange* exchange = <Http1Exchange*> request.reply_to.stream
    connection.outstanding -= 1
    exchange.on_its_way = False
    exchange.request = NULL
    if connection.abandoned:
        connection.sink.recycle(connection.sink.self, request)
        if connection.outstanding == 0:
            del connection
            return True
        return False
    if request.status.ok():
        answer_infer(connection, exchange, request)
    else:
        answer_status(connection, exchange, request.status)
    connection.sink.recycle(connection.sink.self, request)
    if connection.in_.size:
        consume_held(connection)
    return False


cdef void start_cold(Http1Connection* connection, Http1Exchange* exchange, int status, HeaderList& headers) noexcept nogil:
    cdef Buffer* out = target_of(connection, exchange)
    cdef size_t index
    cdef bint sized = False
    for index in range(headers.size()):
        sized = sized or headers[index].first == string(b"content-length")
    exchange.started = True
    exchange.chunked = not sized and not exchange.http10
    if not sized and exchange.http10:
        exchange.keep_alive = False     # the end of the body is the end of the connection
    head_of(connection, exchange, out, status, -1)
    for index in range(headers.size()):
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


cdef void cold_reply(Http1Connection* connection, ColdReply* part) noexcept nogil:
    cdef Http1Exchange* exchange = <Http1Exchange*> part.call.reply_to.stream
    cdef HeaderList none
    if part.kind == ColdReplyKind.kHeaders:
        if not exchange.started:
            start_cold(connection, exchange, part.status, part.headers)
        return
    if not exchange.started:
        start_cold(connection, exchange, 500, none)
    if part.kind == ColdReplyKind.kData:
        if exchange.head_only or part.data.size() == 0:
            return
        if exchange.chunked:
            put_chunk(target_of(connection, exchange), part.data)
        else:
            target_of(connection, exchange).append(part.data.data(), part.data.size())
        return
    if exchange.chunked and not exchange.head_only:
        text(target_of(connection, exchange), string_view(b"0\r\n\r\n"))
    exchange.cold.reply_to.stream = NULL
    drop(exchange.cold)
    exchange.cold = NULL
    complete(connection, exchange)
    if connection.in_.size:
        consume_held(connection)


# The connection.
cdef Buffer* output(Http1Connection* connection, size_t* start) noexcept nogil:
    start[0] = connection.out_sent
    return &connection.out


cdef void wrote(Http1Connection* connection, size_t size) noexcept nogil:
    connection.out_sent += size
    if connection.out_sent == connection.out.size:
        connection.out.clear()
        connection.out_sent = 0


cdef bint finished(Http1Connection* connection) noexcept nogil:
    cdef bint no_more = connection.last or (connection.state == Http1State.kFailed and connection.queue.size() == 0)
    return no_more and connection.out_sent == connection.out.size


cdef bint paused(Http1Connection* connection) noexcept nogil:
    return connection.queue.size() >= PIPELINE_MAX or connection.out.size - connection.out_sent > OUTPUT_MAX


cdef bint awaits_answers(Http1Connection* connection) noexcept nogil:
    return connection.queue.size() > 0 or connection.out.size > connection.out_sent


cdef int64_t next_deadline(Http1Connection* connection) noexcept nogil:
    """Head: within header_timeout. Body: after 10 s it must have come at min_body_rate. Idle: idle_timeout."""
    cdef int64_t due = connection.waits_since_ns
    if connection.current != NULL:
        return due + (10 + connection.body_bytes // (connection.sink.limits.min_body_rate + 1)) * 1000000000
    if connection.queue.size():
        return 0
    if connection.in_.size or connection.state != Http1State.kRequestLine or connection.head.bytes:
        return due + connection.sink.limits.header_timeout_ms * 1000000
    return due + connection.sink.limits.idle_timeout_ms * 1000000


cdef void on_timeout(Http1Connection* connection) noexcept nogil:
    if connection.current == NULL and connection.in_.size == 0 and connection.state == Http1State.kRequestLine:
        connection.last = True      # idle: closed without a word
    elif connection.state != Http1State.kFailed:
        give_up(connection, 408, b"the request did not arrive in time")
    else:
        connection.last = True


cdef bint abandon(Http1Connection* connection) noexcept nogil:
    cdef Http1Exchange* exchange
    cdef size_t index
    connection.abandoned = True
    for index in range(connection.queue.size()):
        exchange = connection.queue[index]
        if exchange.request != NULL:
            if exchange.on_its_way:
                exchange.request.cancelled.store(True)
            else:
                connection.sink.recycle(connection.sink.self, exchange.request)
                exchange.request = NULL
        if exchange.cold != NULL:
            exchange.cold.cancelled.store(True)
            exchange.cold.reply_to.stream = NULL
            connection.sink.cold_cancel(connection.sink.self, exchange.cold)
            exchange.cold = NULL
    if connection.outstanding:
        return False
    del connection
    return True
