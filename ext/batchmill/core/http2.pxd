# The HTTP/2 front end, sans-I/O: bytes in, bytes out; gRPC and REST by content type.
from libc.stdint cimport uint8_t
from libcpp.string_view cimport string_view

from batchmill.core.front cimport Sink
from batchmill.core.http2_stream cimport Http2Connection
from batchmill.core.tensor cimport Buffer

cdef Http2Connection* open_connection(Sink* sink, string_view peer, bint metrics_only) noexcept nogil   # NULL: no memory
cdef bint feed(Http2Connection* connection, const uint8_t* data, size_t size) noexcept nogil     # False: protocol error; flush, then close
cdef bint produce(Http2Connection* connection) noexcept nogil       # fills out from out_sent on; False: fatal
cdef bint finished(Http2Connection* connection) noexcept nogil      # nothing more to read or to write
cdef void drain(Http2Connection* connection, bint final) noexcept nogil   # GOAWAY: the notice first, later the final one
cdef bint abandon(Http2Connection* connection) noexcept nogil       # the socket has gone; True: freed now, else by the last reply
