"""Says whether to close the batch now, or until when to wait."""

cdef int64_t LINGER_SHARE = 64  # 1/64 of the predicted run, 1.6%: what closed-loop callers need to come back
cdef int64_t LINGER_MAX_NS = 4000000


cdef Plan plan(int64_t rows, int64_t oldest_ns, int64_t now_ns, BatchLimits limits, LastBatch last) noexcept nogil:
    """Work-conserving: an idle instance starts at once, with two exceptions.

    rows: rows waiting, at least 1. oldest_ns: when the first of them was queued.
    max_queue_delay: the oldest row may wait that long for company (Clipper, NSDI 2017, section 4.3: delayed batching).
    Linger: just after a batch, rows wait for at most 1/64 of the predicted run of all that are expected until those of the batch
    are back too: callers in a closed loop return a moment after their answers, and eight of them would lock into batches of 4, 4 or 1, 7.
    """
    cdef Plan decision
    cdef int64_t until = 0, linger
    decision.close = True
    decision.wait_until_ns = 0
    if rows >= limits.max_batch_size:
        return decision
    if limits.max_queue_delay_ns:
        until = oldest_ns + limits.max_queue_delay_ns
    if rows < last.expected_rows and last.run_ns:
        linger = last.run_ns // LINGER_SHARE
        linger = last.ended_ns + (linger if linger < LINGER_MAX_NS else LINGER_MAX_NS)
        until = linger if linger > until else until
    if until > now_ns:
        decision.close = False
        decision.wait_until_ns = until
    return decision


def decide(int64_t rows, int64_t oldest_ns, int64_t now_ns, int64_t max_batch_size, int64_t max_queue_delay_ns,
           int64_t expected_rows, int64_t last_ended_ns, int64_t run_ns) -> tuple:
    """plan() for tests: (close, wait_until_ns)."""
    cdef BatchLimits limits = BatchLimits(max_batch_size, max_queue_delay_ns)
    cdef LastBatch last = LastBatch(expected_rows, last_ended_ns, run_ns)
    cdef Plan decision = plan(rows, oldest_ns, now_ns, limits, last)
    return bool(decision.close), decision.wait_until_ns
