"""The slow, obvious twins of the batcher and the histogram."""

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


def merged(values_ns: list[int], bounds_ns: list[int], upper_edge) -> list[int]:
    """Counts per bound: a value counts where the upper edge of its fine bucket falls."""
    counts = [0] * (len(bounds_ns) + 1)
    for value in values_ns:
        edge = upper_edge(value)
        counts[next((i for i, bound in enumerate(bounds_ns) if edge <= bound), len(bounds_ns))] += 1
    return counts
