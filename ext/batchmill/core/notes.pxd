# What is said of a request beside its tensors: by its headers, and by the clock.
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.utility cimport pair
from libcpp.vector cimport vector

cdef extern from "coding.hpp" namespace "batchmill" nogil:
    enum class Coding(uint8_t):
        kIdentity, kGzip, kDeflate, kUnknown

    Coding coding_of(string_view name)
    const char* name_of(Coding coding)

    cdef cppclass AcceptedCodings:
        void take(string_view listed)
        cpp_bool has(Coding coding)
        Coding best()

cdef extern from "notes.hpp" namespace "batchmill" nogil:
    cdef cppclass WatchedHeaders:
        vector[pair[uint64_t, string]] names
        void add(const string& lower)

    uint64_t header_key "batchmill::WatchedHeaders::key_of"(string_view lower)

    cdef cppclass HeaderNotes:
        string route_key, request_id, traceparent
        cpp_bool server_timing
        Coding coding
        AcceptedCodings accepts
        void take_id(string_view value)         # x-request-id
        void take_trace(string_view value)      # traceparent
        void take_timing(string_view value)     # x-server-timing
        void take_coding(string_view value)     # Content-Encoding or grpc-encoding
        void take_watched(const WatchedHeaders& wanted, string_view name, string_view value)
        const string* watched_value(uint64_t key)
        void swap(HeaderNotes& other)

    cdef cppclass StageTimes:
        int64_t received, queued, started, gathered, computed, encoded, answered   # monotonic ns; 0: not reached
        string server_timing()
