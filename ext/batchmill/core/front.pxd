# What a front end and the I/O thread that drives it say to each other (front.hpp). Declarations only: there is no front.pyx.
from libc.stdint cimport int32_t, int64_t, uint8_t
from libcpp cimport bool as cpp_bool
from libcpp.atomic cimport atomic
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from batchmill.core.message cimport InferRequest, ReplyTo
from batchmill.core.notes cimport WatchedHeaders
from batchmill.core.tensor cimport MemoryBudget

cdef extern from "front.hpp" namespace "batchmill" nogil:
    cdef cppclass Limits:
        int64_t max_body_bytes, max_header_bytes, max_response_bytes, max_streams, max_resets, max_resets_per_s
        int64_t header_timeout_ms, idle_timeout_ms, min_body_rate
        int32_t busy_status

    ctypedef vector[pair[string, string]] HeaderList

    cdef cppclass ColdCall:
        atomic[int32_t] refs
        cpp_bool grpc
        string method, target, peer
        HeaderList headers          # names in lower case
        string body                 # HTTP: whole before open
        int64_t deadline_ns
        atomic[cpp_bool] cancelled
        atomic[int64_t] pending     # bytes of the answer that Python has written and the connection has not taken
        ReplyTo reply_to            # cleared by the front end when the caller has gone
        void took(int64_t bytes)

    enum class ColdReplyKind(uint8_t):
        kHeaders, kData, kEnd, kInfer

    cdef cppclass ColdReply:
        ColdCall* call
        ColdReplyKind kind
        int32_t status
        HeaderList headers
        string data
        string model, version, label
        int64_t json_size, deadline_ns

    cdef cppclass PiecePool:
        size_t kept()
        void* take(size_t bytes)
        void* take_zeroed(size_t count, size_t bytes)
        void give(void* piece)
        void* grow(void* piece, size_t bytes)

    cdef cppclass Sink:
        void* self
        InferRequest* (*take)(void* self) noexcept nogil
        void (*recycle)(void* self, InferRequest* request) noexcept nogil
        void (*infer)(void* self, InferRequest* request) noexcept nogil
        cpp_bool (*cold_open)(void* self, ColdCall* call) noexcept nogil
        cpp_bool (*cold_message)(void* self, ColdCall* call, const uint8_t* data, size_t size, cpp_bool compressed) noexcept nogil
        void (*cold_end)(void* self, ColdCall* call) noexcept nogil
        void (*cold_cancel)(void* self, ColdCall* call) noexcept nogil
        int (*ready)(void* self, string_view model, string_view version) noexcept nogil
        const Limits* limits
        MemoryBudget* budget
        const atomic[cpp_bool]* draining
        int64_t now_ns, behind_ns
        const WatchedHeaders* watched
        int32_t io_thread
        PiecePool pieces
