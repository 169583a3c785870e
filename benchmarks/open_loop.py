"""Open-loop load: when requests are due, the tool that sends them then, and what has become of them.

Arrivals do not wait for answers, and a latency runs from the time at which a request was due: what a stalled server makes its callers wait is
seen. All but `Generator` are pure functions of numbers.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from load import SHARED_MEMORY, found, pinned
from numpy.typing import NDArray
from processes import Server, Usage, compiled, others

PLANNED = np.dtype([("due_ns", "<u8"), ("payload", "<u4")])
RESULT = np.dtype([("due_ns", "<u8"), ("taken_ns", "<u8"), ("sent_ns", "<u8"), ("done_ns", "<u8"), ("status", "<i4"), ("payload", "<u4")])
OK, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE = 0, 4, 8, 14
BURST_FACTOR, BURST_SECS, BURST_SHARE = 10.0, 0.05, 0.1  # rate of a burst, of that between; its mean length; share of the time
BIN_SECS = 0.1
GOOD_SHARE = 0.99  # of the requests, for a rate to count as carried
RECOVERED_SHARE = 0.95  # of the requests of a bin; less than the above, as a bin has few
LAG_SHARE = 0.1  # of the objective: a generator whose p99 of lag is above says little of the server
BUSY_SHARE = 0.95  # of its core
WAIT_SECS = 5.0

Times = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Segment:
    """A time of one rate."""

    seconds: float
    rate: float


def arrivals(segments: Sequence[Segment], seed: int) -> Times:
    """Due times in ns of a Poisson process whose rate changes from segment to segment. With one seed, other rates only stretch the time."""
    times = np.cumsum([0.0] + [segment.seconds for segment in segments])
    counts = np.cumsum([0.0] + [segment.seconds * segment.rate for segment in segments])
    enough = int(counts[-1] + 10 * counts[-1] ** 0.5 + 10)
    unit = np.cumsum(np.random.default_rng(seed).exponential(1.0, enough))
    due: Times = (np.interp(unit[unit < counts[-1]], counts, times) * 1e9).astype(np.uint64)
    return due


def poisson(rate: float, seconds: float) -> list[Segment]:
    return [Segment(seconds, rate)]


def bursty(rate: float, seconds: float, seed: int) -> list[Segment]:
    """Bursts of exponential length between quiet times of such lengths (a Markov-modulated Poisson process); `rate` is the mean of the whole."""
    random, total = np.random.default_rng([seed, 1]), 0.0
    lengths: list[float] = []
    means = BURST_SECS * (1 - BURST_SHARE) / BURST_SHARE, BURST_SECS
    while total < seconds:
        length = min(float(random.exponential(means[len(lengths) % 2])), seconds - total)
        lengths.append(length)
        total += length
    weights = [BURST_FACTOR if place % 2 else 1.0 for place in range(len(lengths))]
    base = rate * seconds / float(np.dot(lengths, weights))
    return [Segment(length, base * weight) for length, weight in zip(lengths, weights, strict=True)]


def steps(rate: float, seconds: float, levels: Sequence[float] = (1.0, 5.0, 1.0)) -> list[Segment]:
    """Levels of equal length, each so many times the rate."""
    return [Segment(seconds / len(levels), rate * level) for level in levels]


SHAPES = ("poisson", "bursty", "step")


def schedule(shape: str, rate: float, seconds: float, seed: int) -> Times:
    match shape:
        case "poisson":
            return arrivals(poisson(rate, seconds), seed)
        case "bursty":
            return arrivals(bursty(rate, seconds, seed), seed)
        case "step":
            return arrivals(steps(rate, seconds), seed)
    raise ValueError(f"{shape}: unknown; there are {', '.join(SHAPES)}")


def mixed(count: int, weights: Sequence[float], seed: int) -> NDArray[np.uint32]:
    """Which payload each request sends, drawn by weight."""
    shares = np.asarray(weights, float) / sum(weights)
    return np.random.default_rng([seed, 2]).choice(len(shares), count, p=shares).astype(np.uint32)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of requests due in a time. Rates a second; shares of all requests, `late` of those answered OK; latencies in ms since due, of OK answers.

    Good is an answer that is OK and within the objective. Refused: turned away by the server for load, or for a deadline that had not passed
    yet; expired: told that it has. Lag: by how much the generator came late to a request.
    """

    offered: float
    goodput: float
    refused: float
    expired: float
    failed: float  # anything else, and what was never answered
    late: float
    refusal_p99_ms: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    lag_p99_ms: float

    @property
    def good_share(self) -> float:
        return self.goodput / self.offered if self.offered else 0.0


def percentile_ms(latencies_ns: NDArray[np.int64], share: float) -> float:
    """A value that was seen; 0 when there is none."""
    if not len(latencies_ns):
        return 0.0
    place = min(len(latencies_ns) - 1, int(share * len(latencies_ns)))
    return float(np.partition(latencies_ns, place)[place]) / 1e6


def latencies(results: np.ndarray) -> NDArray[np.int64]:
    """In ns since due; of requests without an answer: the largest number."""
    passed = results["done_ns"].astype(np.int64) - results["due_ns"].astype(np.int64)
    return np.where(results["done_ns"] > 0, passed, np.iinfo(np.int64).max)


def good(results: np.ndarray, objective_ms: float) -> NDArray[np.bool_]:
    return np.asarray((results["status"] == OK) & (latencies(results) <= objective_ms * 1e6))


def refused(results: np.ndarray, deadline_ms: float = 0) -> NDArray[np.bool_]:
    """deadline_ms: of the callers; 0: none."""
    unmet = results["status"] == DEADLINE_EXCEEDED
    if deadline_ms:
        unmet &= latencies(results) < deadline_ms * 1e6
    return np.asarray((results["done_ns"] > 0) & (np.isin(results["status"], (RESOURCE_EXHAUSTED, UNAVAILABLE)) | unmet))


def between(results: np.ndarray, begin_secs: float, end_secs: float) -> np.ndarray:
    return results[(results["due_ns"] >= begin_secs * 1e9) & (results["due_ns"] < end_secs * 1e9)]


def delivered(results: np.ndarray, objective_ms: float, begin_secs: float, end_secs: float) -> float:
    """Good answers a second that came in this time, whenever they were due."""
    came = (results["done_ns"] >= begin_secs * 1e9) & (results["done_ns"] < end_secs * 1e9)
    return float((good(results, objective_ms) & came).sum()) / (end_secs - begin_secs)


def evaluate(results: np.ndarray, objective_ms: float, seconds: float, *, deadline_ms: float = 0) -> Outcome:
    """results: those due in a time of so many seconds."""
    count = max(1, len(results))
    passed, fine, turned_away = latencies(results), good(results, objective_ms), refused(results, deadline_ms)
    ok = (results["status"] == OK) & (results["done_ns"] > 0)
    expired = (results["status"] == DEADLINE_EXCEEDED) & (results["done_ns"] > 0) & ~turned_away
    lag = results["taken_ns"].astype(np.int64) - results["due_ns"].astype(np.int64)
    return Outcome(
        offered=len(results) / seconds, goodput=float(fine.sum()) / seconds,
        refused=float(turned_away.sum()) / count, expired=float(expired.sum()) / count,
        failed=float((~ok & ~turned_away & ~expired).sum()) / count, late=float((ok & ~fine).sum()) / max(1, int(ok.sum())),
        refusal_p99_ms=percentile_ms(passed[turned_away], 0.99), p50_ms=percentile_ms(passed[ok], 0.5), p99_ms=percentile_ms(passed[ok], 0.99),
        p999_ms=percentile_ms(passed[ok], 0.999), lag_p99_ms=percentile_ms(np.maximum(lag, 0), 0.99))


def series(results: np.ndarray, objective_ms: float, seconds: float, bin_secs: float = BIN_SECS) -> list[Outcome]:
    """The outcome of each bin of due times."""
    edges = np.arange(0, seconds, bin_secs)
    return [evaluate(between(results, edge, edge + bin_secs), objective_ms, bin_secs) for edge in edges]


def recovery_secs(bins: Sequence[Outcome], drop_secs: float, bin_secs: float = BIN_SECS) -> float:
    """From the end of an overload until the last bin after it in which requests came to harm has passed."""
    first = round(drop_secs / bin_secs)
    harmed = [place for place, outcome in enumerate(bins) if place >= first and outcome.offered and outcome.good_share < RECOVERED_SHARE]
    return (harmed[-1] + 1 - first) * bin_secs if harmed else 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """A run of the tool. held: requests for which no stream was free when they were due; lag: of the tool itself, in us."""

    results: np.ndarray
    started_ns: int
    cpu_secs: float
    held: int
    lost_connections: int
    lag_us: float
    others: float

    def too_slow(self, objective_ms: float) -> bool:
        """The generator was: what it measured is its own. It may come in time to its requests and late to their answers."""
        lag = self.results["taken_ns"].astype(np.int64) - self.results["due_ns"].astype(np.int64)
        busy = self.cpu_secs > BUSY_SHARE * float(self.results["due_ns"].max(initial=0)) / 1e9
        return bool(percentile_ms(lag, 0.99) > LAG_SHARE * objective_ms) or busy


@dataclass
class Generator:
    """The compiled tool on one core. groups: of payloads; each has connections of its own."""

    folder: Path
    core: str
    connections: int = 16
    wait_secs: float = WAIT_SECS
    tool: str = field(init=False)

    def __post_init__(self) -> None:
        self.tool = compiled("open_loop", self.folder, "-lnghttp2")

    def run(self, server: Server, due_ns: Times, payloads: Sequence[Path], which: NDArray[np.uint32] | None = None, *,
            groups: Sequence[int] = (), deadline_ms: int = 0) -> Load:
        """which: payload of each request, the first of all when None."""
        planned = np.zeros(len(due_ns), PLANNED)
        planned["due_ns"], planned["payload"] = due_ns, 0 if which is None else which
        named = [f"{group}:{path}" for group, path in zip(groups or [0] * len(payloads), payloads, strict=True)]
        with tempfile.TemporaryDirectory(dir=SHARED_MEMORY, prefix="open-loop-") as place:
            files = Path(place) / "schedule", Path(place) / "results"
            planned.tofile(files[0])
            command = [self.tool, "-c", str(self.connections), "-w", str(self.wait_secs), "-d", str(deadline_ms), str(server.port)]
            before = Usage.now(server.pid)
            done = subprocess.run(pinned([*command, *map(str, files), *named], self.core), capture_output=True, text=True)
            after = Usage.now(server.pid)
            if done.returncode:
                raise RuntimeError(f"{server.name}: {done.stderr[-1000:]}")
            results = np.fromfile(files[1], RESULT)
        told = dict(re.findall(r"(\w+)=(\S+)", found(r"(.+)", done.stdout)))
        return Load(results, int(told["started_ns"]), float(told["cpu_secs"]), int(told["held"]), int(told["lost"]),
                    float(told["lag_us"]), others(before, after))
