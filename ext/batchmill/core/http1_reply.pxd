# The answering half of the HTTP/1.1 front end.
from libc.stdint cimport int64_t

from batchmill.core.front cimport ColdReply
from batchmill.core.http1_parser cimport Http1Connection, Http1Exchange
from batchmill.core.message cimport InferRequest
from batchmill.core.status cimport Status
from batchmill.core.tensor cimport Buffer

cdef Buffer* target_of(Http1Connection* connection, Http1Exchange* exchange) noexcept nogil     # where its bytes may go now
cdef bint in_head(Http1Connection* connection) noexcept nogil                                   # part of a head has come
cdef void answer_status(Http1Connection* connection, Http1Exchange* exchange, const Status& status) noexcept nogil
cdef void answer_text(Http1Connection* connection, Http1Exchange* exchange, int code, const char* reason,
                      const char* message) noexcept nogil
cdef void answer_empty(Http1Connection* connection, Http1Exchange* exchange, int status) noexcept nogil
cdef void answer_infer(Http1Connection* connection, Http1Exchange* exchange, InferRequest* request) noexcept nogil
cdef void answer_cold(Http1Connection* connection, Http1Exchange* exchange, ColdReply* part) noexcept nogil     # one piece of it
