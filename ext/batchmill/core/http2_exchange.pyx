"""A call of the HTTP/2 front end, from the end of its headers until it is handed over: what it is, its messages, its limits."""

from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core.compression cimport decompress_body
from batchmill.core.front cimport ColdCall, Sink
from batchmill.core.http2_reply cimport refuse, refuse_text, resume, send_plain, send_small, start_stream_answer
from batchmill.core.http2_stream cimport Http2Connection, StreamKind, drop_message
from batchmill.core.message cimport Encoding, InferRequest
from batchmill.core.notes cimport Coding
from batchmill.core.pb_request cimport parse_two_strings
from batchmill.core.rest cimport RestKind, RestRoute, classify
from batchmill.core.status cimport (
    Code, Status, kDeadlineExceeded, kInternal, kInvalidArgument, kNotFound, kResourceExhausted, kUnavailable, kUnimplemented,
)
from batchmill.core.tensor cimport Buffer

cdef int64_t SLOW_EACH_NS = 1000000000  # a connection with many calls that wait is not searched for slow ones more often
cdef size_t NATIVE_BYTES = 4 << 10      # of a message that asks for liveness or readiness, when it is compressed


cdef bint is_grpc(const string& content_type) noexcept nogil:
    return content_type.compare(0, 16, b"application/grpc") == 0


cdef void begin_call(Http2Stream* stream) noexcept nogil:
    cdef int64_t now = stream.connection.sink.now_ns - stream.connection.sink.behind_ns
    stream.grpc = is_grpc(stream.content_type)
    if stream.header_bytes > stream.connection.sink.limits.max_header_bytes:
        refuse_as(stream, 431, kResourceExhausted, b"HEADERS_TOO_LARGE", b"the headers are larger than the server's limit")
        return
    if not stream.grpc:
        if stream.timeout_ms > 0:
            stream.deadline_ns = now + stream.timeout_ms * 1000000
        if stream.kind == StreamKind.kInfer:
            stream.path.assign(kInferPath)
        elif stream.kind == StreamKind.kStreamInfer:
            stream.path.assign(kStreamInferPath)
        stream.kind = StreamKind.kNew
        begin_http(stream)
        return
    if stream.grpc_timeout_ns >= 0:
        stream.deadline_ns = now + stream.grpc_timeout_ns
    if stream.connection.metrics_only:
        refuse_text(stream, kUnimplemented, b"NOT_FOUND", b"this listener serves /metrics alone")
    elif stream.method != string(b"POST"):
        refuse_text(stream, kUnimplemented, b"METHOD", b"gRPC calls are POST")
    elif stream.grpc_timeout_ns == -2:
        refuse_text(stream, kInvalidArgument, b"INVALID_REQUEST", b"grpc-timeout: at most 8 digits and one of H M S m u n wanted")
    elif stream.coding == Coding.kUnknown:
        refuse_text(stream, kUnimplemented, b"UNSUPPORTED_COMPRESSION", b"grpc-encoding: gzip, deflate or identity wanted")
    elif stream.kind == StreamKind.kStreamInfer:
        start_stream_answer(stream)
    elif stream.kind == StreamKind.kNew:
        if native_method(stream.path) >= 0:
            stream.kind = StreamKind.kNative
        else:
            stream.kind = StreamKind.kCold
            open_cold(stream)


cdef int native_method(const string& path) noexcept nogil:
    if path == string(b"/inference.GRPCInferenceService/ServerLive"):
        return 0
    if path == string(b"/inference.GRPCInferenceService/ServerReady"):
        return 1
    if path == string(b"/inference.GRPCInferenceService/ModelReady"):
        return 2
    if path == string(b"/grpc.health.v1.Health/Check"):
        return 3
    return -1


cdef bint open_cold(Http2Stream* stream) noexcept nogil:
    cdef Http2Connection* connection = stream.connection
    cdef ColdCall* call = new ColdCall()
    call.grpc = stream.grpc
    call.method = stream.method
    call.target = stream.path
    call.peer = connection.peer
    call.headers.swap(stream.headers)
    call.body.assign(<const char*> stream.message.data, stream.message.size)
    drop_message(stream)        # from here on the bridge's own bound counts it
    call.deadline_ns = stream.deadline_ns
    call.reply_to.stream = stream
    call.reply_to.connection = connection
    call.reply_to.io_thread = connection.sink.io_thread
    if not connection.sink.cold_open(connection.sink.self, call):
        del call
        refuse_text(stream, kUnavailable, b"COLD_QUEUE_FULL", b"too many calls wait for the control plane")
        return False
    stream.cold = call
    connection.outstanding += 1
    return True


cdef void begin_http(Http2Stream* stream) noexcept nogil:
    cdef RestRoute route
    cdef Sink* sink = stream.connection.sink
    cdef InferRequest* request
    cdef int ready
    classify(string_view(stream.method.data(), stream.method.size()), string_view(stream.path.data(), stream.path.size()),
             stream.connection.metrics_only, &route)
    if route.kind == RestKind.kInfer:
        stream.kind = StreamKind.kRest
        if stream.json_size == -2:
            refuse_text(stream, kInvalidArgument, b"INVALID_REQUEST", b"Inference-Header-Content-Length: digits wanted")
            return
        if stream.timeout_ms == -2:
            refuse_text(stream, kInvalidArgument, b"INVALID_REQUEST", b"x-request-timeout-ms: a number above 0 in digits wanted")
            return
        if stream.notes.coding == Coding.kUnknown:
            refuse_as(stream, 415, kUnimplemented, b"UNSUPPORTED_COMPRESSION",
                      b"Content-Encoding: gzip, deflate or identity wanted, once")
            return
        request = take_request(stream)
        request.encoding = Encoding.kJson
        request.coding, request.answer_coding = stream.notes.coding, stream.notes.accepts.best()
        request.path_model = route.model
        request.path_version = route.version
        request.path_label = route.label
        request.json_size = stream.json_size
        stream.request = request
    elif route.kind == RestKind.kLive:
        send_plain(stream, 200)
    elif route.kind == RestKind.kReady:
        send_plain(stream, 200 if sink.ready(sink.self, string_view(), string_view()) > 0 else 503)
    elif route.kind == RestKind.kModelReady:
        ready = sink.ready(sink.self, string_view(route.model.data(), route.model.size()),
                           string_view(route.version.data(), route.version.size()))
        if ready < 0:
            refuse_text(stream, kNotFound, b"NOT_FOUND", b"unknown model or version")
        else:
            send_plain(stream, 200 if ready else 503)
    elif route.kind == RestKind.kBadPath:
        refuse_text(stream, kInvalidArgument, b"INVALID_PATH", b"the path is malformed")
    elif route.kind == RestKind.kNowhere:
        refuse_text(stream, kNotFound, b"NOT_FOUND", b"this listener serves /metrics alone")
    else:       # also a method that a hot path does not have: the application answers 405
        stream.kind = StreamKind.kColdHttp


# Bodies.
cdef InferRequest* take_request(Http2Stream* stream) noexcept nogil:
    cdef Http2Connection* connection = stream.connection
    cdef InferRequest* request = connection.sink.take(connection.sink.self)
    request.encoding = Encoding.kProto
    request.deadline_ns = stream.deadline_ns
    request.take_notes(stream.notes)
    request.max_response_bytes = connection.sink.limits.max_response_bytes
    request.behind_ns = connection.sink.behind_ns
    request.times.received = connection.sink.now_ns - request.behind_ns
    request.reply_to.stream = stream
    request.reply_to.connection = connection
    request.reply_to.io_thread = connection.sink.io_thread
    return request


cdef bint collect(Http2Stream* stream, Buffer* body, int64_t* charged, const uint8_t* data, size_t size) noexcept nogil:
    """Appends to what is collected, within the memory budget; False: refused."""
    if not stream.connection.sink.budget.cover(charged, <int64_t> (body.size + size)):
        refuse_text(stream, kUnavailable, b"PENDING_BYTES", b"too many bytes of requests are held: try again")
        return False
    if not body.append(data, size):
        refuse_text(stream, kResourceExhausted, b"OUT_OF_MEMORY", b"no memory for the request")
        return False
    return True


cdef bint collect_request(Http2Stream* stream, const uint8_t* data, size_t size) noexcept nogil:
    return collect(stream, &stream.request.body, &stream.request.charged_bytes, data, size)


cdef bint collect_cold(Http2Stream* stream, const uint8_t* data, size_t size) noexcept nogil:
    return collect(stream, &stream.message, &stream.charged_bytes, data, size)


cdef void hand_over(Http2Stream* stream, InferRequest* request) noexcept nogil:
    stream.outstanding += 1
    stream.connection.outstanding += 1
    stream.waiting = not request.stream_reply
    stream.connection.sink.infer(stream.connection.sink.self, request)


cdef bint begin_message(Http2Stream* stream) noexcept nogil:
    """After the five bytes of a prefix."""
    cdef Sink* sink = stream.connection.sink
    stream.left = stream.prefix[1] << 24 | stream.prefix[2] << 16 | stream.prefix[3] << 8 | stream.prefix[4]
    stream.messages += 1
    if stream.prefix[0] > (stream.coding != Coding.kIdentity):      # compression.md wants this code
        refuse_text(stream, kInternal, b"BAD_COMPRESSION", b"a message is marked as compressed, but no grpc-encoding says how")
    elif <int64_t> stream.left > sink.limits.max_body_bytes:
        refuse_text(stream, kResourceExhausted, b"BODY_TOO_LARGE", b"the message is larger than the server's limit")
    elif stream.messages > 1 and stream.kind != StreamKind.kStreamInfer and stream.kind != StreamKind.kCold:
        refuse_text(stream, kInvalidArgument, b"INVALID_REQUEST", b"one message wanted, more were sent")
    else:
        if stream.kind != StreamKind.kCold:
            stream.request = take_request(stream)
            stream.request.coding = stream.coding if stream.prefix[0] else Coding.kIdentity
            stream.request.answer_coding = stream.coding if stream.accepts.has(stream.coding) else Coding.kIdentity
        return True
    return False


cdef void message_complete(Http2Stream* stream) noexcept nogil:
    cdef InferRequest* request = stream.request
    cdef Sink* sink = stream.connection.sink
    stream.prefix_size = 0
    if stream.kind == StreamKind.kStreamInfer:
        stream.request = NULL
        request.stream_reply = True
        stream.pending.push_back(request)
        hand_over(stream, request)
    elif stream.kind == StreamKind.kCold:
        if not sink.cold_message(sink.self, stream.cold, stream.message.data, stream.message.size, stream.prefix[0] == 1):
            refuse_text(stream, kUnavailable, b"COLD_QUEUE_FULL", b"too many bytes wait for the control plane")
        drop_message(stream)


cdef void feed_grpc(Http2Stream* stream, const uint8_t* data, size_t size) noexcept nogil:
    cdef size_t part
    while size and stream.kind != StreamKind.kAnswered:
        if stream.prefix_size < 5:
            part = 5 - stream.prefix_size
            if part > size:
                part = size
            memcpy(stream.prefix + stream.prefix_size, data, part)
            stream.prefix_size += <uint8_t> part
            data += part
            size -= part
            if stream.prefix_size < 5 or not begin_message(stream):
                continue
        part = stream.left if stream.left < size else size
        if stream.kind == StreamKind.kCold:
            if not collect_cold(stream, data, part):
                return
        elif not collect_request(stream, data, part):
            return
        data += part
        size -= part
        stream.left -= <uint32_t> part
        if stream.left == 0:
            message_complete(stream)


cdef void take_data(Http2Stream* stream, const uint8_t* data, size_t size) noexcept nogil:
    cdef int64_t limit = stream.connection.sink.limits.max_body_bytes
    if stream.kind == StreamKind.kAnswered:
        return
    if stream.grpc:
        feed_grpc(stream, data, size)
    elif stream.kind == StreamKind.kRest:
        if <int64_t> (stream.request.body.size + size) > limit:
            refuse_too_large(stream)
        else:
            collect_request(stream, data, size)
    elif <int64_t> (stream.message.size + size) > limit:
        refuse_too_large(stream)
    else:
        collect_cold(stream, data, size)


cdef void refuse_as(Http2Stream* stream, int http_status, Code code, const char* reason, const char* text) noexcept nogil:
    cdef Status status
    status.set(code, reason, string(text))
    status.http_status = http_status
    refuse(stream, status)


cdef void refuse_too_large(Http2Stream* stream) noexcept nogil:
    refuse_as(stream, 413, kResourceExhausted, b"BODY_TOO_LARGE", b"the body is larger than the server's limit")


cdef bint refuse_slow(Http2Connection* connection) noexcept nogil:
    """As over HTTP/1.1: after 10 s a body must have come at min_body_rate. What is half sent counts against the budget of all."""
    cdef Http2Stream* stream = connection.streams
    cdef int64_t size, rate = connection.sink.limits.min_body_rate + 1
    cdef bint any = False
    if connection.sink.now_ns - connection.looked_ns < SLOW_EACH_NS:
        return False
    connection.looked_ns = connection.sink.now_ns
    while stream != NULL:
        if not stream.closed and not stream.input_ended and collects(stream.kind):
            size = <int64_t> (stream.request.body.size if stream.request != NULL else stream.message.size)
            if connection.sink.now_ns > stream.began_ns + (10 + size // rate) * 1000000000:
                refuse_as(stream, 408, kDeadlineExceeded, b"BODY_TOO_SLOW", b"the body came too slowly")
                any = True
        stream = stream.next
    return any


cdef bint collects(StreamKind kind) noexcept nogil:
    """Whether a call has one message, which is to come as a whole; those of streams may take their time."""
    return kind == StreamKind.kInfer or kind == StreamKind.kNative or kind == StreamKind.kRest or kind == StreamKind.kColdHttp


cdef void answer_native(Http2Stream* stream) noexcept nogil:
    cdef Sink* sink = stream.connection.sink
    cdef string_view name, version
    cdef uint8_t answer[2]
    cdef int ready, method = native_method(stream.path)
    if stream.request.coding != Coding.kIdentity:       # these messages are short: they are decompressed here
        if stream.request.body.size > NATIVE_BYTES or not decompress_body(stream.request, NATIVE_BYTES, sink.budget):
            refuse_text(stream, kInvalidArgument, b"BAD_COMPRESSION", b"the bytes are no compressed message of such a call")
            return
    if not parse_two_strings(stream.request.body.data, stream.request.body.size, &name, &version):
        refuse_text(stream, kInvalidArgument, b"INVALID_REQUEST", b"the bytes are no such message")
        return
    answer[0] = 8
    answer[1] = 1
    if method == 3:     # grpc.health.v1: SERVING 1, NOT_SERVING 2; service "" is the server, else a model's name
        if name == string_view(b"inference.GRPCInferenceService"):
            name = string_view()
        ready = sink.ready(sink.self, name, string_view())
        if ready < 0:
            refuse_text(stream, kNotFound, b"NOT_FOUND", b"unknown service")
            return
        answer[1] = 1 if ready else 2
    elif method:
        if method == 1:
            name = version = string_view()
        elif name.size() == 0:
            refuse_text(stream, kInvalidArgument, b"INVALID_REQUEST", b"name: missing")
            return
        ready = sink.ready(sink.self, name, version)
        if ready < 0:
            refuse_text(stream, kNotFound, b"NOT_FOUND", b"unknown model or version")
            return
        answer[1] = ready
    send_small(stream, answer, 2 if answer[1] else 0)
    stream.kind = StreamKind.kAnswered


cdef void end_input(Http2Stream* stream) noexcept nogil:
    cdef Sink* sink = stream.connection.sink
    stream.input_ended = True
    if stream.kind == StreamKind.kAnswered:
        return
    if stream.grpc and (stream.left or (stream.prefix_size and stream.prefix_size < 5)):
        refuse_text(stream, kInvalidArgument, b"INVALID_REQUEST", b"the stream ended inside a message")
        return
    if stream.kind == StreamKind.kStreamInfer:
        resume(stream)
    elif stream.kind == StreamKind.kCold:
        sink.cold_end(sink.self, stream.cold)
    elif stream.kind == StreamKind.kColdHttp:
        open_cold(stream)
    elif stream.request == NULL:
        refuse_text(stream, kInvalidArgument, b"INVALID_REQUEST", b"a message was expected, none came")
    elif stream.kind == StreamKind.kNative:
        answer_native(stream)
    else:
        hand_over(stream, stream.request)
