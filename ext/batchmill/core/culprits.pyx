"""How large batches are while some requests make those fail that they are in.

A batch that fails is run again by halves until the guilty are alone. Large batches then fail often, and cost several runs a request;
single requests never do, and cost what no batching costs. Which size is cheapest follows from the share of rows that are guilty, from how
far a run gets before it fails, and from the run times by size: all three are measured. (Of testing blood in groups: Dorfman, The
detection of defective members of large populations, 1943; by halves: Sobel and Groll, 1959.)

Where a batch fails and none of its parts does, it was its size: a graph with a fixed bound, or memory. Batches are smaller for a while.
"""

from batchmill.core.predictor cimport expected_ns

cdef double MEMORY_ROWS = 256           # the share is that of about so many rows of late
cdef double NONE_BELOW = 0.0005
cdef double COST_WEIGHT = 0.125
cdef int64_t SMALL_NS = 10000000000
cdef double GAIN_LEAST = 0.999          # a larger batch must be better, not as good


cdef void note_rows(Culprits* culprits, int64_t rows, int64_t guilty) noexcept nogil:
    cdef double share = culprits.share.load() / (1 + <double> rows / MEMORY_ROWS) + <double> guilty / MEMORY_ROWS
    culprits.share.store(min(1.0, share) if share > NONE_BELOW else 0)


cdef void note_failed_run(Culprits* culprits, double took_ns, double usual_ns) noexcept nogil:
    if usual_ns > 0:
        culprits.cost.store(culprits.cost.load() + (min(1.0, took_ns / usual_ns) - culprits.cost.load()) * COST_WEIGHT)


cdef void note_too_large(Culprits* culprits, int64_t rows, int64_t now) noexcept nogil:
    culprits.small_rows.store(max(1, rows // 2))
    culprits.small_until_ns.store(now + SMALL_NS)


cdef void limit_rows(Culprits* culprits, const Estimate& known, int64_t max_batch_size, int64_t now) noexcept nogil:
    cdef double share = culprits.share.load()
    cdef int64_t most = max_batch_size
    if share > 0:
        most = cheapest_rows(known, most, share, culprits.cost.load())
    if now < culprits.small_until_ns.load():
        most = min(most, culprits.small_rows.load())
    else:
        culprits.small_until_ns.store(0)
    culprits.most_rows.store(most if most < max_batch_size else 0)


cdef int64_t cheapest_rows(const Estimate& known, int64_t max_rows, double share, double cost) noexcept nogil:
    """Half of what is left to do is known of a batch that failed: that not both of its halves are clean. By induction over the size."""
    cdef int64_t size = 1, best_rows = 1
    cdef double clean = 1 - share, run_ns = max(1.0, expected_ns(known, 1)), half_run_ns
    cdef double all_ns = run_ns * (clean + share * cost), best_ns = all_ns
    while 2 * size <= max_rows:
        size *= 2
        half_run_ns, run_ns = run_ns, expected_ns(known, size)
        if run_ns <= 0:
            run_ns = 2 * half_run_ns
        clean *= clean
        all_ns = run_ns * (clean + (1 - clean) * cost) + 2 * all_ns - 2 * clean * half_run_ns
        if all_ns / <double> size < best_ns * GAIN_LEAST:
            best_ns, best_rows = all_ns / <double> size, size
    return best_rows if 2 * best_rows <= max_rows else max_rows
