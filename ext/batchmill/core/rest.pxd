# REST, whatever carries it: where a path leads, header values, error bodies.
from libc.stdint cimport int64_t, uint8_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core.status cimport Status
from batchmill.core.tensor cimport Buffer

cdef extern from "rest.hpp" namespace "batchmill" nogil:
    enum class RestKind(uint8_t):
        kInfer, kLive, kReady, kModelReady, kCold, kBadPath, kMethodNotAllowed, kNowhere

    cdef cppclass RestRoute:
        RestKind kind
        string model, version, label        # percent-decoded

cdef void classify(string_view method, string_view target, bint metrics_only, RestRoute* route) noexcept nogil
cdef int64_t parse_header_length(string_view value) noexcept nogil  # digits only; -1: anything else
cdef int64_t parse_timeout_ms(string_view value) noexcept nogil     # -1: no positive number
cdef void append_error_json(Buffer* out, const Status& status) noexcept nogil   # {"error": "text"}
cdef const char* reason_phrase(int status) noexcept nogil
