"""The HTTP/2 front end, sans-I/O. libnghttp2 does framing, HPACK, stream states and flow-control accounting.

Ours: header values, flow-control windows, GOAWAY; and below, in http2_exchange, gRPC message framing, limits, and which call goes where.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memcmp
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.utility cimport pair

from batchmill.core.front cimport PiecePool
from batchmill.core.grpc cimport parse_timeout
from batchmill.core.http2_exchange cimport begin_call, end_input, kInferPath, kStreamInferPath, take_data
from batchmill.core.http2_stream cimport Http2Stream, StreamKind, close_stream, new_stream
from batchmill.core.nghttp2 cimport *
from batchmill.core.notes cimport coding_of
from batchmill.core.rest cimport parse_header_length, parse_timeout_ms

cdef int32_t STREAM_WINDOW = 4 << 20        # 64 KiB would throttle tensors of 600 KB
cdef int32_t CONNECTION_WINDOW = 64 << 20
cdef size_t OUTPUT_MAX = 256 << 10          # produced ahead of the socket
cdef size_t PENDING_MAX = 1024              # unanswered messages of one stream before its window is left to close
cdef size_t FRAME_BYTES = 16384             # what a frame may have: SETTINGS_MAX_FRAME_SIZE as it is by default
cdef size_t CONTINUATIONS_MAX = 64          # so many more than the headers need: 1 MiB is refused, and the connection goes on
cdef nghttp2_session_callbacks* callbacks = NULL


cdef extern from * nogil:
    """
    #include "http2.hpp"
    """
    void set_max_continuations "batchmill::set_max_continuations"(nghttp2_option* option, size_t frames)
    int new_session "batchmill::new_session"(
        nghttp2_session**, const nghttp2_session_callbacks*, void* user, const nghttp2_option*, PiecePool*)


cdef inline bint equal(const uint8_t* data, size_t size, const char* text, size_t text_size) noexcept nogil:
    return size == text_size and memcmp(data, text, size) == 0


# What the library calls.
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
    if stream.header_bytes > connection.sink.limits.max_header_bytes and not equal(name, name_size, b"content-type", 12):
        return 0        # not kept; begin_call() refuses, in the words of the call's kind
    if name_size == 5 and equal(name, name_size, b":path", 5):
        if equal(value, value_size, kInferPath, 42):
            stream.kind = StreamKind.kInfer
        elif equal(value, value_size, kStreamInferPath, 48):
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
            stream.grpc_timeout_ns = timeout if timeout >= 0 else -2
        elif equal(name, name_size, b"x-request-id", 12):
            stream.notes.take_id(string_view(<const char*> value, value_size))
    elif name_size == 11:
        if equal(name, name_size, b"x-route-key", 11):
            stream.notes.route_key.assign(<const char*> value, value_size)
        elif equal(name, name_size, b"traceparent", 11):
            stream.notes.take_trace(string_view(<const char*> value, value_size))
    elif name_size == 15 and equal(name, name_size, b"x-server-timing", 15):
        stream.notes.take_timing(string_view(<const char*> value, value_size))
    elif name_size == 13 and equal(name, name_size, b"grpc-encoding", 13):
        stream.coding = coding_of(string_view(<const char*> value, value_size))
    elif name_size == 15 and equal(name, name_size, b"accept-encoding", 15):
        stream.notes.accepts.take(string_view(<const char*> value, value_size))
    elif name_size == 16 and equal(name, name_size, b"content-encoding", 16):
        stream.notes.take_coding(string_view(<const char*> value, value_size))
    elif name_size == 20 and equal(name, name_size, b"grpc-accept-encoding", 20):
        stream.accepts.take(string_view(<const char*> value, value_size))
    elif name_size == 20 and equal(name, name_size, b"x-request-timeout-ms", 20):
        timeout = parse_timeout_ms(string_view(<const char*> value, value_size))
        stream.timeout_ms = timeout if timeout > 0 else -2
    elif name_size == 31 and equal(name, name_size, b"inference-header-content-length", 31):
        stream.json_size = parse_header_length(string_view(<const char*> value, value_size))
        if stream.json_size < 0:
            stream.json_size = -2       # refused once the kind of call is known
    if connection.sink.watched != NULL:
        stream.notes.take_watched(connection.sink.watched[0], string_view(<const char*> name, name_size),
                                  string_view(<const char*> value, value_size))
    if stream.kind == StreamKind.kNew and name_size and name[0] != 58:
        header.first.assign(<const char*> name, name_size)
        header.second.assign(<const char*> value, value_size)
        stream.headers.push_back(header)
    return 0


cdef int on_data(nghttp2_session* session, uint8_t flags, int32_t id, const uint8_t* data, size_t size, void* user) noexcept nogil:
    cdef Http2Stream* stream = <Http2Stream*> nghttp2_session_get_stream_user_data(session, id)
    if stream != NULL:
        take_data(stream, data, size)
        if stream.kind == StreamKind.kStreamInfer and stream.pending.size() > PENDING_MAX:
            stream.held += size         # the window closes until answers have been sent
            nghttp2_session_consume_connection(session, size)
            return 0
    nghttp2_session_consume(session, id, size)
    return 0


cdef int on_frame(nghttp2_session* session, const nghttp2_frame* frame, void* user) noexcept nogil:
    cdef Http2Stream* stream
    if frame.hd.type != NGHTTP2_DATA and frame.hd.type != NGHTTP2_HEADERS:
        return 0
    stream = <Http2Stream*> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
    if stream == NULL:
        return 0
    if frame.hd.type == NGHTTP2_HEADERS and frame.headers.cat == NGHTTP2_HCAT_REQUEST:
        begin_call(stream)
    if frame.hd.flags & NGHTTP2_FLAG_END_STREAM:
        end_input(stream)
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


cdef Http2Connection* open_connection(Sink* sink, string_view peer, bint metrics_only) noexcept nogil:
    cdef Http2Connection* connection = new Http2Connection()
    cdef nghttp2_settings_entry settings[3]
    cdef nghttp2_option* option = NULL
    connection.sink = sink
    connection.metrics_only = metrics_only
    connection.peer.assign(peer.data(), peer.size())
    nghttp2_option_new(&option)
    nghttp2_option_set_no_auto_window_update(option, 1)
    nghttp2_option_set_no_closed_streams(option, 1)
    # The library's default (1,000, then 33/s) closes connections of honest clients that cancel or time out a lot.
    nghttp2_option_set_stream_reset_rate_limit(option, sink.limits.max_resets, sink.limits.max_resets_per_s)
    # By default 8: a client with too much metadata would take the other calls of its connection with it.
    set_max_continuations(option, sink.limits.max_header_bytes // FRAME_BYTES + CONTINUATIONS_MAX)
    new_session(&connection.session, shared_callbacks(), connection, option, &sink.pieces)
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
    if nghttp2_session_mem_recv(connection.session, data, size) >= 0:
        return True
    # A flood: the library says nothing to its sender. Without a GOAWAY a client might begin more calls on this connection.
    nghttp2_session_terminate_session(connection.session, NGHTTP2_ENHANCE_YOUR_CALM)
    return False


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
