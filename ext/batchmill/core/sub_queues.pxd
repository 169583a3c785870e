# The requests of a queue that wait, by shape.
from libc.stdint cimport int64_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

from batchmill.core.message cimport InferRequest

cdef extern from "sub_queues.hpp" namespace "batchmill" nogil:
    uint64_t shape_hash(const InferRequest* request)
    bint same_shape(const InferRequest* a, const InferRequest* b)

    cdef cppclass Waiting:
        int64_t urgency_ns
        uint64_t number
        int64_t cost_ns
        InferRequest* request
        bint operator<(const Waiting& other)

    cdef cppclass SubQueue:
        uint64_t shape
        cbool alone
        int64_t rows
        vector[Waiting] waiting
        size_t size()
        Waiting& at(size_t index)
        const Waiting& top()
        void push(const Waiting& one)
        void pop()

# NULL: there is none. Valid until one is added or forgotten.
cdef SubQueue* find_sub_queue(vector[SubQueue]& shapes, const InferRequest* request, uint64_t shape) noexcept nogil

cdef SubQueue* add_sub_queue(vector[SubQueue]& shapes, const InferRequest* request, uint64_t shape) noexcept nogil

# But for a few, for the next requests of their shapes.
cdef void forget_empty(vector[SubQueue]& shapes) noexcept nogil

# The sub-queue whose top is; NULL: all are empty.
cdef SubQueue* most_urgent(vector[SubQueue]& shapes) noexcept nogil

# When the one was queued that waits longest; 0: nobody waits. mixed: the order of urgency is not that of arrival.
cdef int64_t oldest(vector[SubQueue]& shapes, bint mixed) noexcept nogil
