# When to close a batch: a pure function of what waits and what was measured.
from libc.stdint cimport int64_t

cdef struct BatchLimits:
    int64_t max_batch_size          # rows
    int64_t max_queue_delay_ns

cdef struct LastBatch:
    int64_t expected_rows           # that may be there soon: its callers and who waited when it ended; 0: no batch yet
    int64_t ended_ns                # monotonic
    int64_t run_ns                  # predicted time of a run of what is expected

cdef struct Plan:
    bint close                      # run what waits now
    int64_t wait_until_ns           # otherwise: look again then, or when rows arrive

cdef Plan plan(int64_t rows, int64_t oldest_ns, int64_t now_ns, BatchLimits limits, LastBatch last) noexcept nogil
