# Whether a request is taken in: pure functions of what waits before it and of what was measured.
from libc.stdint cimport int32_t, int64_t

from batchmill.core.predictor cimport Estimate

# What is known when a request asks for a place.
cdef struct Terms:
    Estimate known              # of its rows
    int64_t most_rows           # of a batch
    double row_ns               # of a row in the batches that run when many wait
    int32_t parallel            # batches of its version that run at once
    double busy_ns              # until one of them is expected to end; 0: there is room for another
    double slack_share          # of the time that a batch's most urgent has, what it may be predicted to take
    double drift                # how much longer than predicted those who were served had to wait
    int64_t max_wait_ns         # 0: any

# What waits before it.
cdef struct Ahead:
    int64_t rows
    int64_t alike               # of them, those of its shape: only they can be in one batch with it
    double work_ns              # each at its price when it came

cdef enum Verdict:
    kTaken, kTooMany, kTooLong, kUnmeetable, kHopeless      # kHopeless: not even if nobody were before it

cdef struct Entry:
    Verdict verdict
    int64_t rows_ahead
    bint behind_a_run           # which must end before it has its turn
    double wait_ns, run_ns      # predicted; 0: unknown
    double latest_start_ns, latest_end_ns   # that it hardly exceeds: what those are promised who have a deadline
    double alone_ns             # a run of its rows alone

# Predicts the wait of so many rows and the run of the batch they will be in. timed: they have a deadline or an objective; else only the
# wait is told, and the other times are 0.
cdef Entry predict(int64_t rows, Ahead ahead, const Terms& terms, bint timed) noexcept nogil

# Whether what is predicted fits. start_by_ns, finish_by_ns, budget of an objective: durations from now; 0: none.
cdef Verdict judge(const Entry& entry, Ahead ahead, const Terms& terms, int64_t start_by_ns, int64_t finish_by_ns, int64_t objective_ns,
                   bint fresh) noexcept nogil
