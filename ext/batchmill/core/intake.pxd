# What an I/O thread does for its front ends: decode, route, check, queue; and the pool of requests.
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.atomic cimport atomic
from libcpp.vector cimport vector

from batchmill.core.access_log cimport AccessLog
from batchmill.core.batch cimport Scratch
from batchmill.core.bridge cimport ColdQueue, ColdReplies
from batchmill.core.executor cimport CompletionQueue, ExecutorPool
from batchmill.core.front cimport ColdReply, Limits, Sink
from batchmill.core.histogram cimport Counter
from batchmill.core.message cimport InferRequest
from batchmill.core.pacer cimport Pacer
from batchmill.core.router cimport ModelVersion, RequestStack, RouteTable, ShadowLine
from batchmill.core.tensor cimport MemoryBudget
from batchmill.core.threads cimport pthread_t

cdef extern from "io_thread.hpp" namespace "batchmill" nogil:
    int kMaxIoThreads

    enum class Transport(uint8_t):
        kUnknown, kHttp1, kHttp2

    cdef cppclass ReadingRound:
        pass

    cdef cppclass Ages "batchmill::Backlog::Ages":
        int64_t first_ns, last_ns

    cdef cppclass Backlog:
        int64_t drained_ns
        Ages ages(int64_t read, int64_t waiting, int64_t now_ns, ReadingRound& round)

    cdef cppclass Collecting:
        int64_t until_ns, rested_ns
        void turn_away(const void* version, int64_t predicted_wait_ns)
        void let_in(const void* version, int64_t left_ns, int64_t now_ns)
        void begin_reading(int64_t now_ns)
        void end_turn(int64_t requests, cpp_bool busy, int64_t now_ns)

    cdef cppclass Socket:
        Backlog backlog
        int fd
        Transport transport
        void* front
        cpp_bool reading, waits_to_write, paused, dirty, gone, metrics_only
        uint8_t* sniffed
        int sniffed_size
        int64_t opened_ns, linger_until_ns, linger_left
        char* peer
        Socket* next
        Socket* previous
        Socket* next_dirty

    cdef cppclass Listener:
        int fd
        cpp_bool metrics_only

    cdef cppclass Shared:
        Limits limits
        MemoryBudget budget
        ExecutorPool pool
        ColdQueue cold_queue
        ShadowLine shadows
        atomic[const RouteTable*] table
        atomic[uint64_t] generation
        atomic[cpp_bool] ready, draining, stopping
        atomic[int] drain_step
        atomic[int64_t] connections, in_flight
        atomic[uint64_t]* outcome
        atomic[uint64_t] refused_connections
        vector[Listener] listeners
        int64_t max_connections

    cdef cppclass IoThread:
        Shared* shared
        int index, epoll_fd, wake_fd
        pthread_t thread
        Sink sink
        CompletionQueue completions
        ColdReplies cold_replies
        vector[ColdReply*] cold_parts
        const RouteTable* table
        atomic[uint64_t] seen_generation
        int drain_seen
        cpp_bool accepting
        vector[ModelVersion*] touched
        InferRequest* free_requests
        InferRequest* returned
        RequestStack home
        InferRequest* answered
        InferRequest* answered_last
        int taken_in
        Collecting collecting
        cpp_bool flooded, keeps_up
        ReadingRound round
        Scratch* scratch
        Socket* current
        Socket* sockets
        Socket* dirty
        Pacer pacer
        AccessLog access_log
        int64_t next_tick_ns, busy_since_ns
        uint8_t* buffer

cdef void connect_sink(IoThread* thread) noexcept nogil

# What a request asks for, from its body. False: its status says what is wrong.
cdef bint decode(InferRequest* request) noexcept nogil

# Runs what Python asks for one of its calls (part.kind is kInfer); hand_up() then carries the answer to Python.
cdef void infer_for(IoThread* thread, ColdReply* part) noexcept nogil
cdef void hand_up(IoThread* thread, InferRequest* request) noexcept nogil

# What has come back from the executors: the answered requests, linked by next. Parsed bodies go on to be routed and queued.
cdef InferRequest* take_completions(IoThread* thread) noexcept nogil

# An answer that comes after its caller's deadline, which it has, is none.
cdef void expire(IoThread* thread, InferRequest* request) noexcept nogil

# Whether an answer has been sent to be compressed first: it comes back with the completions. Only for one that answer_coding is set of.
cdef bint compresses(IoThread* thread, InferRequest* request) noexcept nogil

# Runs on this thread, or offers to the pool, what the turn's events queued.
cdef void run_touched(IoThread* thread) noexcept nogil

# Clears requests that shadows have done with and nobody has taken since: large ones hold memory.
cdef void free_returned(IoThread* thread) noexcept nogil

# Counts an answered request, right before its front end sends it.
cdef void count(IoThread* thread, InferRequest* request) noexcept nogil
