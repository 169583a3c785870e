"""Merges the threads' histograms into what a scrape shows: at most 20 buckets, aligned with the fine ones."""

from libc.stdlib cimport calloc, free

# 2^15 ns (33 us) .. 2^33 ns (8.6 s), powers of two: each is the edge of a fine bucket, so a scrape only sums.
BOUNDS_NS = tuple(2 ** power for power in range(14, 34))


cdef dict merged(const Histogram** parts, int count):
    cdef int part, bucket, coarse = 0
    cdef uint64_t total = 0, sum_ns = 0, at
    cdef list counts = [0] * (len(BOUNDS_NS) + 1)
    for part in range(count):
        sum_ns += (<Histogram*> parts[part]).sum_ns.load()
    for bucket in range(BUCKETS):
        at = 0
        for part in range(count):
            at += (<Histogram*> parts[part]).counts[bucket].load()
        if at:
            coarse = 0
            while coarse < len(BOUNDS_NS) and upper_bound_ns(bucket) > BOUNDS_NS[coarse]:
                coarse += 1
            counts[coarse] += at
            total += at
    return {"count": total, "sum_ns": sum_ns, "bounds_ns": list(BOUNDS_NS), "counts": counts}


def record_all(values_ns) -> dict:
    """The merged snapshot of one histogram that was fed these durations (for tests)."""
    cdef Histogram* one = <Histogram*> calloc(1, sizeof(Histogram))
    cdef const Histogram* parts[1]
    try:
        for value in values_ns:
            one.record(value)
        parts[0] = one
        return merged(parts, 1)
    finally:
        free(one)


def bucket_bounds(int64_t ns) -> tuple:
    """(lower, upper) of the fine bucket that holds a duration."""
    cdef int bucket = bucket_of(ns)
    return (upper_bound_ns(bucket - 1) if bucket else 0, upper_bound_ns(bucket))
