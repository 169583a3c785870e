#!/usr/bin/env python3
"""Measures the server's CPU time a request beside its yardsticks, and holds it against what is promised.

The server is pinned to one core, the load tools to another. Every round asks every point of the server and of its yardsticks
one after the other, so that a slow minute of the machine hits all of them; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import answers
import bounds
import limit
import load
import models
import payloads
import report
from processes import Server, batchmill, compiled, free_port

HERE = Path(__file__).resolve().parent
UNARY = load.METHOD + "ModelInfer"
REST = "/v2/models/mlp/infer"
MESSAGES = payloads.STREAM_MESSAGES
BATCHES = (1, 8, 32)  # of R

POINTS = {point.name: point for point in (
    *(load.Point(f"grpc{c * s}", "h2load", "unary.grpc", UNARY, c, s) for c, s in ((1, 1), (2, 4), (4, 8), (4, 32))),
    load.Point("grpc-each32", "h2load", "unary.grpc", UNARY, 32),  # one in flight on each of 32 connections
    load.Point(f"stream{MESSAGES}", "h2load", "stream.grpc", load.METHOD + "ModelStreamInfer", 1, messages=MESSAGES),
    *(load.Point(f"rest-binary{n}", "wrk", "binary.lua", REST, n) for n in (1, 8, 32, 128)),
    *(load.Point(f"rest-json{n}", "wrk", "json.lua", REST, n) for n in (1, 32)),
)}  # fmt: skip
ORDER = [*(f"row{n}" for n in BATCHES), *POINTS]

Figures = dict[bounds.Key, list[load.Run]]  # a run a round


def server(name: str, folder: Path, model: Path, core: str) -> Server:
    """A server of that name; not started."""
    port = free_port()
    match name:
        case "floor_h2":
            command = [compiled(name, folder, "-lnghttp2"), str(port)]
        case "floor":
            command = [compiled(name, folder), str(port)]
        case "grpcio_echo":
            command = [sys.executable, str(HERE / "yardsticks" / "grpcio_echo.py"), str(port)]
        case bounds.BASELINE:
            command = [sys.executable, str(HERE / "baseline_grpcio.py"), str(model), str(port)]
        case _:
            return batchmill(name, folder / "registry", core, folder)
    return Server(name, command, port, core, folder / f"{name}.log")


def measure(keys: list[bounds.Key], options: argparse.Namespace, folder: Path) -> Figures:
    """All rounds; the servers take turns at every point."""
    model, row = models.write(folder / "registry", "mlp"), models.row("mlp")
    payloads.write(folder, "mlp", row)
    session = limit.session_of(model)
    client = load.Client(folder, options.seconds, options.client_core, options.attempts)
    figures: Figures = {key: [] for key in keys}
    with ExitStack() as stack:
        names = dict.fromkeys(name for name, point in keys if point in POINTS)
        servers = {name: stack.enter_context(server(name, folder, model, options.server_core)) for name in names}
        for name in {bounds.OURS, bounds.BASELINE} & servers.keys():
            answers.check(servers[name], payloads.grpc_message("mlp", row), session.run(None, row)[0])
        for turn in range(options.rounds):
            for name, point in keys:
                if point in POINTS:
                    run = client.run(servers[name], POINTS[point])
                else:
                    feed = limit.batch_of(row, int(point.removeprefix("row")))
                    run = limit.run(session, feed, min(options.seconds, 1), options.server_core, options.attempts)
                figures[name, point].append(run)
                report.progress(turn, name, point, run, f"{run.cpu_us:.2f} µs")
    return figures


def figures_table(figures: Figures, markdown: bool) -> str:
    rows = []
    for (name, point), runs in figures.items():
        run, costs = load.median(runs), [run.cpu_us for run in runs]
        latencies = [f"{us:,.0f}" if us else "" for us in (run.p50_us, run.p99_us)]
        rows.append([name, point, f"{run.cpu_us:.2f}", f"{min(costs):.2f}-{max(costs):.2f}", f"{run.per_sec:,.0f}", *latencies,
                     report.others_text(runs)])
    return report.table(["server", "point", "CPU µs a request", "range", "requests/s", "p50 µs", "p99 µs", "others"], rows, markdown)


def chosen(text: str) -> list[str]:
    names = text.split(",") if text else list(POINTS)
    if unknown := [name for name in names if name not in POINTS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: unknown; there are {', '.join(POINTS)}")
    return names


def main() -> int:
    parser = report.parser(__doc__, "serve", rounds=3, seconds=3.0)
    parser.add_argument("--points", type=chosen, default="", help=f"some of {','.join(POINTS)}, with the yardsticks they need; '' for all")
    parser.add_argument("--baseline", action="store_true", help="measure baseline_grpcio.py as well, at 32 in flight")
    options = parser.parse_args()
    report.require("h2load", "wrk", "cc", "taskset")
    keys = sorted(bounds.needed(options.points, options.baseline), key=lambda key: (ORDER.index(key[1]), key[0]))
    with tempfile.TemporaryDirectory(prefix="batchmill-bench-") as folder:
        figures = measure(keys, options, Path(folder))
    medians = {key: load.median(runs) for key, runs in figures.items()}
    spread = {point: run.p99_us / run.p50_us for (name, point), run in medians.items()
              if name == bounds.OURS and POINTS[point].messages == 1}  # h2load times whole streams
    print(figures_table(figures, options.markdown))
    promises = bounds.judge({key: run.cpu_us for key, run in medians.items()}, spread)
    return report.finish(options, {f"{name} {point}": runs for (name, point), runs in figures.items()}, promises)


if __name__ == "__main__":
    sys.exit(main())
