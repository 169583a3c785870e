# Who answers in the place of a version that failed, or may not be asked.
from batchmill.core.message cimport InferRequest
from batchmill.core.router cimport RouteTable

cdef enum Taking:
    kNobody     # there is no fallback for such a failure: its status stands
    kAgain      # the request has another version, on lease, whose queue it shall enter
    kAnswered   # by what is constant

# Of a request that named no version, and was refused or failed: gives it to the next of its model's fallbacks, and counts the failure.
# thread: that calls.
cdef Taking take_fallback(const RouteTable* table, InferRequest* request, int thread) noexcept nogil
