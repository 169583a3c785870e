# A request of the HTTP/1.1 front end, from the end of its head until it is handed over.
from libc.stdint cimport int64_t, uint8_t

from batchmill.core.http1_parser cimport Http1Connection

cdef void begin_body(Http1Connection* connection) noexcept nogil        # the head is whole: decides what the request is
cdef bint take_body(Http1Connection* connection, const uint8_t* data, size_t size) noexcept nogil   # False: refused
cdef void end_body(Http1Connection* connection) noexcept nogil          # hands it over
cdef void give_up(Http1Connection* connection, int code, const char* message) noexcept nogil        # answers, then closes
cdef void drop_cold_body(Http1Connection* connection) noexcept nogil
