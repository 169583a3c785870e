"""A request of the HTTP/1.1 front end, from the end of its head until it is handed over: what it is, its body, its limits."""

from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core.front cimport ColdCall, Sink
from batchmill.core.http1_parser cimport Http1Exchange, Http1State, head_end
from batchmill.core.http1_reply cimport answer_empty, answer_status, answer_text, target_of
from batchmill.core.message cimport Encoding, InferRequest
from batchmill.core.notes cimport Coding
from batchmill.core.rest cimport RestKind
from batchmill.core.status cimport Status, kUnavailable
from batchmill.core.tensor cimport Buffer

cdef size_t RESERVE_MAX = 64 << 10      # a declared length is believed so far; beyond it, memory follows the bytes ...
cdef size_t BELIEVED_BYTES = 1 << 20    # ... until so many have come


cdef Http1Exchange* new_exchange(Http1Connection* connection) noexcept nogil:
    cdef Http1Exchange* exchange = connection.free_exchanges
    if exchange != NULL:
        connection.free_exchanges = exchange.next
        exchange.reset()
    else:
        exchange = new Http1Exchange()
    connection.queue.push_back(exchange)
    return exchange


cdef void drop_cold_body(Http1Connection* connection) noexcept nogil:
    connection.cold_body.clear()
    if connection.cold_charged:
        connection.sink.budget.give(connection.cold_charged)
        connection.cold_charged = 0


cdef void give_up(Http1Connection* connection, int code, const char* message) noexcept nogil:
    """The stream can no longer be trusted: answers what came before, says why, closes."""
    cdef Http1Exchange* exchange = connection.current
    connection.state = Http1State.kFailed
    drop_cold_body(connection)
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
    request.path_model.swap(connection.route.model)     # the request's old text comes back, and its memory serves the next path
    request.path_version.swap(connection.route.version)
    request.path_label.swap(connection.route.label)
    request.json_size = connection.head.json_size
    request.take_notes(exchange.notes)
    request.coding, request.answer_coding = exchange.notes.coding, exchange.notes.accepts.best()
    request.max_response_bytes = connection.sink.limits.max_response_bytes
    request.behind_ns = connection.sink.behind_ns
    request.times.received = connection.sink.now_ns - request.behind_ns
    if connection.head.timeout_ms > 0:
        request.deadline_ns = request.times.received + connection.head.timeout_ms * 1000000
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
    exchange.route.kind = connection.route.kind
    exchange.notes.swap(connection.head.notes)
    connection.current = exchange
    connection.body_bytes = 0
    connection.waits_since_ns = connection.sink.now_ns
    if code:
        give_up(connection, code, b"the head of the request is ambiguous or has no Host")
        return
    if connection.head.content_length > connection.sink.limits.max_body_bytes:
        give_up(connection, 413, b"the body is larger than the server's limit")
        return
    if exchange.route.kind == RestKind.kInfer:
        if exchange.notes.coding == Coding.kUnknown:
            give_up(connection, 415, b"Content-Encoding: gzip, deflate or identity wanted, once")
            return
        if connection.head.json_size == -2:
            give_up(connection, 400, b"Inference-Header-Content-Length: digits wanted")
            return
        if connection.head.timeout_ms == -2:
            give_up(connection, 400, b"x-request-timeout-ms: a number above 0 in digits wanted")
            return
        exchange.request = take_request(connection, exchange)
        if connection.head.content_length > 0:
            exchange.request.body.reserve(min(<size_t> connection.head.content_length, RESERVE_MAX))
    elif exchange.route.kind == RestKind.kModelReady:
        exchange.route.model.swap(connection.route.model)
        exchange.route.version.swap(connection.route.version)
    if connection.head.expects_continue and not connection.head.http10 and (connection.head.chunked or connection.head.content_length > 0):
        target_of(connection, exchange).append(b"HTTP/1.1 100 Continue\r\n\r\n", 25)
    if connection.head.chunked:
        connection.state = Http1State.kChunkSize
    else:
        connection.body_left = connection.head.content_length if connection.head.content_length > 0 else 0
        connection.state = Http1State.kBody


cdef bint take_body(Http1Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    cdef Http1Exchange* exchange = connection.current
    cdef InferRequest* request = exchange.request
    cdef Buffer* body = &connection.cold_body if request == NULL else &request.body
    cdef int64_t* charged = &connection.cold_charged if request == NULL else &request.charged_bytes
    connection.body_bytes += size
    if connection.body_bytes > connection.sink.limits.max_body_bytes:
        give_up(connection, 413, b"the body is larger than the server's limit")
        return False
    if not connection.sink.budget.cover(charged, <int64_t> (body.size + size)):
        give_up(connection, 503, b"too many bytes of requests are held: try again")
        return False
    if body.size >= BELIEVED_BYTES and body.size + size > body.capacity and connection.head.content_length > 0:
        body.reserve(<size_t> connection.head.content_length)       # once: copies of what is so large would hold others up
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
    drop_cold_body(connection)      # from here on the bridge's own bound counts it
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
    elif kind == RestKind.kNowhere:
        answer_text(connection, exchange, 404, b"NOT_FOUND", b"this listener serves /metrics alone")
    else:       # also a method that a hot path does not have: the application answers 405
        open_cold(connection, exchange)
    drop_cold_body(connection)
    connection.head.reset()
