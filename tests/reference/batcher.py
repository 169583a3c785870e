"""The slow, obvious twin of the batcher."""

from __future__ import annotations

from collections.abc import Sequence

from reference.predictor import Curve


def preferred_size(rows: int, max_batch_size: int, preferred: Sequence[int]) -> int:
    return max((size for size in preferred if size <= min(rows, max_batch_size)), default=0)


def decide(
    rows: int, oldest_ns: int, start_by_ns: int, now_ns: int, max_batch_size: int, max_queue_delay_ns: int, preferred: Sequence[int],
    draining: bool, expected_rows: int, last_ended_ns: int, run_ns: int,
) -> tuple[bool, str, int]:
    """Every reason to wait is a time; the batch is closed when it is full or the last of these times has passed."""
    if rows >= max_batch_size or preferred_size(rows, max_batch_size, preferred):
        return True, "full", 0
    if draining:
        return True, "drain", 0
    times = [(0, "idle")]
    if max_queue_delay_ns:
        delayed = oldest_ns + max_queue_delay_ns
        start_ns = start_by_ns - 1_000_000  # threads wake late
        times.append((start_ns, "deadline") if start_by_ns > 0 and start_ns < delayed else (delayed, "delay"))
    if rows < expected_rows and run_ns:
        times.append((last_ended_ns + min(run_ns // 64, 4_000_000), "linger"))
    until, reason = times[0]
    for time, why in times[1:]:
        if why != "linger" or time > until:
            until, reason = time, why
    return (True, reason, 0) if until <= now_ns else (False, reason, until)


def most_rows(curve: Curve, rows: int, max_batch_size: int, preferred: Sequence[int]) -> int:
    most = preferred_size(rows, max_batch_size, preferred)
    if most or not curve.knee_rows:
        return most or max_batch_size
    best, knee = min(max_batch_size, curve.best_rows), min(max_batch_size, curve.knee_rows)
    most = best if rows >= 2 * best else knee
    return max(most, curve.next_rows) if curve.next_rows <= max_batch_size else most


def price_ns(curve: Curve, max_batch_size: int, preferred: Sequence[int]) -> float:
    """Of a row in the batches that run when very many wait."""
    most = most_rows(curve, 10**9, max_batch_size, preferred)
    return max(curve.row_ns, curve.expected_ns(most) / most)


def size_of(curve: Curve, rows: int, max_batch_size: int, preferred: Sequence[int], slack_ns: float, turn_ns: float) -> tuple[int, str]:
    """Every size is tried."""
    most = most_rows(curve, rows, max_batch_size, preferred)
    size, reason = most, "full" if rows >= most else "idle"
    if not curve.knots:
        return size, reason
    wanted = min(rows, size)
    for limit, why, least in ((turn_ns, "turn", 1), (slack_ns, "deadline", 0)):
        if limit < 0 or curve.guarded_ns(wanted) <= limit:
            continue
        fits = first_that_does_not_fit(curve, wanted, limit) - 1
        if max(fits, least):
            wanted = size = max(fits, least)
            reason = why
    return size, reason


def share_after(share: float, late: bool, target: float) -> float:
    """Between a quarter and all of it. For each that is late at a target of 99%, 99 that are not make up."""
    step = -target / 10 if late else max((1 - target) / 10, 0.0001)
    return sorted((0.25, share + step, 1.0))[1]


def first_that_does_not_fit(curve: Curve, rows: int, limit_ns: float) -> int:
    """Measured curves may fall somewhere: of several such sizes it is the one that halving finds."""
    too_slow = [size for size in range(1, rows + 1) if curve.guarded_ns(size) > limit_ns]
    first = min(too_slow, default=rows + 1)
    if len(too_slow) == rows + 1 - first:
        return first
    fits, found = 0, rows + 1
    while found - fits > 1:
        middle = (fits + found) // 2
        fits, found = (fits, middle) if middle in too_slow else (middle, found)
    return found
