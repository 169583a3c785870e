# The shared pool: takes a batch, runs it, completes it.
from libc.stdint cimport int64_t
from libcpp cimport bool as cpp_bool
from libcpp.vector cimport vector

from batchmill.core.batch cimport Scratch
from batchmill.core.message cimport InferRequest
from batchmill.core.router cimport ModelVersion

cdef extern from "<pthread.h>" nogil:
    ctypedef unsigned long pthread_t

cdef extern from "executor.hpp" namespace "batchmill" nogil:
    cdef cppclass CompletionQueue:
        InferRequest* head
        int wake_fd
        void push(InferRequest* first, InferRequest* last)
        InferRequest* take()

    cdef cppclass ExecutorPool:
        vector[ModelVersion*] due
        vector[pthread_t] threads
        vector[CompletionQueue*] completions
        cpp_bool stopping
        void lock()
        void unlock()
        void notify()
        void notify_all()
        void wait(int64_t until_ns)

cdef bint start(ExecutorPool* pool, int threads, int first_slot) noexcept nogil
cdef void stop(ExecutorPool* pool) noexcept nogil

# Tells the pool that a version has rows waiting.
cdef void offer(ExecutorPool* pool, ModelVersion* version) noexcept nogil

# Runs what waits for a version on the calling thread, if that is known to be fast and an instance is free.
# The answered requests (linked by next), or NULL: nothing was run here, offer() it to the pool.
cdef InferRequest* run_inline(ExecutorPool* pool, ModelVersion* version, Scratch* scratch) noexcept nogil
