"""The parts of batching.py that press a server with default settings: overload, a loud neighbour, poisoned rows."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import bounds
import cells
import contenders
import grpc
import limit
import load
import numpy as np
import open_loop
import payloads
import report
from agreement import get, metric
from bounds import Promise
from cells import Bench
from contenders import DEFAULT, Contender, Workload
from open_loop import Generator, Load, Outcome, Segment, Times
from processes import Server, compiled, cpu_secs, free_port, stand_back
from startup import memory_mib

from batchmill.proto import inference_pb2

PARTS = ("overload", "neighbour", "poison")
PATIENCE_SECS = 2.5  # queue.max_wait_ms of the defaults, and time to run: for how long callers without a deadline wait
DEADLINE_MS = 100
CALM_SHARE, BEFORE_SECS, AFTER_SECS = 0.5, 1.0, 3.0  # of capacity around an overload
LOUD, QUIET, LOUD_FACTOR, QUIET_RATE = "convnet", "mlp", 3.0, 500.0
NEIGHBOUR_MS = 5.0  # objective of the quiet model: what a slow generator is measured by
CALLERS, GOOD_REQUESTS, POISON_TOKENS = 16, 600, 16
POISON_LADDER = (0.7, 0.9, 1.1, 1.3)
ECHO_RATE = 100_000.0
FULL = 1.5  # of capacity: where all of the core serves callers without a deadline, and nobody is refused yet
READING_MOST = 0.5  # of the core, for requests at the price of floor_h2: where more goes into reading, nothing is promised
Figures = dict[str, list[Any]]


def run(part: str, options: argparse.Namespace, folder: Path, figures: Figures) -> list[Promise]:
    """Prints a table and adds what was measured to the figures."""
    folder.mkdir()
    match part:
        case "overload":
            return [promise for model in options.models for promise in overload(model, options, folder / model, figures)]
        case "neighbour":
            return neighbour(options, folder, figures)
    return poison(options, folder, figures)


def rows_run(server: Server, model: str) -> float:
    return metric(get(server, "/metrics"), "batchmill_rows_total", f'model="{model}"')


def batch_runs(server: Server, model: str) -> tuple[float, float]:
    """Seconds and number of runs so far."""
    text = get(server, "/metrics")
    sum_, count = (metric(text, f"batchmill_compute_duration_seconds_{what}", f'model="{model}"') for what in ("sum", "count"))
    return sum_, count


def overloaded(server: Server, work: Workload, bench: Bench, capacity: float, factor: float, seed: int) -> tuple[Outcome, dict[str, float], str]:
    """Of an overload: the outcome of what was due in it, its goodput that of what was answered in it; the figures that bounds.OVERLOAD limits;
    and the mark of a disturbed run.

    Without a deadline much of what is due in the overload is answered after it: to count it would make the server faster than it is.
    """
    segments = [Segment(BEFORE_SECS, CALM_SHARE * capacity), Segment(bench.seconds, factor * capacity), Segment(AFTER_SECS, CALM_SHARE * capacity)]
    due, end = open_loop.arrivals(segments, seed), BEFORE_SECS + bench.seconds
    which = open_loop.mixed(len(due), work.weights, seed)

    def once() -> tuple[Load, float]:
        before = rows_run(server, work.model)
        run = bench.generator.run(server, due, work.paths, which, deadline_ms=bench.deadline_ms)
        return run, rows_run(server, work.model) - before

    load_run, rows = cells.least_disturbed(bench.attempts, bench.objective_ms, once)
    results = load_run.results
    outcome = open_loop.evaluate(open_loop.between(results, BEFORE_SECS, end), bench.objective_ms, bench.seconds, deadline_ms=bench.deadline_ms)
    outcome = replace(outcome, goodput=open_loop.delivered(results, bench.objective_ms, BEFORE_SECS, end))
    bins = open_loop.series(results, bench.objective_ms, end + AFTER_SECS)
    figures = {"refusals, p99 ms": outcome.refusal_p99_ms, "late answers, %": 100 * outcome.late,
               "rows run in vain, %": 100 * max(0.0, 1 - int(open_loop.good(results, bench.objective_ms).sum()) / max(rows, 1)),
               "back to normal, s": open_loop.recovery_secs(bins, end)}
    print(f"{work.model}, {factor:g}x: good {outcome.goodput:,.0f}/s, held {load_run.held}, lag {outcome.lag_p99_ms:.2f} ms, "
          f"others {load_run.others:.1%}{cells.mark(load_run, bench.objective_ms)}", file=sys.stderr, flush=True)
    return outcome, figures, cells.mark(load_run, bench.objective_ms)


def echo_secs(work: Workload, generator: Generator, core: str, folder: Path) -> float:
    """CPU time of a request where nothing is done but to read it and to answer."""
    port = free_port()
    with Server("floor_h2", [compiled("floor_h2", folder, "-lnghttp2"), str(port)], port, core, folder / "floor_h2.log") as server:
        due = open_loop.schedule("poisson", ECHO_RATE, 1.0, 1)
        before = cpu_secs(server.pid)
        generator.run(server, due, work.paths[:1])
        return (cpu_secs(server.pid) - before) / len(due)


@dataclass
class Overload:
    """Runs of one case. bests: the best goodput beside each; figures: of each, what bounds.OVERLOAD limits; marks: of disturbed runs."""

    outcomes: list[Outcome] = field(default_factory=list)
    bests: list[float] = field(default_factory=list)
    figures: list[dict[str, float]] = field(default_factory=list)
    marks: set[str] = field(default_factory=set)
    mib: float = 0.0

    def ratio(self) -> float:
        return float(np.median([outcome.goodput / best for outcome, best in zip(self.outcomes, self.bests, strict=True)]))

    def figure(self, name: str) -> float:
        return float(np.median([some[name] for some in self.figures]))

    def row(self, case: str) -> list[str]:
        o = cells.median_of(self.outcomes)
        return [case, f"{o.offered:,.0f}", f"{o.goodput:,.0f}", f"{self.ratio():.2f}", f"{o.refused:.1%}", f"{o.expired:.1%}",
                *(f"{self.figure(name):.2f}" for name in bounds.OVERLOAD), f"{self.mib:,.0f}", "".join(sorted(self.marks))]


def overload(model: str, options: argparse.Namespace, folder: Path, figures: Figures) -> list[Promise]:
    """Callers with a deadline, then without one; the capacity is that with the deadline as objective. Between any two overloads the best is
    measured anew, and counts for both: a virtual machine's core is a quarter faster at one time than at another.

    The best is that at the rate where callers with a deadline get most, or of callers without one at a rate that nobody is refused at yet.
    """
    folder.mkdir()
    work = contenders.workload(folder, model, contenders.LENGTHS if model == "encoder2" else ())
    generator = Generator(folder, options.client_core)
    bench = Bench(generator, "poisson", DEADLINE_MS, options.seconds, options.attempts, deadline_ms=DEADLINE_MS)
    patient = Bench(generator, "poisson", 1000 * PATIENCE_SECS, options.seconds, options.attempts)
    made: dict[tuple[int, float], Overload] = {}  # by deadline and factor
    with contenders.server(Contender(DEFAULT, DEFAULT), {model: work.file}, options.server_core, folder) as server:
        work.check(server)
        start = cells.START_SHARE / (work.row_secs() + cells.REQUEST_SECS["batchmill"])
        found = cells.search(lambda rate: bench.twice(server, work, rate, options.seed), start, options.steps)
        peak = max(found, key=lambda cell: cell.outcome.goodput)
        capacity = cells.carried(found) or peak.outcome.goodput
        figures[f"overload, {model}, capacity"] = found
        factors = list(dict.fromkeys(min(factor, cells.RATE_MOST / capacity) for factor in options.factors))
        reading = capacity * echo_secs(work, generator, options.server_core, folder)

        def best(asked: Bench, seed: int) -> float:
            if asked.deadline_ms:
                return asked.cell(server, work, peak.rate, seed).outcome.goodput
            return overloaded(server, work, asked, capacity, FULL, seed)[0].goodput

        resident = [memory_mib(server.pid)]
        for turn in range(max(2, options.rounds)):  # the second shows what memory an overload needs again
            for asked in (bench, patient):
                bests = [best(asked, options.seed + turn)]
                for factor in factors:
                    outcome, measured, mark = overloaded(server, work, asked, capacity, factor, options.seed + turn)
                    bests.append(best(asked, options.seed + turn))
                    case = made.setdefault((asked.deadline_ms, factor), Overload())
                    case.outcomes.append(outcome)
                    case.bests.append((bests[-2] + bests[-1]) / 2)
                    case.figures.append(measured)
                    case.marks |= {mark} - {""}
                    case.mib = memory_mib(server.pid)
            resident.append(memory_mib(server.pid))
    promises, rows = [], []
    for (deadline_ms, factor), case in made.items():
        name = f"{model}, {factor:.3g}x, {f'deadline {deadline_ms} ms' if deadline_ms else 'no deadline'}"
        figures[f"overload, {name}"] = case.outcomes
        if reading * factor <= READING_MOST:
            measured = {key: case.figure(key) for key in bounds.OVERLOAD}
            promises += bounds.overload(name, case.ratio(), measured, bounds.left_by_reading(factor, reading))
        else:
            case.marks.add(f"  READING ALONE TAKES {reading * factor:.0%}")
        rows.append(case.row(name))
    promises.append(bounds.overload_memory(f"{model}, overload", resident[-1] - resident[-2]))
    head = ["load", "offered/s", "good/s", "of the best beside it", "refused", "expired", *bounds.OVERLOAD, "MiB", ""]
    print(f"{model}: carries {capacity:,.0f}/s, to read and answer them takes {reading:.1%}, {resident[0]:,.0f} MiB before\n")
    print(report.table(head, rows, options.markdown) + "\n", flush=True)
    return promises


def neighbour(options: argparse.Namespace, folder: Path, figures: Figures) -> list[Promise]:
    """The quiet model alone and beside the overloaded one, in turns; each has connections of its own."""
    loud, quiet = (contenders.workload(folder, name) for name in (LOUD, QUIET))
    generator = Generator(folder, options.client_core, wait_secs=PATIENCE_SECS)
    alone: list[Outcome] = []
    beside: list[Outcome] = []
    rate = LOUD_FACTOR / loud.row_secs()
    with contenders.server(Contender(DEFAULT, DEFAULT), {LOUD: loud.file, QUIET: quiet.file}, options.server_core, folder) as server:
        loud.check(server)
        quiet.check(server)
        before = batch_runs(server, LOUD)
        for turn in range(options.rounds):
            quiet_due = open_loop.schedule("poisson", QUIET_RATE, options.seconds, options.seed + turn)
            loud_due = open_loop.schedule("poisson", rate, options.seconds, options.seed + 1000 + turn)
            order = np.argsort(np.concatenate([quiet_due, loud_due]), kind="stable")
            which = (order >= len(quiet_due)).astype(np.uint32)
            both = np.sort(np.concatenate([quiet_due, loud_due]))
            for outcomes, due, chosen in ((alone, quiet_due, None), (beside, both, which)):
                def once(due: Times = due, chosen: np.ndarray | None = chosen) -> tuple[Load, float]:
                    return generator.run(server, due, [*quiet.paths, *loud.paths], chosen, groups=(0, 1)), 0.0

                load_run, _ = cells.least_disturbed(options.attempts, NEIGHBOUR_MS, once)
                results = load_run.results[load_run.results["payload"] == 0]
                outcomes.append(open_loop.evaluate(results, 1000 * PATIENCE_SECS, options.seconds))
                print(f"round {turn + 1}: p99 {outcomes[-1].p99_ms:.2f} ms {'alone' if outcomes is alone else 'beside'}"
                      f"{cells.mark(load_run, NEIGHBOUR_MS)}", file=sys.stderr, flush=True)
        after = batch_runs(server, LOUD)
    batch_ms = 1000 * (after[0] - before[0]) / max(1.0, after[1] - before[1])
    rows = [[name, *(f"{np.median(some):.2f}" for some in zip(*((o.p50_ms, o.p99_ms) for o in outcomes), strict=True)),
             f"{min(o.good_share for o in outcomes):.2%}"]
            for name, outcomes in (("alone", alone), (f"beside {LOUD} at {rate:,.0f}/s", beside))]
    print(report.table([QUIET, "p50 ms", "p99 ms", "answered well, at least"], rows, options.markdown))
    print(f"\na batch of {LOUD}: {batch_ms:.2f} ms\n", flush=True)
    figures |= {"neighbour, alone": alone, "neighbour, beside": beside}
    beside_ms, alone_ms = (float(np.median([outcome.p99_ms for outcome in some])) for some in (beside, alone))
    return bounds.neighbour(f"{QUIET} beside {LOUD}", beside_ms, alone_ms, batch_ms, 1 - min(outcome.good_share for outcome in beside))


def poisoned(row: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A token that the embedding does not have: the run fails, not the check of the request."""
    return {**row, "input_ids": np.full_like(row["input_ids"], 10**6)}


def harmed_of(server: Server, work: Workload, bad: bytes, core: str) -> int:
    """Of 600 good requests those that failed or were answered wrongly, while one caller of sixteen sends poison."""
    (row,), good = work.rows, payloads.grpc_message(work.model, work.rows[0])
    (wanted,) = limit.session_of(work.file).run(None, row)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel, ThreadPoolExecutor(CALLERS, initializer=stand_back, initargs=(core,)) as pool:
        ask = channel.unary_unary(load.METHOD + "ModelInfer", bytes, inference_pb2.ModelInferResponse.FromString)

        def caller(message: bytes, count: int) -> int:
            harmed = 0
            for _ in range(count):
                try:
                    answer = np.frombuffer(ask(message, timeout=30).raw_output_contents[0], wanted.dtype)
                    harmed += not np.allclose(answer, wanted.ravel(), rtol=1e-3, atol=1e-5)
                except grpc.RpcError:
                    harmed += 1
            return harmed

        each = GOOD_REQUESTS // (CALLERS - 1)
        evil = pool.submit(caller, bad, each)
        harmed = sum(future.result() for future in [pool.submit(caller, good, each) for _ in range(CALLERS - 1)])
        if evil.result() != each:
            raise RuntimeError("a poisoned row was answered as if it were a good one")
        return harmed


def poison(options: argparse.Namespace, folder: Path, figures: Figures) -> list[Promise]:
    """Every sixteenth request is poison, or a good one in its place; only the fifteen others count."""
    work = contenders.workload(folder, "encoder2", (POISON_TOKENS,))
    bad = payloads.grpc_message(work.model, poisoned(work.rows[0]))
    (folder / "poison.grpc").write_bytes(payloads.framed(bad))
    generator, rate = Generator(folder, options.client_core, wait_secs=1.0), 1 / (work.row_secs() + 8e-6)
    sides = {"normal": [*work.paths, *work.paths], "poison": [*work.paths, folder / "poison.grpc"]}
    measured: dict[str, dict[float, list[Outcome]]] = {side: {step: [] for step in POISON_LADDER} for side in sides}
    with contenders.server(Contender(DEFAULT, DEFAULT), {work.model: work.file}, options.server_core, folder) as server:
        work.check(server)
        harmed = harmed_of(server, work, bad, options.client_core)
        for turn in range(options.rounds):
            for step in POISON_LADDER:
                due = open_loop.schedule("poisson", step * rate, options.seconds, options.seed + turn)
                which = (np.arange(len(due)) % CALLERS == CALLERS - 1).astype(np.uint32)
                for side, paths in sides.items():
                    def once(due: Times = due, paths: list[Path] = paths, which: np.ndarray = which) -> tuple[Load, float]:
                        return generator.run(server, due, paths, which, deadline_ms=DEADLINE_MS), 0.0

                    load_run, _ = cells.least_disturbed(options.attempts, DEADLINE_MS, once)
                    results = load_run.results[load_run.results["payload"] == 0]
                    outcome = open_loop.evaluate(results, DEADLINE_MS, options.seconds, deadline_ms=DEADLINE_MS)
                    measured[side][step].append(outcome)
                    print(f"round {turn + 1}: {side}, {step * rate:,.0f}/s: good {outcome.goodput:,.0f}/s{cells.mark(load_run, DEADLINE_MS)}",
                          file=sys.stderr, flush=True)
    goodput = {side: {step: float(np.median([o.goodput for o in some])) for step, some in rates.items()} for side, rates in measured.items()}
    rows = [[side, *(f"{value:,.0f}" for value in rates.values())] for side, rates in goodput.items()]
    print(report.table(["good/s at", *(f"{step * rate:,.0f}/s" for step in POISON_LADDER)], rows, options.markdown) + "\n")
    figures |= {f"poison, {side}, {step}x": list(some) for side, rates in measured.items() for step, some in rates.items()}
    return bounds.poison(max(goodput["poison"].values()), max(goodput["normal"].values()), harmed)
