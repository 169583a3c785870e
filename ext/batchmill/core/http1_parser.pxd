# The head of an HTTP/1.1 request, strictly.
from libc.stdint cimport int64_t, uint8_t
from libcpp cimport bool as cpp_bool
from libcpp.deque cimport deque
from libcpp.string cimport string
from libcpp.vector cimport vector

from batchmill.core.front cimport ColdCall, HeaderList, Sink
from batchmill.core.message cimport InferRequest
from batchmill.core.notes cimport HeaderNotes, WatchedHeaders
from batchmill.core.rest cimport RestRoute
from batchmill.core.tensor cimport Buffer

cdef extern from "http1.hpp" namespace "batchmill" nogil:
    enum class Http1State(uint8_t):
        kRequestLine, kHeaders, kBody, kChunkSize, kChunkData, kChunkEnd, kTrailers, kFailed

    cdef cppclass ByteTable:
        cpp_bool token[256]
    const ByteTable kBytes

    cdef cppclass Http1Head:
        string method, target
        cpp_bool http10, chunked, expects_continue, keep_alive, closes, encoded
        int hosts, lines
        int64_t bytes, content_length, json_size, timeout_ms
        const WatchedHeaders* watched
        HeaderNotes notes
        HeaderList headers
        void reset()

    cdef cppclass Http1Scan:
        size_t seen
        uint8_t part

    cdef cppclass Http1Exchange:
        RestRoute route
        InferRequest* request
        ColdCall* cold
        HeaderNotes notes
        cpp_bool on_its_way, done, keep_alive, head_only, http10, chunked, bodyless, started, closed
        int64_t answer_left
        Buffer out
        Http1Exchange* next
        void reset()

    cdef cppclass Http1Connection:
        Sink* sink
        string peer
        Http1State state
        Http1Head head
        RestRoute route
        Http1Scan scan
        Buffer in_ "in"
        size_t in_start
        Buffer cold_body
        int64_t cold_charged
        int64_t body_left, body_bytes
        Http1Exchange* current
        deque[Http1Exchange*] queue
        Http1Exchange* free_exchanges
        Buffer out
        size_t out_sent
        int outstanding
        cpp_bool last, abandoned, metrics_only, input_ended
        int64_t waits_since_ns, stalled_since_ns

# All return the HTTP status that refuses what was given, 0 when it is fine. A line comes without its CRLF.
cdef int request_line(Http1Head* head, const char* line, size_t size) noexcept nogil
cdef int header_line(Http1Head* head, const char* line, size_t size, bint keep) noexcept nogil
cdef int trailer_line(const char* line, size_t size) noexcept nogil                          # checked, and passed over
cdef int head_end(Http1Head* head) noexcept nogil
# An unfinished line, size bytes so far: 0, or what refuses its first impossible byte.
cdef int examine(Http1State state, Http1Scan* scan, const char* line, size_t size) noexcept nogil
cdef int64_t chunk_size(const char* line, size_t size) noexcept nogil       # -1: malformed
