"""The slow, obvious twin of the rolling windows: every event is kept, with its time."""

from __future__ import annotations

import math


def within(events: list[tuple[float, int]], start: float, end: float) -> list[int]:
    """Durations of (time, duration) events after the start, until the end."""
    return sorted(duration for time, duration in events if start < time <= end)


def quantile(durations: list[int], share: float) -> int:
    """The smallest that at least this share of all does not exceed. durations: ascending."""
    return durations[max(0, math.ceil(share * len(durations)) - 1)]
