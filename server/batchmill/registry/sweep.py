"""Measures at load what a version gains when all cores share one run of it, where there are cores to share; kept beside what is learned.

Small models never gain, and are not measured. Nor is anything while requests are served: it would disturb them, and they it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from batchmill.backends import LoadedModel
from batchmill.registry.parallel import Measured, Threads, choose, figure
from batchmill.registry.prove import Row, sample, stack
from batchmill.registry.settings import ModelSettings

SMALL_NS = 2e6  # to wake the other threads, for every node of the graph, takes about as long as such a run
LARGE_NS = 1e9  # some of such runs would hold a start up for seconds
SLICE_SECS = 0.075  # four of them: narrow and wide, one row and some
SOME_ROWS = 8
START_SECS = 5.0  # of a start, all models together
QUIET_SECS = 2.0  # what is waited for other loads, and for the endpoints' imports, to end
Load = Callable[[int], LoadedModel]


class Quiet:
    """Lets many load and one measure: while nobody loads."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._loading, self._alone = 0, False

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        with self._change:
            self._change.wait_for(lambda: not self._alone)
            self._loading += 1
        try:
            yield
        finally:
            with self._change:
                self._loading -= 1
                self._change.notify_all()

    @contextlib.contextmanager
    def alone(self, wait_secs: float) -> Iterator[bool]:
        """Inside of loading(). False: others have not ended in time."""
        with self._change:
            self._loading -= 1
            self._change.notify_all()
            got = self._change.wait_for(lambda: not (self._loading or self._alone), wait_secs)
            self._alone = self._alone or got
        try:
            yield got
        finally:
            with self._change:
                if got:
                    self._alone = False
                self._change.wait_for(lambda: not self._alone)
                self._loading += 1
                self._change.notify_all()


class Memory(Protocol):
    """Keeps what was measured of a version beyond the server's end."""

    def measured(self, key: str) -> list[Measured] | None: ...
    def keep_measured(self, key: str, measured: list[Measured]) -> None: ...


@dataclass(frozen=True, slots=True)
class Case:
    """A version that is loaded and warm. version: by which it is remembered. alone_ns: a run of one row; 0: none was made."""

    version: str
    model: LoadedModel
    settings: ModelSettings
    batched: bool
    alone_ns: float


class Sweep:
    """settle() is called by the threads that load, inside of quiet.loading()."""

    def __init__(
        self, executors: int, wide_threads: int, memory: Memory, is_busy: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """wide_threads: 1: there is no wide pool. is_busy: whether requests are served. clock: seconds."""
        self._executors = executors
        self._wide_threads = wide_threads
        self._memory = memory
        self._is_busy = is_busy
        self._clock = clock
        self._spent_secs = 0.0
        self.starting = True
        self.quiet = Quiet()

    def settle(self, case: Case, load: Load) -> tuple[LoadedModel, Threads, float]:
        """The model to serve, the threads of its runs, and what one of one row takes. load: by intra_op_threads, 0 for the wide pool."""
        settings = case.settings
        if settings.intra_op_threads or self._wide_threads == 1 or {*settings.execution_providers} - {"CPUExecutionProvider"}:
            return case.model, Threads(settings.intra_op_threads or 1), case.alone_ns
        if not SMALL_NS <= case.alone_ns <= LARGE_NS:
            why = taking(case.alone_ns) if case.alone_ns else "not measured: it was not warmed up"
            return case.model, Threads(1, False, why), case.alone_ns
        at_once = min(self._executors, settings.tuning.instances or self._executors)
        key = f"{case.version} {at_once}"
        measured, wide, why = self._memory.measured(key), None, ""
        if measured is None:
            measured, wide, why = self._measured(case, at_once, load)
            if measured:
                self._memory.keep_measured(key, measured)
        if measured is None:
            return case.model, Threads(1, False, f"not measured: {why}"), case.alone_ns
        alone_ns = min(case.alone_ns, measured[0].narrow_ns)
        if alone_ns < SMALL_NS:  # its warm-up was disturbed
            return case.model, Threads(1, False, taking(alone_ns)), alone_ns
        threads = choose(measured, self._wide_threads, settings.tuning.latency_ms)
        if threads.wide:
            return wide or load(0), threads, measured[0].wide_ns
        return case.model, threads, alone_ns

    def _measured(self, case: Case, at_once: int, load: Load) -> tuple[list[Measured] | None, LoadedModel | None, str]:
        """What was measured, and the wide session; or why nothing was."""
        if self._is_busy():
            return None, None, "the server is busy"
        if self.starting and self._spent_secs > START_SECS:
            return None, None, f"all models of a start have {START_SECS:g} s for it"
        began = self._clock()
        try:
            with self.quiet.alone(QUIET_SECS) as alone:
                if not alone:
                    return None, None, "others were being loaded"
                wide = load(0)
                measured = [measure(case.model, wide, rows, feed, at_once, self._clock) for rows, feed in feeds_of(case)]
        except (RuntimeError, ValueError) as error:
            return None, None, str(error)
        finally:
            self._spent_secs += self._clock() - began
        return measured, wide, ""


def taking(run_ns: float) -> str:
    return f"a run takes {figure(run_ns / 1e6)} ms"


def feeds_of(case: Case) -> list[tuple[int, Row]]:
    """One row; and as many as fit into a slice, where rows share batches."""
    row, rows = sample(case.model, 1), 1
    while 2 * rows <= min(SOME_ROWS, case.settings.tuning.max_batch_size) and 2 * rows * case.alone_ns <= SLICE_SECS * 1e9:
        rows *= 2
    return [(1, row), (rows, stack([row] * rows))] if case.batched and rows > 1 else [(1, row)]


def measure(
    narrow: LoadedModel, wide: LoadedModel, rows: int, feed: Row, at_once: int, clock: Callable[[], float], secs: float = SLICE_SECS
) -> Measured:
    wide.run(feed)  # allocates
    wide_secs = run_secs(wide, feed, clock, secs)
    with ThreadPoolExecutor(at_once) as pool:
        each = list(pool.map(lambda _: run_secs(narrow, feed, clock, secs), range(at_once)))
    return Measured(rows, sum(each) / at_once * 1e9, sum(rows / one for one in each), wide_secs * 1e9, rows / wide_secs)


def run_secs(model: LoadedModel, feed: Row, clock: Callable[[], float], secs: float) -> float:
    """Of a run, as those took on average that began in that time; one is made at least."""
    began, runs = clock(), 0
    while runs == 0 or clock() - began < secs:
        model.run(feed)
        runs += 1
    return max(clock() - began, 1e-9) / runs
