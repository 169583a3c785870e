# The shared pool: takes a batch, runs it, completes it.
from libc.stdint cimport int32_t, int64_t
from libcpp cimport bool as cpp_bool
from libcpp.deque cimport deque
from libcpp.vector cimport vector

from batchmill.core.batch cimport Scratch
from batchmill.core.message cimport InferRequest
from batchmill.core.router cimport ModelVersion
from batchmill.core.tensor cimport MemoryBudget
from batchmill.core.threads cimport pthread_t
from batchmill.core.turns cimport Turns

cdef extern from "executor.hpp" namespace "batchmill" nogil:
    cdef cppclass CompletionQueue:
        InferRequest* head
        int wake_fd
        void push(InferRequest* first, InferRequest* last)
        InferRequest* take()

    cdef cppclass FailedBatch:
        ModelVersion* version
        InferRequest* requests

    cdef cppclass ExecutorPool:
        Turns turns
        deque[InferRequest*] errands
        deque[FailedBatch] failed
        vector[Scratch*] scratches
        vector[pthread_t] threads
        vector[CompletionQueue*] completions
        cpp_bool stopping
        size_t max_body_bytes
        MemoryBudget* budget
        cpp_bool is_busy()
        void lock()
        void unlock()
        void notify()
        void notify_all()
        void wait(int64_t until_ns)

cdef bint start(ExecutorPool* pool, int threads, int first_slot) noexcept nogil
cdef void stop(ExecutorPool* pool) noexcept nogil

# Tells the pool that a version has rows waiting.
cdef void offer(ExecutorPool* pool, ModelVersion* version) noexcept nogil

# Whether no executor knows of a version, or will: nobody may offer it any more.
cdef bint forget(ExecutorPool* pool, ModelVersion* version) noexcept nogil

# Has request.errand done; the request comes back by its completion queue. kDecode: with its status set if it cannot be decoded.
cdef void send_on_errand(ExecutorPool* pool, InferRequest* request) noexcept nogil

# Tells runs that take too long to end. To be called every now and then.
cdef void end_overdue_runs(ExecutorPool* pool, int64_t now) noexcept nogil

# Answers those in a version's queue for whom nobody waits any more, and gives their places free. To be called every now and then.
cdef void sweep_queue(ExecutorPool* pool, ModelVersion* version, int64_t now) noexcept nogil

# Batches of a version that may run at once.
cdef int32_t parallel_of(ExecutorPool* pool, ModelVersion* version) noexcept nogil

# Runs what waits for a version on the calling thread, if that is known to be fast and an instance is free.
# The answered requests (linked by next), or NULL: offer() to the pool what still waits.
cdef InferRequest* run_inline(ExecutorPool* pool, ModelVersion* version, Scratch* scratch) noexcept nogil
