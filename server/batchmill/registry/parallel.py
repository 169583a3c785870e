"""How many runs of a version go on at once, and how many threads share each: a pure function of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ENOUGH = 0.95  # of narrow's rows a second: so much is given for a latency that is divided by the threads


@dataclass(frozen=True, slots=True)
class Measured:
    """Runs of so many rows at load. Narrow: as many at once as there are instances, a thread each. Wide: one at a time, on all threads."""

    rows: int
    narrow_ns: float  # of one run
    narrow_rows_per_s: float
    wide_ns: float
    wide_rows_per_s: float


@dataclass(frozen=True, slots=True)
class Threads:
    """That share a run. wide: with those of other models. why: what was measured, or why nothing was; empty: there was nothing to choose."""

    count: int = 1
    wide: bool = False
    why: str = ""


def choose(measured: Sequence[Measured], wide_threads: int, latency_ms: float = 0.0) -> Threads:
    """Wide where that serves about as many rows a second at every size that was measured, or where it alone keeps the objective.

    measured: that of the fewest rows first, at least one. latency_ms: the objective; 0: none. A run must leave half of it for the wait.
    """
    least = min(measured, key=lambda one: one.wide_rows_per_s / one.narrow_rows_per_s)
    half_ns = latency_ms * 1e6 / 2
    in_time = bool(latency_ms) and measured[0].wide_ns <= half_ns < measured[0].narrow_ns
    if least.wide_rows_per_s >= ENOUGH * least.narrow_rows_per_s:
        return Threads(wide_threads, True, f"{figure(least.wide_rows_per_s)} rows/s beside {figure(least.narrow_rows_per_s)} narrow")
    if in_time:
        told = f"a run takes {figure(measured[0].wide_ns / 1e6)} ms beside {figure(measured[0].narrow_ns / 1e6)} narrow"
        return Threads(wide_threads, True, f"{told}, of {latency_ms:g} ms")
    return Threads(1, False, f"{figure(least.narrow_rows_per_s)} rows/s beside {figure(least.wide_rows_per_s)} wide")


def figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def told(instances: int, threads: Threads) -> str:
    """Such as "2 instances x 1 thread: 41 rows/s beside 35 wide"."""
    runs = f"{instances} instance{'s' * (instances != 1)} x {threads.count} thread{'s' * (threads.count != 1)}"
    return f"{runs}: {threads.why}" if threads.why else runs
