# Whether an I/O thread runs a version's batches itself.
from libc.stdint cimport int64_t

from batchmill.core.router cimport InlineRuns

# predicted_ns: of the run that is due. busy: no executor would begin it at once.
cdef bint may_run(InlineRuns* runs, double predicted_ns, bint busy, int64_t now) noexcept nogil

# Whether the thread's own time in the next run is to be told.
cdef bint is_watched(const InlineRuns& runs, int64_t now) noexcept nogil

# After each: by the clock it took took_ns, and, if it was watched, cpu_ns of the thread's own time.
cdef void note_run(InlineRuns* runs, int64_t began, int64_t took_ns, int64_t cpu_ns) noexcept nogil
