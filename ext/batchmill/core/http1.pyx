"""The HTTP/1.1 front end, sans-I/O: reads requests, hands them over, and writes the answers in their order."""

from libc.string cimport memchr, memmove
from libcpp.string_view cimport string_view

from batchmill.core.front cimport ColdReplyKind, Limits
from batchmill.core.http1_exchange cimport begin_body, drop_cold_body, end_body, give_up, take_body
from batchmill.core.http1_parser cimport (
    Http1Exchange, Http1State, chunk_size, examine, header_line, request_line, trailer_line,
)
from batchmill.core.http1_reply cimport answer_cold, answer_infer, answer_status, in_head
from batchmill.core.rest cimport RestKind, classify

cdef size_t PIPELINE_MAX = 64           # unanswered requests of one connection
cdef size_t OUTPUT_MAX = 1 << 20        # bytes the caller has not read
cdef size_t CHUNK_LINE_MAX = 256
cdef size_t COMPACT_BYTES = 64 << 10   # sent bytes that a buffer may carry at its front


cdef Http1Connection* open_connection(Sink* sink, string_view peer, bint metrics_only) noexcept nogil:
    cdef Http1Connection* connection = new Http1Connection()
    connection.sink = sink
    connection.metrics_only = metrics_only
    connection.peer.assign(peer.data(), peer.size())
    connection.waits_since_ns = sink.now_ns
    return connection


# Reading.
cdef bint is_cold(RestKind kind) noexcept nogil:
    """Whether Python answers; only then are the headers kept."""
    return kind == RestKind.kCold or kind == RestKind.kMethodNotAllowed


cdef bint take_line(Http1Connection* connection, const char* line, size_t size) noexcept nogil:
    """One whole line of a head, of chunk framing, or of trailers."""
    cdef int code = 0
    cdef Http1State state = connection.state
    if state == Http1State.kRequestLine:
        if size == 0 and connection.head.bytes <= 4:
            return True         # RFC 9112, 2.2: an empty line before the request line is passed over (one or two)
        code = request_line(&connection.head, line, size)
        connection.state = Http1State.kHeaders
        classify(string_view(connection.head.method.data(), connection.head.method.size()),
                 string_view(connection.head.target.data(), connection.head.target.size()), connection.metrics_only, &connection.route)
    elif state == Http1State.kHeaders:
        if size == 0:
            begin_body(connection)
            return connection.state != Http1State.kFailed
        connection.head.watched = connection.sink.watched       # which a swap of the route table may replace between two lines
        code = header_line(&connection.head, line, size, is_cold(connection.route.kind))
    elif state == Http1State.kChunkSize:
        connection.body_left = chunk_size(line, size)
        connection.state = Http1State.kChunkData if connection.body_left else Http1State.kTrailers
        code = 400 if connection.body_left < 0 else 0
        if connection.body_left > connection.sink.limits.max_body_bytes - connection.body_bytes:
            give_up(connection, 413, b"the body is larger than the server's limit")
            return False
    elif state == Http1State.kChunkEnd:
        connection.state = Http1State.kChunkSize
        code = 400 if size else 0
    elif size == 0:
        end_body(connection)
    else:
        code = trailer_line(line, size)
    if code:
        give_up(connection, code, b"this is no well-formed HTTP/1.1 request")
    return code == 0


cdef size_t consume_line(Http1Connection* connection, const char* data, size_t size) noexcept nogil:
    """Bytes of one line including its end, 0 when it is not there yet or was refused."""
    cdef size_t seen = connection.scan.seen
    cdef const char* end = <const char*> memchr(data + seen, 10, size - seen)
    cdef size_t length = end - data + 1 if end != NULL else size
    cdef bint chunk = connection.state == Http1State.kChunkSize or connection.state == Http1State.kChunkEnd
    cdef int code
    if connection.state == Http1State.kRequestLine and connection.head.bytes == 0 and seen == 0:
        connection.waits_since_ns = connection.sink.now_ns
    if chunk and length > CHUNK_LINE_MAX:
        give_up(connection, 400, b"the line before a chunk is too long")
        return 0
    if not chunk and <int64_t> length > connection.sink.limits.max_header_bytes - connection.head.bytes:
        give_up(connection, 431, b"the head of the request is larger than the server's limit")
        return 0
    if end == NULL:
        code = examine(connection.state, &connection.scan, data, size)
        if code:
            give_up(connection, code, b"this is no well-formed HTTP/1.1 request")
        return 0
    connection.scan.seen = connection.scan.part = 0
    if not chunk:
        connection.head.bytes += length
    if length < 2 or data[length - 2] != 13:
        give_up(connection, 400, b"a line ends without a carriage return")
        return 0
    return length if take_line(connection, data, length - 2) else 0


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


cdef size_t held(Http1Connection* connection) noexcept nogil:
    return connection.in_.size - connection.in_start


cdef void drop_front(Buffer* buffer, size_t* start) noexcept nogil:
    """Gives back what lies before start, once that costs no more than was saved."""
    if start[0] == buffer.size:
        buffer.clear()
        start[0] = 0
    elif start[0] > COMPACT_BYTES and start[0] > buffer.size - start[0]:
        memmove(buffer.data, buffer.data + start[0], buffer.size - start[0])
        buffer.size -= start[0]
        start[0] = 0


cdef void refuse_cut_body(Http1Connection* connection) noexcept nogil:
    if connection.input_ended and connection.current != NULL:
        give_up(connection, 400, b"the connection ended inside the body")


cdef bint end_input(Http1Connection* connection) noexcept nogil:
    connection.input_ended = True
    refuse_cut_body(connection)
    return awaits_answers(connection)


cdef void consume_held(Http1Connection* connection) noexcept nogil:
    if held(connection):
        connection.in_start += consume(connection, connection.in_.data + connection.in_start, held(connection))
        drop_front(&connection.in_, &connection.in_start)
        refuse_cut_body(connection)


cdef bint feed(Http1Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t used
    if connection.state == Http1State.kFailed:
        return False
    if held(connection):
        if not connection.in_.append(data, size):
            return False
        consume_held(connection)
    else:
        used = consume(connection, data, size)
        if used < size and connection.state != Http1State.kFailed and not connection.in_.append(data + used, size - used):
            return False
    return connection.state != Http1State.kFailed


# Answers from below.
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
    consume_held(connection)
    return False


cdef void cold_reply(Http1Connection* connection, ColdReply* part) noexcept nogil:
    answer_cold(connection, <Http1Exchange*> part.call.reply_to.stream, part)
    if part.kind == ColdReplyKind.kEnd:
        consume_held(connection)


# The connection.
cdef Buffer* output(Http1Connection* connection, size_t* start) noexcept nogil:
    start[0] = connection.out_sent
    return &connection.out


cdef void wrote(Http1Connection* connection, size_t size) noexcept nogil:
    connection.out_sent += size
    if connection.out_sent == connection.out.size:
        connection.stalled_since_ns = 0
        if connection.queue.size() == 0 and not in_head(connection):
            connection.waits_since_ns = connection.sink.now_ns
    elif size or connection.stalled_since_ns == 0:
        connection.stalled_since_ns = connection.sink.now_ns
    drop_front(&connection.out, &connection.out_sent)
    if connection.queue.size() and connection.queue.front().cold != NULL:
        connection.queue.front().cold.took(size)


cdef bint finished(Http1Connection* connection) noexcept nogil:
    cdef bint no_more = connection.queue.size() == 0 and (connection.state == Http1State.kFailed or connection.input_ended)
    return (connection.last or no_more) and connection.out_sent == connection.out.size


cdef bint lingers(Http1Connection* connection) noexcept nogil:
    return not connection.input_ended


cdef bint paused(Http1Connection* connection) noexcept nogil:
    return connection.queue.size() >= PIPELINE_MAX or connection.out.size - connection.out_sent > OUTPUT_MAX


cdef bint awaits_answers(Http1Connection* connection) noexcept nogil:
    return connection.queue.size() > 0 or connection.out.size > connection.out_sent


cdef int64_t reading_deadline(Http1Connection* connection) noexcept nogil:
    """Head: within header_timeout of its first byte. Body: after 10 s it must have come at min_body_rate. Idle: idle_timeout."""
    cdef const Limits* limits = connection.sink.limits
    if connection.current != NULL and connection.queue.front() == connection.current:
        return connection.waits_since_ns + (10 + connection.body_bytes // (limits.min_body_rate + 1)) * 1000000000
    if connection.queue.size() or connection.out.size > connection.out_sent:
        return 0        # the next move is ours, or is to be read
    if in_head(connection):
        return connection.waits_since_ns + limits.header_timeout_ms * 1000000
    return connection.waits_since_ns + limits.idle_timeout_ms * 1000000


cdef int64_t next_deadline(Http1Connection* connection) noexcept nogil:
    """The earlier of what the caller has to send and what it has to read."""
    cdef int64_t reading = reading_deadline(connection)
    cdef int64_t writing = connection.stalled_since_ns
    if writing:
        writing += connection.sink.limits.idle_timeout_ms * 1000000
    return writing if writing and (reading == 0 or writing < reading) else reading


cdef void on_timeout(Http1Connection* connection) noexcept nogil:
    cdef int64_t reading = reading_deadline(connection)
    if reading and reading <= connection.sink.now_ns and (connection.current != NULL or in_head(connection)):
        give_up(connection, 408, b"the request did not arrive in time")
        return
    connection.last = connection.input_ended = True     # idle, or deaf: closed without a word
    connection.state = Http1State.kFailed
    connection.out.clear()
    connection.out_sent = 0
    connection.stalled_since_ns = 0


cdef bint abandon(Http1Connection* connection) noexcept nogil:
    cdef Http1Exchange* exchange
    cdef size_t index
    connection.abandoned = True
    drop_cold_body(connection)
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
