# The bounded queue of one model version.
from libc.stdint cimport int64_t
from libcpp.atomic cimport atomic

from batchmill.core.message cimport InferRequest

cdef extern from "queue.hpp" namespace "batchmill" nogil:
    cdef cppclass RequestQueue:
        InferRequest* head
        InferRequest* tail
        atomic[int64_t] rows
        atomic[int64_t] requests
        atomic[int64_t] oldest_ns
        atomic[int64_t] max_rows
        void count(int64_t by)

cdef struct Taken:
    InferRequest* batch         # rows that run together, in order of arrival; linked by next
    int64_t rows
    int64_t count
    InferRequest* dropped       # expired or cancelled: never to be run; status is set

# False: full; the request is untouched.
cdef bint put(RequestQueue* queue, InferRequest* request) noexcept nogil

# The head and what follows it with the same shape key, up to max_rows rows (at least one request).
cdef Taken take(RequestQueue* queue, int64_t max_rows, int64_t now_ns) noexcept nogil

# Whether two requests' rows may share a run: same datatypes and the same axes but the first.
cdef bint same_key(const InferRequest* a, const InferRequest* b) noexcept nogil

# Whether nobody waits for it any more: cancelled, or its deadline has passed. Then its status says so.
cdef bint is_dead(InferRequest* request, int64_t now_ns) noexcept nogil
