# The bounded queue of one model version.
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.atomic cimport atomic
from libcpp.vector cimport vector

from batchmill.core.message cimport InferRequest

cdef extern from "queue.hpp" namespace "batchmill" nogil:
    cdef cppclass Waiting:
        int64_t urgency_ns
        uint64_t number
        InferRequest* request
        bint operator<(const Waiting& other)

    cdef cppclass SubQueue:
        uint64_t shape
        cbool alone
        size_t size()
        const Waiting& at(size_t index)
        const Waiting& top()
        void push(const Waiting& one)
        void pop()

    cdef cppclass RequestQueue:
        vector[SubQueue] shapes
        uint64_t arrivals
        cbool mixed
        atomic[int64_t] rows
        atomic[int64_t] requests
        atomic[int64_t] oldest_ns
        atomic[int64_t] urgent_ns
        atomic[int64_t] max_rows
        atomic[int32_t] priority_levels
        atomic[int32_t] default_priority
        void count(int64_t more_rows, int64_t more_requests)

cdef struct Taken:
    InferRequest* batch         # rows that run together, the most urgent first; linked by next
    int64_t rows
    int64_t count
    InferRequest* dropped       # expired or cancelled: never to be run; status is set

# False: full; the request is untouched.
cdef bint put(RequestQueue* queue, InferRequest* request) noexcept nogil

# The most urgent request and those of its shape that come next, up to max_rows rows (at least one request).
cdef Taken take(RequestQueue* queue, int64_t max_rows, int64_t now_ns) noexcept nogil

# Whether two requests' rows may share a run: same datatypes and the same axes but the first.
cdef bint same_key(const InferRequest* a, const InferRequest* b) noexcept nogil

# Whether nobody waits for it any more: cancelled, or its deadline has passed. Then its status says so.
cdef bint is_dead(InferRequest* request, int64_t now_ns) noexcept nogil
