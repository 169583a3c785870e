# A call of the HTTP/2 front end, from the end of its headers until it is handed over.
from libc.stdint cimport uint8_t

from batchmill.core.http2_stream cimport Http2Connection, Http2Stream

cdef extern from "http2.hpp" namespace "batchmill":
    const char* kInferPath
    const char* kStreamInferPath

cdef void begin_call(Http2Stream* stream) noexcept nogil                                            # the headers are complete
cdef void take_data(Http2Stream* stream, const uint8_t* data, size_t size) noexcept nogil           # a part of the body
cdef bint refuse_slow(Http2Connection* connection) noexcept nogil                                   # whose bodies dawdle; whether any
cdef void end_input(Http2Stream* stream) noexcept nogil                                             # the caller has half-closed
