"""The answering half of the HTTP/2 front end: headers, data providers, trailers."""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcpy
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from batchmill.core cimport pb_response
from batchmill.core.front cimport ColdReplyKind, HeaderList
from batchmill.core.grpc cimport tell, ToldStatus
from batchmill.core.http2_headers cimport NAME_STAYS, NO_COPY, ONCE, coding_pair, echo_id, pair_of, put_remarks, put_timing
from batchmill.core.http2_stream cimport StreamKind, drop_message, recycle, release_if_done
from batchmill.core.nghttp2 cimport *
from batchmill.core.notes cimport Coding
from batchmill.core.rest cimport append_error_json
from batchmill.core.router cimport ModelVersion
from batchmill.core.status cimport http_status_of, kUnimplemented, retry_after_ms, retry_after_secs

cdef extern from * nogil:
    """
    #include <string>
    """
    string to_string "std::to_string"(long)

ctypedef vector[nghttp2_nv] HeaderBlock


# Errors.
cdef void refuse(Http2Stream* stream, const Status& status) noexcept nogil:
    cdef bint answers_messages = stream.kind == StreamKind.kStreamInfer
    stream.kind = StreamKind.kAnswered
    if stream.closed or stream.failing:
        return
    if stream.request != NULL and not stream.waiting:       # what has come of it so far
        recycle(stream, stream.request)
        stream.request = NULL
    drop_message(stream)
    if not stream.started:
        stream.started = True
        if stream.grpc:
            submit_status(stream, status, False)
        else:
            refuse_http(stream, status)
    elif answers_messages:      # what was asked before is answered first
        stream.failing = True
        stream.failure = status
        resume(stream)
    else:
        nghttp2_submit_rst_stream(stream.connection.session, NGHTTP2_FLAG_NONE, stream.id, NGHTTP2_CANCEL)


cdef void submit_status(Http2Stream* stream, const Status& status, bint begun) noexcept nogil:
    """gRPC's status: as the whole answer, or as the trailers of one that has begun."""
    cdef ToldStatus* told = &stream.connection.told
    cdef nghttp2_nv block[8]
    cdef size_t count = 5
    # A text that comes again may have a place in the connection's table; most refusals for load say other numbers each time.
    cdef uint8_t flags = NAME_STAYS if tell(told[0], status) else ONCE
    block[0] = pair_of(b":status", 7, b"200", 3, NO_COPY)
    block[1] = pair_of(b"content-type", 12, b"application/grpc", 16, NO_COPY)
    block[2] = pair_of(b"grpc-status", 11, told.code.data(), told.code.size(), NAME_STAYS)
    block[3] = pair_of(b"grpc-message", 12, told.message.data(), told.message.size(), flags)
    block[4] = pair_of(b"grpc-status-details-bin", 23, told.details.data(), told.details.size(), flags)
    if retry_after_ms(status):
        block[count] = pair_of(b"grpc-retry-pushback-ms", 22, told.retry.data(), told.retry.size(), flags)
        count += 1
    if begun:
        nghttp2_submit_trailer(stream.connection.session, stream.id, block + 2, count - 2)
        return
    count += echo_id(stream, &block[count])
    if status.code == kUnimplemented and stream.coding == Coding.kUnknown:
        block[count] = pair_of(b"grpc-accept-encoding", 20, b"identity,deflate,gzip", 21, NO_COPY)
        count += 1
    nghttp2_submit_response(stream.connection.session, stream.id, block, count, NULL)


cdef void refuse_http(Http2Stream* stream, const Status& status) noexcept nogil:
    cdef string code = to_string(<long> http_status_of(status)), size
    cdef string retry = to_string(<long> retry_after_secs(status))
    cdef nghttp2_nv block[5]
    cdef size_t count = 3
    cdef nghttp2_data_provider provider
    stream.out.clear()
    append_error_json(&stream.out, status)
    size = to_string(<long> stream.out.size)
    block[0] = pair_of(b":status", 7, code.data(), code.size(), 0)
    block[1] = pair_of(b"content-type", 12, b"application/json", 16, NO_COPY)
    block[2] = pair_of(b"content-length", 14, size.data(), size.size(), 0)
    if retry_after_secs(status):
        block[3] = pair_of(b"retry-after", 11, retry.data(), retry.size(), 0)
        count = 4
    elif code == b"415":
        block[3] = pair_of(b"accept-encoding", 15, b"gzip, deflate", 13, NO_COPY)
        count = 4
    count += echo_id(stream, &block[count])
    stream.ended = True
    provider.source.ptr = stream
    provider.read_callback = read_cold
    nghttp2_submit_response(stream.connection.session, stream.id, block, count, &provider)


cdef void refuse_text(Http2Stream* stream, Code code, const char* reason, const char* text) noexcept nogil:
    cdef Status status
    status.set(code, reason, string(text))
    refuse(stream, status)


# Data providers. They run inside nghttp2_session_mem_send.
cdef void submit_ok_trailer(Http2Stream* stream, InferRequest* request) noexcept nogil:
    cdef nghttp2_nv block[5]        # kRemarksMost of them
    cdef size_t count = 1
    cdef string timing
    cdef ModelVersion* version = <ModelVersion*> request.version if request != NULL else NULL
    block[0] = pair_of(b"grpc-status", 11, b"0", 1, NO_COPY)
    if version != NULL:
        block[1] = pair_of(b"x-model-version", 15, version.version.data(), version.version.size(), 0)
        count = 2 + put_remarks(request, &block[2])
        count += put_timing(stream, request, &timing, &block[count])
    nghttp2_submit_trailer(stream.connection.session, stream.id, block, count)


cdef inline size_t copy_answer(Http2Stream* stream, InferRequest* request, uint8_t* target, size_t room) noexcept nogil:
    cdef size_t left = request.response.size - stream.sent
    if left > room:
        left = room
    memcpy(target, request.response.data + stream.sent, left)
    stream.sent += left
    return left


cdef Py_ssize_t read_unary(nghttp2_session* session, int32_t id, uint8_t* target, size_t room, uint32_t* flags,
                           nghttp2_data_source* source, void* user) noexcept nogil:
    cdef Http2Stream* stream = <Http2Stream*> source.ptr
    cdef InferRequest* request = stream.request
    cdef size_t part
    if request == NULL:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF
        return 0
    part = copy_answer(stream, request, target, room)
    if stream.sent == request.response.size:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF
        if stream.grpc:
            flags[0] |= NGHTTP2_DATA_FLAG_NO_END_STREAM
            submit_ok_trailer(stream, request)
        stream.request = NULL
        recycle(stream, request)
    return part


cdef Py_ssize_t read_messages(nghttp2_session* session, int32_t id, uint8_t* target, size_t room, uint32_t* flags,
                              nghttp2_data_source* source, void* user) noexcept nogil:
    """A gRPC stream's answers, in the order of its requests; many small ones share a frame."""
    cdef Http2Stream* stream = <Http2Stream*> source.ptr
    cdef InferRequest* request
    cdef size_t written = 0
    while written < room and stream.pending.size() and stream.pending.front().done:
        request = stream.pending.front()
        if stream.sent == 0:
            stream.sent = request.response_start
        written += copy_answer(stream, request, target + written, room - written)
        if stream.sent == request.response.size:
            stream.pending.pop_front()
            stream.sent = 0
            recycle(stream, request)
    if (stream.input_ended or stream.failing) and stream.pending.size() == 0:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM
        if stream.failing:
            submit_status(stream, stream.failure, True)
        else:
            submit_ok_trailer(stream, NULL)
        return written
    if written:
        return written
    stream.deferred = True
    return NGHTTP2_ERR_DEFERRED


cdef Py_ssize_t read_cold(nghttp2_session* session, int32_t id, uint8_t* target, size_t room, uint32_t* flags,
                          nghttp2_data_source* source, void* user) noexcept nogil:
    cdef Http2Stream* stream = <Http2Stream*> source.ptr
    cdef size_t left = stream.out.size - stream.sent
    if left > room:
        left = room
    if left:
        memcpy(target, stream.out.data + stream.sent, left)
    stream.sent += left
    if stream.cold != NULL:
        stream.cold.took(left)
    if stream.sent == stream.out.size:
        stream.out.clear()
        stream.sent = 0
        if stream.ended:
            flags[0] |= NGHTTP2_DATA_FLAG_EOF
            if stream.trailers.size():
                flags[0] |= NGHTTP2_DATA_FLAG_NO_END_STREAM
                submit_headers(stream, stream.trailers, 0, NULL)
        elif left == 0:
            stream.deferred = True
            return NGHTTP2_ERR_DEFERRED
    return left


cdef void submit_headers(Http2Stream* stream, HeaderList& headers, int status, const nghttp2_data_provider* provider) noexcept nogil:
    """Response headers (status > 0; without a provider they end the stream) or trailers (status 0)."""
    cdef HeaderBlock block
    cdef size_t index
    cdef string code = to_string(<long> status)
    cdef bint typed = False
    cdef nghttp2_nv id
    if status:
        block.push_back(pair_of(b":status", 7, code.data(), code.size(), 0))
        if echo_id(stream, &id):
            block.push_back(id)
    for index in range(headers.size()):
        typed = typed or headers[index].first == string(b"content-type")
        block.push_back(pair_of(headers[index].first.data(), headers[index].first.size(),
                                headers[index].second.data(), headers[index].second.size(), 0))
    if not status:
        nghttp2_submit_trailer(stream.connection.session, stream.id, block.data(), block.size())
        return
    if stream.grpc and not typed:
        block.insert(block.begin() + 1, pair_of(b"content-type", 12, b"application/grpc", 16, NO_COPY))
    nghttp2_submit_response(stream.connection.session, stream.id, block.data(), block.size(), provider)


cdef void start_stream_answer(Http2Stream* stream) noexcept nogil:
    cdef nghttp2_nv block[4]
    cdef nghttp2_data_provider provider
    cdef size_t count = 2
    block[0] = pair_of(b":status", 7, b"200", 3, NO_COPY)
    block[1] = pair_of(b"content-type", 12, b"application/grpc", 16, NO_COPY)
    if stream.accepts.has(stream.coding):       # each message says whether it is
        block[2] = coding_pair(b"grpc-encoding", 13, stream.coding)
        count = 3
    provider.source.ptr = stream
    provider.read_callback = read_messages
    stream.started = True
    count += echo_id(stream, &block[count])
    nghttp2_submit_response(stream.connection.session, stream.id, block, count, &provider)


cdef void resume(Http2Stream* stream) noexcept nogil:
    if stream.deferred:
        stream.deferred = False
        nghttp2_session_resume_data(stream.connection.session, stream.id)


cdef void send_small(Http2Stream* stream, const uint8_t* message, size_t size) noexcept nogil:
    cdef uint8_t prefix[5]
    cdef pair[string, string] trailer
    prefix[0] = prefix[1] = prefix[2] = prefix[3] = 0
    prefix[4] = <uint8_t> size
    stream.out.clear()
    stream.out.append(prefix, 5)
    stream.out.append(message, size)
    trailer.first.assign(b"grpc-status")
    trailer.second.assign(b"0")
    stream.trailers.push_back(trailer)
    stream.ended = True
    start_cold(stream, stream.headers, 200, True)


cdef void send_plain(Http2Stream* stream, int status) noexcept nogil:
    stream.kind = StreamKind.kAnswered
    stream.headers.clear()
    start_cold(stream, stream.headers, status, False)


cdef void start_cold(Http2Stream* stream, HeaderList& headers, int status, bint body) noexcept nogil:
    cdef nghttp2_data_provider provider
    provider.source.ptr = stream
    provider.read_callback = read_cold
    if stream.kind == StreamKind.kNative:
        headers.clear()
    stream.started = True
    submit_headers(stream, headers, status, &provider if body else NULL)


# Answers from below.
cdef void answer_unary(Http2Stream* stream, InferRequest* request) noexcept nogil:
    cdef nghttp2_nv block[10]       # kRemarksMost of them
    cdef size_t count = 2
    cdef nghttp2_data_provider provider
    cdef string size, json_size, timing
    cdef ModelVersion* version = <ModelVersion*> request.version
    stream.sent = request.response_start
    stream.started = True
    provider.source.ptr = stream
    provider.read_callback = read_unary
    block[0] = pair_of(b":status", 7, b"200", 3, NO_COPY)
    if stream.grpc:
        block[1] = pair_of(b"content-type", 12, b"application/grpc", 16, NO_COPY)
        if request.answer_coding != Coding.kIdentity:
            block[2] = coding_pair(b"grpc-encoding", 13, request.answer_coding)
            count = 3
    else:
        size = to_string(<long> request.response.size)
        block[2] = pair_of(b"content-length", 14, size.data(), size.size(), 0)
        block[3] = pair_of(b"x-model-version", 15, version.version.data(), version.version.size(), 0)
        count = 4
        if request.json_size >= 0:
            json_size = to_string(<long> request.json_size)
            block[1] = pair_of(b"content-type", 12, b"application/octet-stream", 24, NO_COPY)
            block[4] = pair_of(b"inference-header-content-length", 31, json_size.data(), json_size.size(), 0)
            count = 5
        else:
            block[1] = pair_of(b"content-type", 12, b"application/json", 16, NO_COPY)
        if request.answer_coding != Coding.kIdentity:
            block[count] = coding_pair(b"content-encoding", 16, request.answer_coding)
            count += 1
        count += put_remarks(request, &block[count])
        count += put_timing(stream, request, &timing, &block[count])
    count += echo_id(stream, &block[count])
    nghttp2_submit_response(stream.connection.session, stream.id, block, count, &provider)


cdef void reply(Http2Connection* connection, InferRequest* request) noexcept nogil:
    cdef Http2Stream* stream = <Http2Stream*> request.reply_to.stream
    stream.outstanding -= 1
    connection.outstanding -= 1
    if stream.closed:
        recycle(stream, request)
        release_if_done(stream)
        return
    if request.stream_reply:        # stays in `pending`, also when the stream was refused meanwhile
        if not request.status.ok():
            pb_response.encode_stream_error(request, string_view(request.status.message.data(), request.status.message.size()))
        request.done = True
        resume(stream)
        return
    stream.waiting = False
    if request.status.ok():
        answer_unary(stream, request)
        return
    stream.request = NULL
    refuse(stream, request.status)
    recycle(stream, request)


cdef void cold_reply(Http2Connection* connection, ColdReply* part) noexcept nogil:
    cdef Http2Stream* stream = <Http2Stream*> part.call.reply_to.stream
    cdef uint8_t prefix[5]
    cdef uint32_t size
    if stream == NULL or stream.closed:
        return
    if part.kind == ColdReplyKind.kHeaders:
        if not stream.started:
            start_cold(stream, part.headers, part.status, True)
        return
    if part.kind == ColdReplyKind.kData:
        if stream.grpc:
            size = <uint32_t> part.data.size()
            prefix[0] = 0
            prefix[1], prefix[2], prefix[3], prefix[4] = size >> 24, size >> 16, size >> 8, size
            stream.out.append(prefix, 5)
            part.call.pending.fetch_add(5)
        stream.out.append(part.data.data(), part.data.size())
    else:
        stream.ended = True
        if not stream.started:      # trailers-only
            stream.started = True
            submit_headers(stream, part.headers, 200 if stream.grpc else 500, NULL)
            return
        stream.trailers.swap(part.headers)
    resume(stream)
