# A sample of the answered requests, on its way from an I/O thread to the log.
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.atomic cimport atomic

from batchmill.core.message cimport Encoding, InferRequest
from batchmill.core.notes cimport StageTimes

cdef extern from "access_log.hpp" namespace "batchmill" nogil:
    cdef cppclass AccessRecord:
        StageTimes times
        int64_t rows
        uint64_t bytes_in, bytes_out
        int32_t code
        Encoding encoding
        cpp_bool stream
        const char* reason
        char* model
        char* version
        char* id
        char* traceparent
        char* peer

    cdef cppclass AccessLog:
        atomic[uint64_t] dropped
        void open(double share, uint64_t seed)
        cpp_bool wants()
        void put(const InferRequest& request, const char* peer)
        const AccessRecord* front()
        void took()

cdef list taken_from(AccessLog* log)        # its records as dicts, oldest first
