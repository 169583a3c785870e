"""The HTTP/2 front end, sans-I/O. libnghttp2 does framing, HPACK, stream states and flow-control accounting.

Ours: gRPC message framing, content types, deadlines, limits, and which call goes where.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memcmp, memcpy
from libcpp.string cimport string
from libcpp.utility cimport pair

from batchmill.core.front cimport ColdCall
from batchmill.core.grpc cimport parse_timeout
from batchmill.core.http2_reply cimport (
    Http2Stream, StreamKind, close_stream, new_stream, refuse, refuse_text, resume, send_plain, send_small, start_stream_answer,
)
from batchmill.core.message cimport Encoding, InferRequest
from batchmill.core.nghttp2 cimport *
from batchmill.core.pb_request cimport parse_two_strings
from batchmill.core.rest cimport RestKind, RestRoute, classify, parse_header_length, parse_timeout_ms
from batchmill.core.status cimport Status, kInternal, kInvalidArgument, kNotFound, kResourceExhausted, kUnavailable, kUnimplemented

cdef int32_t STREAM_WINDOW = 4 << 20        # 64 KiB would throttle tensors of 600 KB
cdef int32_t CONNECTION_WINDOW = 64 << 20
cdef size_t OUTPUT_MAX = 256 << 10          # produced ahead of the socket
cdef size_t PENDING_MAX = 1024              # unanswered messages of one stream before its window is left to close

cdef const char* INFER = b"/inference.GRPCInferenceService/ModelInfer"
cdef const char* STREAM_INFER = b"/inference.GRPCInferenceService/ModelStreamInfer"
cdef nghttp2_session_callbacks* callbacks = NULL


cdef inline bint equal(const uint8_t* data, size_t size, const char* text, size_t text_size) noexcept nogil:
    return size == text_size and memcmp(data, text, size) == 0


# Headers.
cdef int on_begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* user) noexcept nogil:
    if frame.hd.type == NGHTTP2_HEADERS and frame.headers.cat == NGHTTP2_HCAT_REQUEST:
        nghttp2_session_set_stream_user_data(session, frame.hd.stream_id, new_stream(<Http2Connection*> user, frame.hd.stream_id))
    return 0


cdef int on_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
                   const uint8_t* value, size_t value_size, uint8_t flags, void* user) noexcept nogil:
    cdef Http2Connection* connection = <Http2Connection*> user
    cdef Http2Stream* stream = <Http2Stream*> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
    cdef pair[string, string] header
    cdef int64_t timeout
    if stream == NULL:
        return 0
    stream.header_bytes += name_size + value_size + 32      # RFC 9113, 6.5.2
    if stream.header_bytes > connection.sink.limits.max_header_bytes:
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    if name_size == 5 and equal(name, name_size, b":path", 5):
        if equal(value, value_size, INFER, 42):
            stream.kind = StreamKind.kInfer
        elif equal(value, value_size, STREAM_INFER, 48):
            stream.kind = StreamKind.kStreamInfer
        else:
            stream.path.assign(<const char*> value, value_size)
        return 0
    if name_size == 7 and equal(name, name_size, b":method", 7):
        stream.method.assign(<const char*> value, value_size)
        return 0
    if name_size == 12:
        if equal(name, name_size, b"content-type", 12):
            stream.content_type.assign(<const char*> value, value_size)
        elif equal(name, name_size, b"grpc-timeout", 12):
            timeout = parse_timeout(string_view(<const char*> value, value_size))
            if timeout >= 0:
                stream.deadline_ns = connection.sink.now_ns + timeout
    elif name_size == 13 and equal(name, name_size, b"grpc-encoding", 13):
        stream.encoded = not equal(value, value_size, b"identity", 8)
    elif name_size == 20 and equal(name, name_size, b"x-request-timeout-ms", 20):
        timeout = parse_timeout_ms(string_view(<const char*> value, value_size))
        if timeout > 0:
            stream.deadline_ns = connection.sink.now_ns + timeout * 1000000
    elif name_size == 31 and equal(name, name_size, b"inference-header-content-length", 31):
        stream.json_size = parse_header_length(string_view(<const char*> value, value_size))
        if stream.json_size < 0:
            stream.json_size = -2       # refused once the kind of call is known
    if stream.kind == StreamKind.kNew and name_size and name[0] != 58:
        header.first.assign(<const char*> name, name_size)
        header.second.assign(<const char*> value, value_size)
        stream.headers.push_back(header)
    return 0


cdef bint is_grpc(const string& content_type) noexcept nogil:
    return content_type.compare(0, 16, b"application/grpc") == 0


cdef void on_headers_complete(Http2Stream* stream) noexcept nogil:
    stream.grpc = is_grpc(stream.content_type)
    if not stream.grpc:
        if stream.kind == StreamKind.kInfer:
            stream.path.assign(INFER)
        elif stream.kind == StreamKind.kStreamInfer:
            stream.path.assign(STREAM_INFER)
        stream.kind = StreamKind.kNew
        begin_http(stream)
        return
    if stream.method != string(b"POST"):
        refuse_text(stream, kUnimplemented, b"METHOD", b"gRPC calls are POST")
    elif stream.encoded:
        refuse_text(stream, kUnimplemented, b"ENCODING", b"grpc-encoding: only identity is accepted")
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
    classify(string_view(stream.method.data(), stream.method.size()), string_view(stream.path.data(), stream.path.size()), &route)
    if route.kind == RestKind.kInfer:
        stream.kind = StreamKind.kRest
        if stream.json_size == -2:
            refuse_text(stream, kInvalidArgument, b"INVALID_REQUEST", b"Inference-Header-Content-Length: digits wanted")
            return
        request = take_request(stream)
        request.encoding = Encoding.kJson
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
    else:       # also a method that a hot path does not have: the application answers 405
        stream.kind = StreamKind.kColdHttp


# Bodies.
cdef InferRequest* take_request(Http2Stream* stream) noexcept nogil:
    cdef Http2Connection* connection = stream.connection
    cdef InferRequest* request = connection.sink.take(connection.sink.self)
    request.encoding = Encoding.kProto
    request.deadline_ns = stream.deadline_ns
    request.times.received = connection.sink.now_ns
    request.reply_to.stream = stream
    request.reply_to.connection = connection
    request.reply_to.io_thread = connection.sink.io_thread
    return request


cdef bint collect(Http2Stream* stream, InferRequest* request, const uint8_t* data, size_t size) noexcept nogil:
    """Appends to a request's body within the memory budget; False: refused."""
    cdef Sink* sink = stream.connection.sink
    if not sink.budget.cover(&request.charged_bytes, <int64_t> (request.body.size + size)):
        refuse_text(stream, kUnavailable, b"PENDING_BYTES", b"too many bytes of requests are held: try again")
        return False
    if not request.body.append(data, size):
        refuse_text(stream, kResourceExhausted, b"OUT_OF_MEMORY", b"no memory for the request")
        return False
    return True


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
    if stream.prefix[0]:
        refuse_text(stream, kInternal, b"ENCODING", b"a message is marked compressed but no grpc-encoding was given")
    elif <int64_t> stream.left > sink.limits.max_body_bytes:
        refuse_text(stream, kResourceExhausted, b"BODY_TOO_LARGE", b"the message is larger than the server's limit")
    elif stream.messages > 1 and stream.kind != StreamKind.kStreamInfer and stream.kind != StreamKind.kCold:
        refuse_text(stream, kInvalidArgument, b"INVALID_REQUEST", b"one message wanted, more were sent")
    else:
        if stream.kind == StreamKind.kCold:
            stream.message.clear()
        else:
            stream.request = take_request(stream)
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
        if not sink.cold_message(sink.self, stream.cold, stream.message.data, stream.message.size):
            refuse_text(stream, kUnavailable, b"COLD_QUEUE_FULL", b"too many bytes wait for the control plane")
        stream.message.clear()


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
            stream.message.append(data, part)
        elif not collect(stream, stream.request, data, part):
            return
        data += part
        size -= part
        stream.left -= <uint32_t> part
        if stream.left == 0:
            message_complete(stream)


cdef int on_data(nghttp2_session* session, uint8_t flags, int32_t id, const uint8_t* data, size_t size, void* user) noexcept nogil:
    cdef Http2Stream* stream = <Http2Stream*> nghttp2_session_get_stream_user_data(session, id)
    cdef int64_t limit
    if stream != NULL and stream.kind != StreamKind.kAnswered:
        if stream.grpc:
            feed_grpc(stream, data, size)
        else:
            limit = stream.connection.sink.limits.max_body_bytes
            if stream.kind == StreamKind.kRest:
                if <int64_t> (stream.request.body.size + size) > limit:
                    refuse_too_large(stream)
                else:
                    collect(stream, stream.request, data, size)
            elif <int64_t> (stream.message.size + size) > limit:
                refuse_too_large(stream)
            else:
                stream.message.append(data, size)
        if stream.kind == StreamKind.kStreamInfer and stream.pending.size() > PENDING_MAX:
            stream.held += size         # the window closes until answers have been sent
            nghttp2_session_consume_connection(session, size)
            return 0
    nghttp2_session_consume(session, id, size)
    return 0


cdef void refuse_too_large(Http2Stream* stream) noexcept nogil:
    cdef Status status
    status.set(kResourceExhausted, b"BODY_TOO_LARGE", string(b"the body is larger than the server's limit"))
    status.http_status = 413
    refuse(stream, status)


cdef void answer_native(Http2Stream* stream) noexcept nogil:
    cdef Sink* sink = stream.connection.sink
    cdef string_view name, version
    cdef uint8_t answer[2]
    cdef int ready, method = native_method(stream.path)
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
        ready = sink.ready(sink.self, name, version)
        if ready < 0:
            refuse_text(stream, kNotFound, b"NOT_FOUND", b"unknown model or version")
            return
        answer[1] = ready
    send_small(stream, answer, 2 if answer[1] else 0)
    stream.kind = StreamKind.kAnswered


cdef void on_input_end(Http2Stream* stream) noexcept nogil:
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


cdef int on_frame(nghttp2_session* session, const nghttp2_frame* frame, void* user) noexcept nogil:
    cdef Http2Stream* stream
    if frame.hd.type != NGHTTP2_DATA and frame.hd.type != NGHTTP2_HEADERS:
        return 0
    stream = <Http2Stream*> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
    if stream == NULL:
        return 0
    if frame.hd.type == NGHTTP2_HEADERS and frame.headers.cat == NGHTTP2_HCAT_REQUEST:
        on_headers_complete(stream)
    if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
        on_input_end(stream)
    return 0


cdef int on_stream_close(nghttp2_session* session, int32_t id, uint32_t error, void* user) noexcept nogil:
    cdef Http2Stream* stream = <Http2Stream*> nghttp2_session_get_stream_user_data(session, id)
    if stream != NULL:
        nghttp2_session_set_stream_user_data(session, id, NULL)
        if stream.held:
            nghttp2_session_consume(session, id, stream.held)
        close_stream(stream)
    return 0


# The connection.
cdef nghttp2_session_callbacks* shared_callbacks() noexcept nogil:
    global callbacks
    if callbacks == NULL:
        nghttp2_session_callbacks_new(&callbacks)
        nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers)
        nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header)
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data)
        nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame)
        nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close)
    return callbacks


shared_callbacks()  # made at import, so that no two I/O threads race for it


cdef Http2Connection* open_connection(Sink* sink, string_view peer) noexcept nogil:
    cdef Http2Connection* connection = new Http2Connection()
    cdef nghttp2_settings_entry settings[3]
    cdef nghttp2_option* option = NULL
    connection.sink = sink
    connection.peer.assign(peer.data(), peer.size())
    connection.last_active_ns = sink.now_ns
    nghttp2_option_new(&option)
    nghttp2_option_set_no_auto_window_update(option, 1)
    nghttp2_option_set_no_closed_streams(option, 1)
    # The library's default (1,000, then 33/s) closes connections of honest clients that cancel or time out a lot.
    nghttp2_option_set_stream_reset_rate_limit(option, sink.limits.max_resets, sink.limits.max_resets_per_s)
    nghttp2_session_server_new2(&connection.session, shared_callbacks(), connection, option)
    nghttp2_option_del(option)
    if connection.session == NULL:
        del connection
        return NULL
    settings[0].settings_id = NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
    settings[0].value = <uint32_t> sink.limits.max_streams
    settings[1].settings_id = NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE
    settings[1].value = STREAM_WINDOW
    settings[2].settings_id = NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE
    settings[2].value = <uint32_t> sink.limits.max_header_bytes
    nghttp2_submit_settings(connection.session, NGHTTP2_FLAG_NONE, settings, 3)
    nghttp2_session_set_local_window_size(connection.session, NGHTTP2_FLAG_NONE, 0, CONNECTION_WINDOW)
    return connection


cdef bint feed(Http2Connection* connection, const uint8_t* data, size_t size) noexcept nogil:
    connection.last_active_ns = connection.sink.now_ns
    return nghttp2_session_mem_recv(connection.session, data, size) >= 0


cdef void release_windows(Http2Connection* connection) noexcept nogil:
    """Streams that were left to close go on once half of their answers have been sent."""
    cdef Http2Stream* stream = connection.streams
    while stream != NULL:
        if stream.held and stream.pending.size() <= PENDING_MAX // 2:
            nghttp2_session_consume_stream(connection.session, stream.id, stream.held)
            stream.held = 0
        stream = stream.next


cdef bint produce(Http2Connection* connection) noexcept nogil:
    cdef const uint8_t* part
    cdef Py_ssize_t size
    if connection.out_sent == connection.out.size:
        connection.out.clear()
        connection.out_sent = 0
    while connection.out.size - connection.out_sent < OUTPUT_MAX:
        size = nghttp2_session_mem_send(connection.session, &part)
        if size < 0:
            return False
        if size == 0:
            break
        if not connection.out.append(part, size):
            return False
    if connection.open_streams and connection.streams.held:
        release_windows(connection)
    return True


cdef bint finished(Http2Connection* connection) noexcept nogil:
    return (not nghttp2_session_want_read(connection.session) and not nghttp2_session_want_write(connection.session)
            and connection.out_sent == connection.out.size)


cdef void drain(Http2Connection* connection, bint final) noexcept nogil:
    if final:
        nghttp2_submit_goaway(connection.session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(connection.session),
                              NGHTTP2_NO_ERROR, NULL, 0)
    else:
        nghttp2_submit_shutdown_notice(connection.session)


cdef bint abandon(Http2Connection* connection) noexcept nogil:
    cdef Http2Stream* stream = connection.streams
    cdef Http2Stream* following
    connection.abandoned = True
    while stream != NULL:
        following = stream.next
        close_stream(stream)
        stream = following
    if connection.outstanding:
        return False
    del connection
    return True
