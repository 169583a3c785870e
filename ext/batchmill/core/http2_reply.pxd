# The answering half of the HTTP/2 front end.
from libc.stdint cimport uint8_t

from batchmill.core.front cimport ColdReply
from batchmill.core.http2_stream cimport Http2Connection, Http2Stream
from batchmill.core.message cimport InferRequest
from batchmill.core.status cimport Code, Status

# Refuses: trailers-only for gRPC, {"error": ...} for REST. What still arrives is thrown away.
cdef void refuse(Http2Stream* stream, const Status& status) noexcept nogil
cdef void refuse_text(Http2Stream* stream, Code code, const char* reason, const char* text) noexcept nogil

cdef void start_stream_answer(Http2Stream* stream) noexcept nogil   # gRPC stream: headers now, messages as they come
cdef void resume(Http2Stream* stream) noexcept nogil
cdef void send_small(Http2Stream* stream, const uint8_t* message, size_t size) noexcept nogil  # gRPC unary OK, answered natively
cdef void send_plain(Http2Stream* stream, int status) noexcept nogil                           # HTTP, empty body

cdef void reply(Http2Connection* connection, InferRequest* request) noexcept nogil
cdef void cold_reply(Http2Connection* connection, ColdReply* part) noexcept nogil
