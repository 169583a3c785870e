"""Latencies of the last 10 s, 1 min and 5 min: snapshots of the versions that are asked, and what happened since one of them."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from batchmill.core.histogram import difference
from batchmill.periodic import every

TICK_SECS = 2.0
WINDOWS = {"10s": 10.0, "1m": 60.0, "5m": 300.0}
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
LONGEST_SECS = max(WINDOWS.values())
_APART = ((10.0 + TICK_SECS, 0.0), (70.0 + TICK_SECS, 10.0), (LONGEST_SECS, 60.0))  # up to this age snapshots are kept so far apart
Buckets = Mapping[tuple[int, int], int]


class Source(Protocol):
    """A version, as the data plane counts it."""

    @property
    def answered(self) -> int: ...
    def snapshot(self) -> bytes: ...


@dataclass(slots=True)
class Moment:
    """A snapshot, and from when to when it was all that had happened. Seconds, monotonic."""

    first: float
    last: float
    answered: int
    snapshot: bytes


class Windows:
    """tick() every TICK_SECS. Owned by one thread: that of the event loop."""

    def __init__(self) -> None:
        self._histories: dict[Source, list[Moment]] = {}

    def tick(self, versions: Iterable[Source], now: float) -> None:
        """Remembers where the counts of all versions are. Those that are not among them any more are forgotten."""
        before, self._histories = self._histories, {}
        for version in versions:
            history = self._histories[version] = before.get(version) or [Moment(now, now, 0, b"")]
            if version.answered == history[-1].answered:
                history[-1].last = now
            else:
                history.append(Moment(now, now, version.answered, version.snapshot()))
                history[:] = thinned(history, now)

    async def follow(self, versions: Callable[[], Iterable[Source]]) -> None:
        """Ticks until it is cancelled."""
        await every(TICK_SECS, lambda: self.tick(versions(), time.monotonic()), "windows")

    def read(self, version: Source, now: float, names: Iterable[str] = tuple(WINDOWS)) -> dict[str, dict[str, Any]]:
        """By window: seconds it really covers (a little more, or less when the version is younger), requests, and the stages' latencies."""
        history = self._histories.get(version, [Moment(now, now, 0, b"")])
        newest = version.snapshot()
        found = {}
        for name in names:
            secs = WINDOWS[name]
            base = next((moment for moment in reversed(history) if moment.first <= now - secs), history[0])
            found[name] = told(difference(newest, base.snapshot), now - min(base.last, max(base.first, now - secs)))
        return found


def thinned(history: list[Moment], now: float) -> list[Moment]:
    """The older the further apart; beyond the longest window one alone. history: oldest first."""
    beyond = [moment for moment in history if moment.first <= now - LONGEST_SECS][-1:]
    kept = beyond or history[:1]
    for moment in history[history.index(kept[0]) + 1 :]:
        apart = next(apart for age, apart in _APART if now - moment.first <= age)
        if moment.last - kept[-1].last >= apart:
            kept.append(moment)
    return kept


def told(between: Mapping[str, Any], secs: float) -> dict[str, Any]:
    total: dict[tuple[int, int], int] = {}
    for stage in ("total_grpc", "total_rest"):
        for bounds, count in between["stages"][stage].items():
            total[bounds] = total.get(bounds, 0) + count
    batches = sum(between["stages"]["compute"].values())
    stages = {"total": dict(sorted(total.items())), **between["stages"]}
    return {
        "seconds": round(secs, 1),
        "ok": between["ok"],
        "failed": between["failed"],
        "requests_per_second": round((between["ok"] + between["failed"]) / secs, 2) if secs else 0.0,
        "rows_per_batch": round(between["rows"] / batches, 2) if batches else 0.0,
        "stages": {stage: latencies(buckets) for stage, buckets in stages.items() if buckets},
    }


def latencies(buckets: Buckets) -> dict[str, float]:
    """count, and quantiles in µs."""
    return {"count": sum(buckets.values()), **{f"{name}_us": round(quantile(buckets, share) / 1000, 2) for name, share in QUANTILES.items()}}


def quantile(buckets: Buckets, share: float) -> float:
    """The middle of the bucket that holds it: within 3.2%. buckets: ascending, not empty."""
    wanted = math.ceil(share * sum(buckets.values()))
    seen = itertools.accumulate(buckets.values())
    lower, upper = next(bounds for bounds, count in zip(buckets, seen, strict=True) if count >= wanted)
    return (lower + upper) / 2
