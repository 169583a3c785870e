# The answering half of the HTTP/2 front end, and the life of a stream.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libcpp cimport bool as cpp_bool
from libcpp.deque cimport deque
from libcpp.string cimport string

from batchmill.core.front cimport ColdCall, ColdReply, HeaderList, Sink
from batchmill.core.message cimport InferRequest
from batchmill.core.nghttp2 cimport nghttp2_session
from batchmill.core.notes cimport HeaderNotes
from batchmill.core.status cimport Code, Status
from batchmill.core.tensor cimport Buffer

cdef extern from "http2.hpp" namespace "batchmill" nogil:
    enum class StreamKind(uint8_t):
        kNew, kInfer, kStreamInfer, kNative, kCold, kRest, kColdHttp, kAnswered

    cdef cppclass Http2Stream:
        Http2Connection* connection
        int32_t id
        StreamKind kind
        cpp_bool grpc, closed, input_ended, started, deferred, waiting, encoded
        uint8_t* prefix
        uint8_t prefix_size
        uint32_t left
        int32_t messages, outstanding
        int64_t header_bytes, deadline_ns, json_size, grpc_timeout_ns, timeout_ms
        size_t held
        string path, method, content_type
        HeaderNotes notes
        HeaderList headers
        InferRequest* request
        deque[InferRequest*] pending
        size_t sent
        ColdCall* cold
        Buffer message, out
        int64_t charged_bytes
        HeaderList trailers
        cpp_bool ended
        Http2Stream* next
        Http2Stream* previous
        void reset()

    cdef cppclass Http2Connection:
        void* owner
        Sink* sink
        nghttp2_session* session
        string peer
        Buffer out
        size_t out_sent
        Http2Stream* streams
        Http2Stream* free_streams
        int32_t open_streams, outstanding
        cpp_bool abandoned, draining, metrics_only
        int64_t last_active_ns

cdef Http2Stream* new_stream(Http2Connection* connection, int32_t id) noexcept nogil
cdef void close_stream(Http2Stream* stream) noexcept nogil          # the caller has gone; freed when nothing is on its way
cdef void drop_message(Http2Stream* stream) noexcept nogil          # what was collected for a cold call
cdef void release_if_done(Http2Stream* stream) noexcept nogil

# Refuses: trailers-only for gRPC, {"error": ...} for REST. What still arrives is thrown away.
cdef void refuse(Http2Stream* stream, const Status& status) noexcept nogil
cdef void refuse_text(Http2Stream* stream, Code code, const char* reason, const char* text) noexcept nogil

cdef void start_stream_answer(Http2Stream* stream) noexcept nogil   # gRPC stream: headers now, messages as they come
cdef void resume(Http2Stream* stream) noexcept nogil
cdef void send_small(Http2Stream* stream, const uint8_t* message, size_t size) noexcept nogil  # gRPC unary OK, answered natively
cdef void send_plain(Http2Stream* stream, int status) noexcept nogil                           # HTTP, empty body

cdef void reply(Http2Connection* connection, InferRequest* request) noexcept nogil
cdef void cold_reply(Http2Connection* connection, ColdReply* part) noexcept nogil
