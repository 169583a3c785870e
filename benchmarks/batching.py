#!/usr/bin/env python3
"""Dynamic batching under open-loop load: the one knob beside no batching, a grid of fixed settings, and the timer batcher of most servers.

Requests come when they are due, Poisson or in bursts, and count from then. Parts: compare (goodput at the objective, lone requests), mixed (texts
of mixed lengths), overload, neighbour (a quiet model beside an overloaded one), poison (rows that make a run fail).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bounds
import cells
import contenders
import load
import pressure
import report
from cells import Bench, Cell
from contenders import DEFAULT, OFF, ONE_KNOB, PADDED, TIMER_OFF, Contender, Workload
from open_loop import SHAPES, Generator

PARTS = ("compare", "mixed", "overload", "neighbour", "poison")
MIXED_KINDS = (OFF, "timer", TIMER_OFF, DEFAULT, ONE_KNOB, PADDED)
LADDER = (0.7, 0.9, 1.0, 1.1, 1.2, 1.3, 2.0)  # of the capacity of the best grid setting
BURSTY_LADDER = (0.7, 1.0, 1.3, 1.6, 2.0, 3.0, 4.0)  # what is carried without a loss is bounded by the bursts: goodput goes on to rise
OWN_LADDER = (OFF, "timer", TIMER_OFF)  # kinds that climb by their own capacity: at the others' rates they only drown
LONE_TURNS = 5  # of a round: short runs beside each other
TIMER_MOST = 1.6  # step of the ladder; it refuses nothing, and what it has not answered delays the next step


@dataclass
class Comparison:
    """Of one model under one shape of load. searched: the way to each contender's capacity; ladder: cells by rate; lone: closed-loop runs."""

    case: str
    searched: dict[Contender, list[Cell]] = field(default_factory=dict)
    ladder: dict[Contender, dict[float, list[Cell]]] = field(default_factory=dict)
    lone: dict[Contender, list[load.Run]] = field(default_factory=dict)

    def finalists(self) -> list[Contender]:
        """Of each kind the one with the greatest capacity."""
        best: dict[str, Contender] = {}
        for contender, some in self.searched.items():
            if contender.kind not in best or cells.carried(some) > cells.carried(self.searched[best[contender.kind]]):
                best[contender.kind] = contender
        return list(best.values())

    def goodput(self, kind: str) -> float:
        """The best of the kind's finalist on its ladder; 0: none was measured."""
        rungs = [cells.median(some).goodput for contender, rates in self.ladder.items() if contender.kind == kind for some in rates.values()]
        return max(rungs, default=0.0)

    def lone_ratio(self, kind: str, to: str) -> float:
        """p50 of a lone request, of that of the other kind; 0: there is none."""
        return load.ratio_beside(*(next((runs for contender, runs in self.lone.items() if contender.kind == one), []) for one in (kind, to)))


def ladder_of(shape: str) -> tuple[float, ...]:
    return LADDER if shape == "poisson" else BURSTY_LADDER


def search_all(made: Comparison, wanted: list[Contender], bench: Bench, work: Workload, options: argparse.Namespace, folder: Path) -> None:
    """The capacity of each contender, one server at a time; a search begins near the capacity of the one before it of its kind."""
    starts: dict[str, float] = {}
    for contender in wanted:
        side = "timer" if contender.timer else "batchmill"
        start = starts.get(contender.kind, cells.START_SHARE / (work.row_secs() + cells.REQUEST_SECS[side]))
        with contenders.server(contender, {work.model: work.file}, options.server_core, folder) as server:
            work.check(server)
            found = cells.search(lambda rate, server=server: bench.twice(server, work, rate, options.seed), start, options.steps)  # type: ignore[misc]
        made.searched[contender] = found
        starts[contender.kind] = 0.8 * cells.carried(found) or start / 4
        print(f"{contender.name}: carries {cells.carried(found):,.0f}/s", file=sys.stderr, flush=True)


def climb(made: Comparison, bench: Bench, work: Workload, options: argparse.Namespace, folder: Path) -> None:
    """The finalists at the same rates, in turns, and one request at a time."""
    finalists = made.finalists()
    carried = {contender.kind: cells.carried(made.searched[contender]) for contender in finalists}
    base = carried.get("grid") or max(carried.values())
    client = load.Client(folder, options.seconds / LONE_TURNS, options.client_core, options.attempts)
    point = load.Point("lone", "h2load", work.paths[0].name, load.METHOD + "ModelInfer", connections=1)
    with ExitStack() as stack:
        servers = {contender: stack.enter_context(contenders.server(contender, {work.model: work.file}, options.server_core, folder / "finals"))
                   for contender in finalists}
        for server in servers.values():
            work.check(server)
        for turn in range(options.rounds):
            for step in ladder_of(bench.shape):
                for contender, server in servers.items():
                    if contender.timer and step > TIMER_MOST:
                        continue
                    own = contender.kind in OWN_LADDER and carried[contender.kind]
                    rate = min(step * (own or base), cells.RATE_MOST)
                    cell = bench.cell(server, work, rate, options.seed + turn)
                    made.ladder.setdefault(contender, {}).setdefault(step, []).append(cell)
            for contender, server in [*servers.items()] * LONE_TURNS:
                run = client.run(server, point)
                made.lone.setdefault(contender, []).append(run)
                report.progress(turn, contender.name, "lone", run, f"{run.p50_us:.1f} µs")


def compare(model: str, shape: str, kinds: tuple[str, ...], options: argparse.Namespace, folder: Path) -> Comparison:
    objective = options.objective_ms or contenders.OBJECTIVES_MS[model]
    made = Comparison(f"{model}, {shape}")
    folder.mkdir()
    work = contenders.workload(folder, model, contenders.LENGTHS if model == "encoder2" else ())
    bench = Bench(Generator(folder, options.client_core, wait_secs=pressure.PATIENCE_SECS), shape, objective, options.seconds, options.attempts)
    wanted = [contender for contender in contenders.contenders(objective, model) if not kinds or contender.kind in kinds]
    if options.contenders:
        wanted = [contender for contender in wanted if contender.kind in options.contenders or contender.name in options.contenders]
    search_all(made, wanted, bench, work, options, folder)
    climb(made, bench, work, options, folder)
    return made


def searched_table(made: Comparison, markdown: bool) -> str:
    rows = [[made.case, contender.name, f"{cells.carried(some):,.0f}", f"{max(cell.outcome.goodput for cell in some):,.0f}"]
            for contender, some in made.searched.items()]
    return report.table(["load", "server", "carries a second", "most goodput seen"], rows, markdown)


def ladder_table(made: Comparison, markdown: bool) -> str:
    rows, all_steps = [], sorted({step for rates in made.ladder.values() for step in rates})
    for contender, rates in made.ladder.items():
        rungs = {step: cells.median(some) for step, some in rates.items()}
        disturbed = sum(not cell.quiet for some in rates.values() for cell in some)
        figures = [f"{rungs[step].goodput:,.0f} ({rungs[step].p99_ms:,.1f})" if step in rungs else "" for step in all_steps]
        rows.append([made.case, contender.name, f"{rates[1.0][0].rate:,.0f}", *figures, f"{max(outcome.goodput for outcome in rungs.values()):,.0f}",
                     f"{load.median(made.lone[contender]).p50_us:,.0f}", f"{disturbed}" if disturbed else ""])
    head = ["goodput (p99 ms)", "server", "1x: requests/s", *(f"{step:g}x" for step in all_steps), "best", "lone p50 µs", "DISTURBED"]
    return report.table(head, rows, markdown)


def judge(made: Comparison, part: str) -> list[bounds.Promise]:
    knob = made.goodput(ONE_KNOB)
    promises = []
    if part == "mixed" and knob and made.goodput("timer"):
        promises.append(bounds.mixed_lengths(made.case, "goodput of the timer", knob, made.goodput("timer")))
        if made.goodput(OFF) and made.goodput(TIMER_OFF):
            promises.append(bounds.mixed_lengths(
                made.case, "the timer's gain over its own without", knob / made.goodput(OFF), made.goodput("timer") / made.goodput(TIMER_OFF)))
    if part == "compare" and knob and made.goodput("grid"):
        promises.append(bounds.one_knob(made.case, knob, made.goodput("grid")))
    if part == "compare":
        lone = {kind: made.lone_ratio(kind, OFF) for kind in (DEFAULT, ONE_KNOB)}
        promises += [bounds.lone(made.case, kind, ratio) for kind, ratio in lone.items() if ratio]
    return promises


def arguments() -> argparse.Namespace:
    parser = report.parser(__doc__, "batching", rounds=3, seconds=3.0)
    parser.add_argument("--parts", "--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--models", "--model", nargs="+", choices=list(contenders.OBJECTIVES_MS), default=list(contenders.OBJECTIVES_MS),
                        help="of compare and overload")
    parser.add_argument("--shapes", "--shape", nargs="+", choices=SHAPES, default=["poisson", "bursty"], help="of compare and mixed")
    parser.add_argument("--contenders", nargs="+", metavar="KIND_OR_NAME", help=f"some: grid, timer, '{OFF}', '{ONE_KNOB}', '16 rows, 0 us', ...")
    parser.add_argument("--objective-ms", type=float, help=f"none: {contenders.OBJECTIVES_MS}")
    parser.add_argument("--steps", type=int, default=4, help="bisections of a search for the capacity")
    parser.add_argument("--factors", nargs="+", type=float, default=[2.0, 5.0, 10.0], help="of overload: times the capacity")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    report.require("h2load", "cc", "taskset")
    promises: list[bounds.Promise] = []
    figures: dict[str, list[Any]] = {}
    compared: dict[tuple[str, str], Comparison] = {}
    with tempfile.TemporaryDirectory(prefix="batchmill-batching-") as place:
        folder = Path(place)
        for part in options.parts:
            for model in {"compare": options.models, "mixed": ["encoder2"]}.get(part, []):
                for shape in options.shapes:
                    if (model, shape) not in compared:
                        made = compare(model, shape, MIXED_KINDS if part == "mixed" else (), options, folder / f"{model}-{shape}")
                        print(searched_table(made, options.markdown) + "\n\n" + ladder_table(made, options.markdown) + "\n", flush=True)
                        compared[model, shape] = made
                    made = compared[model, shape]
                    promises += judge(made, part)
                    figures |= {f"{made.case}, {contender.name}, {step}x": list(some)
                                for contender, rates in made.ladder.items() for step, some in rates.items()}
            if part in pressure.PARTS:
                promises += pressure.run(part, options, folder / part, figures)
    return report.finish(options, figures, promises)


if __name__ == "__main__":
    sys.exit(main())
