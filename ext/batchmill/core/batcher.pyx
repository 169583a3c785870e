"""When to close a batch and how large it may be: pure functions of what waits and what was measured.

plan(): work-conserving, an idle instance starts at once. size_of(): as many rows as wait and are worth while, but no more than the most
urgent of them has time for (SlackFit: SuperServe, NSDI 2025), nor than would keep other models from their turn for too long.
"""

from batchmill.core.histogram import CLOSE_REASONS
from batchmill.core.histogram cimport CloseReason, kPreferredSizes
from batchmill.core.predictor cimport expected_ns, guarded_ns, row_ns

cdef int64_t MANY_ROWS = <int64_t> 1 << 40

cdef int64_t LINGER_SHARE = 64  # 1/64 of the predicted run, 1.6%: what closed-loop callers need to come back
cdef int64_t LINGER_MAX_NS = 4000000
cdef int64_t WAKE_NS = 1000000      # what a thread that waits may be late for, and a request that waited for company would be for nothing
cdef double SHARE_STEP = 0.1
cdef double SHARE_LEAST = 0.25
cdef double SHARE_UP_LEAST = 0.0001  # also where no batch may be late: else one stall would make them small for ever


cdef int64_t preferred_size(int64_t rows, const BatchLimits& limits) noexcept nogil:
    """The largest preferred size that so many rows make; 0: none."""
    cdef int64_t found = 0
    cdef int at
    for at in range(kPreferredSizes):
        if limits.preferred[at] == 0 or limits.preferred[at] > rows or limits.preferred[at] > limits.max_batch_size:
            break
        found = limits.preferred[at]
    return found


cdef Plan plan(int64_t rows, int64_t oldest_ns, int64_t start_by_ns, int64_t now_ns, const BatchLimits& limits,
               LastBatch last) noexcept nogil:
    """Work-conserving, with two exceptions.

    rows: rows waiting, at least 1. oldest_ns: when the first of them was queued.
    max_queue_delay: the oldest row may wait that long for company (Clipper, NSDI 2017, section 4.3: delayed batching), unless the rows make
    a preferred size, or the most urgent would be late, a millisecond included.
    Linger: just after a batch, rows wait for at most 1/64 of the predicted run of all that are expected until those of the batch
    are back too: callers in a closed loop return a moment after their answers, and eight of them would lock into batches of 4, 4 or 1, 7.
    """
    cdef Plan decision
    cdef int64_t until = 0, linger
    decision.close = True
    decision.reason = CloseReason.kIdle
    decision.wait_until_ns = 0
    if rows >= limits.max_batch_size or preferred_size(rows, limits):
        decision.reason = CloseReason.kFull
        return decision
    if limits.draining:
        decision.reason = CloseReason.kDrain
        return decision
    if limits.max_queue_delay_ns:
        until = oldest_ns + limits.max_queue_delay_ns
        decision.reason = CloseReason.kDelay
        if start_by_ns > 0 and start_by_ns - WAKE_NS < until:
            until = start_by_ns - WAKE_NS
            decision.reason = CloseReason.kDeadline
    if rows < last.expected_rows and last.run_ns:
        linger = last.run_ns // LINGER_SHARE
        linger = last.ended_ns + (linger if linger < LINGER_MAX_NS else LINGER_MAX_NS)
        if linger > until:
            until = linger
            decision.reason = CloseReason.kLinger
    if until > now_ns:
        decision.close = False
        decision.wait_until_ns = until
    return decision


cdef int64_t most_rows(int64_t rows, const BatchLimits& limits, const Estimate& known) noexcept nogil:
    """Of those that wait. Where a batch gains next to nothing it only makes its first rows wait for the last: then the knee of the
    curve is enough, until so many wait that all of them are done soonest in the batches that serve most rows a second.
    """
    cdef int64_t most = preferred_size(rows, limits), worth, unsure
    if most:
        return most
    most = limits.max_batch_size
    if known.curve == NULL or known.curve.knee_rows.load() == 0:
        return most
    worth = min(most, known.curve.best_rows.load())
    if rows < 2 * worth:
        worth = min(most, known.curve.knee_rows.load())
    unsure = known.curve.next_rows.load()
    return unsure if worth < unsure <= most else worth


cdef double price_ns(const BatchLimits& limits, const Estimate& known) noexcept nogil:
    cdef int64_t most = most_rows(MANY_ROWS, limits, known)
    return max(row_ns(known), expected_ns(known, most) / <double> most)


cdef int64_t fitting(int64_t rows, const Estimate& known, double time_ns) noexcept nogil:
    cdef int64_t fits = 0, too_many = rows + 1, middle
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if guarded_ns(known, middle) <= time_ns:
            fits = middle
        else:
            too_many = middle
    return fits


cdef Size size_of(int64_t rows, const BatchLimits& limits, const Estimate& known, double slack_ns, double turn_ns) noexcept nogil:
    """slack_ns, turn_ns: below 0: none. Who is late whatever is done is served as those are who have time."""
    cdef Size size
    cdef int64_t fits
    size.rows = most_rows(rows, limits, known)
    size.reason = CloseReason.kFull if rows >= size.rows else CloseReason.kIdle
    if known.curve == NULL or (slack_ns < 0 and turn_ns < 0):
        return size
    rows = min(rows, size.rows)
    if turn_ns >= 0 and guarded_ns(known, rows) > turn_ns:
        rows = size.rows = max(1, fitting(rows, known, turn_ns))
        size.reason = CloseReason.kTurn
    if slack_ns >= 0 and guarded_ns(known, rows) > slack_ns:
        fits = fitting(rows, known, slack_ns)
        if fits:
            size.rows, size.reason = fits, CloseReason.kDeadline
    return size


cdef double moved_share(double share, bint late, double target) noexcept nogil:
    """Stands still on average when a share of 1 - target of the batches is late.

    Source: Robbins and Monro (1951), stochastic approximation, here of a quantile.
    """
    share += -SHARE_STEP * target if late else max(SHARE_UP_LEAST, SHARE_STEP * (1 - target))
    return max(SHARE_LEAST, min(1.0, share))


# For tests.
cdef BatchLimits limits_of(int64_t max_batch_size, int64_t max_queue_delay_ns, preferred, bint draining):
    cdef BatchLimits limits
    cdef int at
    limits.max_batch_size, limits.max_queue_delay_ns, limits.draining = max_batch_size, max_queue_delay_ns, draining
    for at in range(kPreferredSizes):
        limits.preferred[at] = preferred[at] if at < len(preferred) else 0
    return limits


def decide(int64_t rows, int64_t oldest_ns, int64_t start_by_ns, int64_t now_ns, int64_t max_batch_size, int64_t max_queue_delay_ns,
           preferred, bint draining, int64_t expected_rows, int64_t last_ended_ns, int64_t run_ns) -> tuple:
    """plan(): (close, reason, wait_until_ns)."""
    cdef BatchLimits limits = limits_of(max_batch_size, max_queue_delay_ns, preferred, draining)
    cdef LastBatch last = LastBatch(expected_rows, last_ended_ns, run_ns)
    cdef Plan decision = plan(rows, oldest_ns, start_by_ns, now_ns, limits, last)
    return bool(decision.close), CLOSE_REASONS[<int> decision.reason], decision.wait_until_ns


def share_after(double share, bint late, double target) -> float:
    """moved_share()."""
    return moved_share(share, late, target)
