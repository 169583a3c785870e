"""The slow, obvious twin of the batcher."""

from __future__ import annotations


def decide(
    rows: int, oldest_ns: int, now_ns: int, max_batch_size: int, max_queue_delay_ns: int, expected_rows: int, last_ended_ns: int, run_ns: int
) -> tuple[bool, int]:
    """Every reason to wait is a time; the batch is closed when it is full or the last of these times has passed."""
    if rows >= max_batch_size:
        return True, 0
    times = [0]
    if max_queue_delay_ns:
        times.append(oldest_ns + max_queue_delay_ns)
    if rows < expected_rows and run_ns:
        times.append(last_ended_ns + min(run_ns // 64, 4_000_000))
    return (True, 0) if max(times) <= now_ns else (False, max(times))
