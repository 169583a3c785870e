# A connection and a stream of the HTTP/2 front end, and the life of a stream.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libcpp cimport bool as cpp_bool
from libcpp.deque cimport deque
from libcpp.string cimport string

from batchmill.core.front cimport ColdCall, HeaderList, Sink
from batchmill.core.grpc cimport ToldStatus
from batchmill.core.message cimport InferRequest
from batchmill.core.nghttp2 cimport nghttp2_session
from batchmill.core.notes cimport AcceptedCodings, Coding, HeaderNotes
from batchmill.core.status cimport Status
from batchmill.core.tensor cimport Buffer

cdef extern from "http2.hpp" namespace "batchmill" nogil:
    enum class StreamKind(uint8_t):
        kNew, kInfer, kStreamInfer, kNative, kCold, kRest, kColdHttp, kAnswered

    cdef cppclass Http2Stream:
        Http2Connection* connection
        int32_t id
        StreamKind kind
        cpp_bool grpc, closed, input_ended, started, deferred, waiting
        Coding coding
        AcceptedCodings accepts
        uint8_t* prefix
        uint8_t prefix_size
        uint32_t left
        int32_t messages, outstanding
        int64_t header_bytes, deadline_ns, began_ns, json_size, grpc_timeout_ns, timeout_ms
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
        cpp_bool ended, failing
        Status failure
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
        int64_t looked_ns
        ToldStatus told

cdef Http2Stream* new_stream(Http2Connection* connection, int32_t id) noexcept nogil
cdef void close_stream(Http2Stream* stream) noexcept nogil          # the caller has gone; freed when nothing is on its way
cdef void drop_message(Http2Stream* stream) noexcept nogil          # what was collected for a cold call
cdef void release_if_done(Http2Stream* stream) noexcept nogil
cdef void recycle(Http2Stream* stream, InferRequest* request) noexcept nogil
