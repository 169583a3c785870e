# When to close a batch and how large it may be: pure functions of what waits and what was measured.
from libc.stdint cimport int32_t, int64_t

from batchmill.core.histogram cimport CloseReason
from batchmill.core.predictor cimport Estimate

cdef struct BatchLimits:
    int64_t max_batch_size              # rows
    int64_t max_queue_delay_ns
    int32_t[8] preferred                # batch sizes, ascending; 0: no more
    bint draining                       # no more requests will come

cdef struct LastBatch:
    int64_t expected_rows               # that may be there soon: its callers and who waited when it ended; 0: no batch yet
    int64_t ended_ns                    # monotonic
    int64_t run_ns                      # predicted time of a run of what is expected

cdef struct Plan:
    bint close                          # run what waits now
    CloseReason reason
    int64_t wait_until_ns               # otherwise: look again then, or when rows arrive

cdef struct Size:
    int64_t rows                        # at most
    CloseReason reason                  # why no more; kIdle: there are no more

# Says whether to close the batch now, or until when to wait. start_by_ns: when the most urgent would be late otherwise; 0: never.
cdef Plan plan(int64_t rows, int64_t oldest_ns, int64_t start_by_ns, int64_t now_ns, const BatchLimits& limits,
               LastBatch last) noexcept nogil

# Says how many of the rows that wait may run together. slack_ns: until the most urgent is late; turn_ns: until others shall have
# their turn.
cdef Size size_of(int64_t rows, const BatchLimits& limits, const Estimate& known, double slack_ns, double turn_ns) noexcept nogil

# The most rows whose run hardly takes longer; 0: not even one does.
cdef int64_t fitting(int64_t rows, const Estimate& known, double time_ns) noexcept nogil

# The share of its most urgent's time that a batch may be predicted to take, after one that had time enough and was late, or was not.
cdef double moved_share(double share, bint late, double target) noexcept nogil

# The largest batch that is worth while.
cdef int64_t most_rows(int64_t rows, const BatchLimits& limits, const Estimate& known) noexcept nogil

# Of a row in the batches that run when very many wait, ns; 0: unknown. Larger ones may have served more, before limits were lowered.
cdef double price_ns(const BatchLimits& limits, const Estimate& known) noexcept nogil

# For tests. preferred: a list.
cdef BatchLimits limits_of(int64_t max_batch_size, int64_t max_queue_delay_ns, preferred, bint draining)
