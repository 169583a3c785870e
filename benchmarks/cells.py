"""One server at one rate: measured again when something disturbed it; and the search for the rate that it carries."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import open_loop
from contenders import Workload
from load import OTHERS_MAX
from open_loop import Generator, Load, Outcome
from processes import Server

RATE_MOST = 250_000.0  # what the generator is good for, and some reserve
NEARLY = 0.9  # a share of good requests from which on a second try may carry the rate
DOUBLINGS = 8
START_SHARE = 0.4  # of what one row at a time allows: where a search begins
REQUEST_SECS = {"batchmill": 8e-6, "timer": 4e-4}  # of a request besides its run, about


@dataclass(frozen=True, slots=True)
class Cell:
    """others: share of the machine. too_slow: the generator was, the outcome says little of the server."""

    rate: float
    outcome: Outcome
    others: float
    too_slow: bool

    @property
    def quiet(self) -> bool:
        return self.others < OTHERS_MAX and not self.too_slow

    @property
    def carried(self) -> bool:
        return self.outcome.good_share >= open_loop.GOOD_SHARE


@dataclass
class Bench:
    """Asks a workload of servers, in one shape of load."""

    generator: Generator
    shape: str
    objective_ms: float
    seconds: float
    attempts: int
    deadline_ms: int = 0  # that the callers send; 0: none

    def once(self, server: Server, work: Workload, rate: float, seed: int) -> Cell:
        due = open_loop.schedule(self.shape, rate, self.seconds, seed)
        run = self.generator.run(server, due, work.paths, open_loop.mixed(len(due), work.weights, seed),
                                 deadline_ms=self.deadline_ms)
        outcome = open_loop.evaluate(run.results, self.objective_ms, self.seconds, deadline_ms=self.deadline_ms)
        return Cell(rate, outcome, run.others, run.too_slow(self.objective_ms))

    def cell(self, server: Server, work: Workload, rate: float, seed: int) -> Cell:
        """The first quiet run, or the least disturbed."""
        runs: list[Cell] = []
        while len(runs) < self.attempts and not (runs and runs[-1].quiet):
            runs.append(self.once(server, work, rate, seed))
        kept = min(runs, key=lambda run: (run.too_slow, run.others))
        progress(server.name, self.shape, kept)
        return kept

    def twice(self, server: Server, work: Workload, rate: float, seed: int) -> Cell:
        """A rate that was nearly carried is tried again: one hiccup of the machine is more than a hundredth of a short run."""
        first = self.cell(server, work, rate, seed)
        if first.carried or first.outcome.good_share < NEARLY:
            return first
        return max(first, self.cell(server, work, rate, seed + 1), key=lambda cell: cell.outcome.good_share)


def disturbed(run: Load, objective_ms: float) -> bool:
    return run.others >= OTHERS_MAX or run.too_slow(objective_ms)


def mark(run: Load, objective_ms: float) -> str:
    return "  GENERATOR TOO SLOW" if run.too_slow(objective_ms) else "  DISTURBED" if disturbed(run, objective_ms) else ""


def least_disturbed(attempts: int, objective_ms: float, once: Callable[[], tuple[Load, float]]) -> tuple[Load, float]:
    """The first quiet run and the figure that came with it; after so many attempts without one, those that were disturbed least."""
    runs = [once()]
    while len(runs) < attempts and disturbed(runs[-1][0], objective_ms):
        runs.append(once())
    return min(runs, key=lambda run: (run[0].too_slow(objective_ms), run[0].others))


def progress(server: str, shape: str, cell: Cell) -> None:
    o = cell.outcome
    mark = "  GENERATOR TOO SLOW" if cell.too_slow else "" if cell.quiet else "  DISTURBED"
    print(f"{server:26s} {shape:8s} {cell.rate:10,.0f}/s  good {o.goodput:10,.1f}/s {o.good_share:6.1%}  "
          f"p50 {o.p50_ms:8.2f}  p99 {o.p99_ms:8.2f} ms  refused {o.refused:5.1%}  lag {o.lag_p99_ms:5.2f} ms  others {cell.others:.1%}{mark}",
          file=sys.stderr, flush=True)


def search(measure: Callable[[float], Cell], start: float, steps: int, most: float = RATE_MOST) -> list[Cell]:
    """All cells asked on the way to the highest rate that is carried: doubled or halved from the start, then bisected so many times."""
    cells = [measure(min(start, most))]
    while cells[-1].carried and cells[-1].rate < most and len(cells) <= DOUBLINGS:
        cells.append(measure(min(2 * cells[-1].rate, most)))
    while not any(cell.carried for cell in cells) and len(cells) <= DOUBLINGS:
        cells.append(measure(cells[-1].rate / 2))
    for _ in range(steps):
        low = carried(cells)
        failed = [cell.rate for cell in cells if not cell.carried and cell.rate > low]
        if not low or not failed:
            break
        cells.append(measure((low * min(failed)) ** 0.5))
    return cells


def carried(cells: Sequence[Cell]) -> float:
    """The highest rate of those that were; 0: none was."""
    return max((cell.rate for cell in cells if cell.carried), default=0.0)


def median(cells: Sequence[Cell]) -> Outcome:
    """Figure by figure, over the quiet cells; over all when none was."""
    return median_of([cell.outcome for cell in cells if cell.quiet] or [cell.outcome for cell in cells])


def median_of(chosen: Sequence[Outcome]) -> Outcome:
    return Outcome(*(statistics.median(getattr(outcome, f.name) for outcome in chosen) for f in fields(Outcome)))
