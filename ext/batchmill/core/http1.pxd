# The HTTP/1.1 front end, sans-I/O: bytes in, bytes out.
from libc.stdint cimport int64_t, uint8_t
from libcpp.string_view cimport string_view

from batchmill.core.front cimport ColdReply, Sink
from batchmill.core.http1_parser cimport Http1Connection
from batchmill.core.message cimport InferRequest
from batchmill.core.tensor cimport Buffer

cdef Http1Connection* open_connection(Sink* sink, string_view peer, bint metrics_only) noexcept nogil
cdef bint feed(Http1Connection* connection, const uint8_t* data, size_t size) noexcept nogil     # False: nothing more is to be read
cdef bint reply(Http1Connection* connection, InferRequest* request) noexcept nogil               # True: the connection was freed
cdef void cold_reply(Http1Connection* connection, ColdReply* part) noexcept nogil
cdef Buffer* output(Http1Connection* connection, size_t* start) noexcept nogil                  # to be sent: from start on
cdef void wrote(Http1Connection* connection, size_t size) noexcept nogil
cdef bint finished(Http1Connection* connection) noexcept nogil                                  # all is said: close the socket
cdef bint paused(Http1Connection* connection) noexcept nogil                                    # back-pressure: do not read
cdef bint awaits_answers(Http1Connection* connection) noexcept nogil
cdef bint end_input(Http1Connection* connection) noexcept nogil                                 # by the caller; True: it awaits answers
cdef bint lingers(Http1Connection* connection) noexcept nogil                                   # finished, but its caller may be sending
cdef int64_t next_deadline(Http1Connection* connection) noexcept nogil                          # monotonic ns; 0: none
cdef void on_timeout(Http1Connection* connection) noexcept nogil
cdef bint abandon(Http1Connection* connection) noexcept nogil                                   # True: freed now
