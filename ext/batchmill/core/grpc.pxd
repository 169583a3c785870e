# gRPC over HTTP/2, without HTTP/2: timeouts, percent-encoding, status details.
from libc.stdint cimport int64_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core.status cimport Code, Status

cdef extern from "grpc.hpp" namespace "batchmill" nogil:
    cdef cppclass ToldStatus:
        Status status
        string code, message, details, retry

cdef int64_t parse_timeout(string_view value) noexcept nogil        # ns; -1: malformed
cdef void percent_encode(string& target, string_view text) noexcept nogil
cdef bint tell(ToldStatus& told, const Status& status) noexcept nogil                  # written anew only when it is another status: False
