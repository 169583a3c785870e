#!/usr/bin/env python3
"""The slowest answers while Python is busy: p99.9 at 32 in flight, beside that of a server whose Python is idle.

The busy server has a Python thread that runs bytecode for 20 of every 100 ms (busy_server.py). The two take turns, started anew each time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import answers
import bounds
import limit
import load
import models
import payloads
import report
from processes import Server, batchmill, cpu_secs

BUSY_SERVER = str(Path(__file__).resolve().parent / "busy_server.py")
LAUNCHERS: dict[str, tuple[str, ...]] = {"idle": (), "busy": (BUSY_SERVER,)}
POINT = load.Point("grpc32", "h2load", "unary.grpc", load.METHOD + "ModelInfer", connections=4, streams=8)
WATCH_SECS, SETTLE_SECS = 1.0, 15.0
BUSY_SHARE = 0.05  # of a core, while nothing is asked: an idle server uses less, and the busy one more even on a machine with other work


def wait_settled(server: Server) -> None:
    """Waits until the server's Python is as busy as its name says: start-up is over, and the thread runs."""
    end = time.monotonic() + SETTLE_SECS
    while time.monotonic() < end:
        before = cpu_secs(server.pid)
        time.sleep(WATCH_SECS)
        share = (cpu_secs(server.pid) - before) / WATCH_SECS
        if (share > BUSY_SHARE) == (server.name == "busy"):
            return
    raise RuntimeError(f"the {server.name} server uses {share:.0%} of its core while nothing is asked")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[load.Run]]:
    """Runs of "idle" and "busy", one a round."""
    model, row = models.write(folder / "registry", "mlp"), models.row("mlp")
    payloads.write(folder, "mlp", row)
    message, wanted = payloads.grpc_message("mlp", row), limit.session_of(model).run(None, row)[0]
    client = load.Client(folder, options.seconds, options.client_core, options.attempts, count_min=options.requests)
    runs: dict[str, list[load.Run]] = {side: [] for side in LAUNCHERS}
    for turn in range(options.rounds):
        for side, launcher in LAUNCHERS.items():
            with batchmill(side, folder / "registry", options.server_core, folder, *launcher) as server:
                answers.check(server, message, wanted)
                wait_settled(server)
                run = client.run(server, POINT)
            runs[side].append(run)
            report.progress(turn, side, POINT.name, run, f"p99.9 {run.p999_us:,.0f} µs")
    return runs


def tail_table(figures: dict[str, list[load.Run]], markdown: bool) -> str:
    rows = []
    for side, runs in figures.items():
        run, tails = load.median(runs), [run.p999_us for run in runs]
        rows.append([side, f"{run.p50_us:,.0f}", f"{run.p99_us:,.0f}", f"{run.p999_us:,.0f}", f"{min(tails):,.0f}-{max(tails):,.0f}",
                     f"{run.per_sec:,.0f}", report.others_text(runs)])
    return report.table(["Python", "p50 µs", "p99 µs", "p99.9 µs", "range", "requests/s", "others"], rows, markdown)


def main() -> int:
    parser = report.parser(__doc__, "tail", rounds=5, seconds=3.0)
    parser.add_argument("--requests", type=int, default=200_000, help="at least so many in each run")
    options = parser.parse_args()
    report.require("h2load", "taskset")
    with tempfile.TemporaryDirectory(prefix="batchmill-tail-") as folder:
        runs = measure(options, Path(folder))
    print(tail_table(runs, options.markdown))
    return report.finish(options, runs, [bounds.tail(*(load.median(runs[side]).p999_us for side in ("busy", "idle")))])


if __name__ == "__main__":
    sys.exit(main())
