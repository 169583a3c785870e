# The bounded queue of one model version.
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.atomic cimport atomic
from libcpp.vector cimport vector

from batchmill.core.admission cimport Entry, Terms
from batchmill.core.batcher cimport BatchLimits
from batchmill.core.histogram cimport CloseReason
from batchmill.core.message cimport InferRequest
from batchmill.core.predictor cimport RunTimes
from batchmill.core.sub_queues cimport SubQueue

cdef extern from "queue.hpp" namespace "batchmill" nogil:
    cdef cppclass RequestQueue:
        vector[SubQueue] shapes
        uint64_t arrivals
        cbool mixed, has_unpriced
        int64_t latest_ns, newest_ns
        atomic[int64_t] rows
        atomic[int64_t] requests
        atomic[int64_t] oldest_ns
        atomic[int64_t] urgent_ns
        atomic[int64_t] work_ns
        int64_t swept_ns
        atomic[InferRequest*] swept
        atomic[int64_t] max_rows
        atomic[cbool] delays
        atomic[int32_t] priority_levels
        atomic[int32_t] default_priority
        void count(int64_t more_rows, int64_t more_requests, int64_t more_ns)

cdef inline int64_t earlier(int64_t a, int64_t b) noexcept nogil:
    """Of two points in time, of which 0 is none."""
    return a if b == 0 or (a and a < b) else b

# What a batch may be.
cdef struct Rules:
    BatchLimits limits
    RunTimes* times             # NULL: nothing is known about runs
    int first_axis              # that counts for the width of a row; below 0: all rows are equally wide
    double slack_share          # of the time that the most urgent has, what the batch may be predicted to take
    double turn_ns              # until others shall have their turn; below 0: any time

cdef struct Taken:
    InferRequest* batch         # rows that run together, the most urgent first; linked by next
    int64_t rows
    int64_t count
    CloseReason reason          # why there are no more; kIdle: there were no more
    double expected_ns          # its run; 0: unknown
    int width                   # the predictor's class of its rows
    InferRequest* dropped       # expired or cancelled: never to be run; status is set

# Not taken: the request is untouched. Of one that has parts these wait in its place.
cdef Entry put(RequestQueue* queue, InferRequest* request, const Terms& terms, int64_t now_ns) noexcept nogil

# The most urgent request and those of its shape that come next, as many as the rules allow (at least one request).
cdef Taken take(RequestQueue* queue, const Rules& rules, int64_t now_ns) noexcept nogil

# Takes out what nobody waits for any more, linked by next.
cdef InferRequest* sweep(RequestQueue* queue, int64_t now_ns) noexcept nogil

# Whether nobody waits for it any more: cancelled, or its deadline has passed. Then its status says so.
cdef bint is_dead(InferRequest* request, int64_t now_ns) noexcept nogil
