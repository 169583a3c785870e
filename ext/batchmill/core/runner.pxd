# Runs one batch, and what is left of it when it fails.
from libc.stdint cimport int32_t, int64_t

from batchmill.core.batch cimport Scratch
from batchmill.core.message cimport InferRequest
from batchmill.core.queue cimport Taken
from batchmill.core.router cimport ModelVersion

# All requests that were taken, answered or failed, linked by next. On an I/O thread a batch of several that fails comes
# back in failed, untouched, for an executor to rerun.
cdef InferRequest* run_batch(ModelVersion* version, Taken taken, Scratch* scratch, InferRequest** failed) noexcept nogil

# Runs the requests of a failed batch again by halves. All of them, answered or failed, linked by next.
cdef InferRequest* rerun_failed(ModelVersion* version, InferRequest* batch, Scratch* scratch) noexcept nogil

# Tells the run that a thread has in hand to end, if it has taken too long. From any thread.
cdef void end_overdue(Scratch* scratch, int64_t now) noexcept nogil

# Tells a batch when it was gathered, run and written, ns.
cdef void stamp(InferRequest* request, int64_t gathered, int64_t ran, int64_t written) noexcept nogil

# Hold what was predicted of a batch against what came of it: the wait of its first request, and whether it ended in time.
cdef void correct_drift(ModelVersion* version, const InferRequest* first) noexcept nogil
cdef void correct_slack(ModelVersion* version, const Taken& taken, int64_t started) noexcept nogil

# 0, 1, 2 ...: the indices of a run's inputs and outputs.
cdef const int32_t* all_of_them(Scratch* scratch, size_t count) noexcept nogil
