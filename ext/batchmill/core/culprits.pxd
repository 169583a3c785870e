# How large batches are while some requests make those fail that they are in.
from libc.stdint cimport int64_t

from batchmill.core.predictor cimport Estimate
from batchmill.core.router cimport Culprits

# What has become of so many rows, of which so many requests were guilty.
cdef void note_rows(Culprits* culprits, int64_t rows, int64_t guilty) noexcept nogil

# For how long a batch ran that failed, and what one of its size takes; 0: unknown.
cdef void note_failed_run(Culprits* culprits, double took_ns, double usual_ns) noexcept nogil

# A batch of so many rows failed, and its parts did not: none of them is guilty, it was too large.
cdef void note_too_large(Culprits* culprits, int64_t rows, int64_t now) noexcept nogil

# Sets what the next batches of such rows may have at most.
cdef void limit_rows(Culprits* culprits, const Estimate& known, int64_t max_batch_size, int64_t now) noexcept nogil

# Of up to max_rows, those in a batch that serve a row in the least time, if such a share of rows is guilty and a run that fails takes
# so much of what one takes that does not.
cdef int64_t cheapest_rows(const Estimate& known, int64_t max_rows, double share, double cost) noexcept nogil
