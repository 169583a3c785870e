#!/usr/bin/env python3
"""What measuring costs: the CPU time of a request's histograms, counters and clock reads, beside that of the floor's whole request.

The same native calls as in the data plane run in a loop on the server's core, over batches of one size; the loop alone is taken off.
The least of --rounds rounds counts for them, the median for the floor, one epoll thread with a fixed answer (yardsticks/floor.c).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import bounds
import load
import report
import serve

from batchmill.core.probe import record

POINTS = {"rest-binary1": 1, "rest-binary32": 8}  # rows of a batch at that point
REQUESTS = 400_000


def cpu_ns(rows: int, instruments: bool) -> float:
    """A request's, of the loop with or without them."""
    before = time.thread_time_ns()
    record(REQUESTS // rows, rows, instruments)
    return (time.thread_time_ns() - before) / REQUESTS


def cost_us(rows: int, rounds: int) -> float:
    with_them = min(cpu_ns(rows, True) for _ in range(rounds))
    return (with_them - min(cpu_ns(rows, False) for _ in range(rounds))) / 1000


def main() -> int:
    parser = report.parser(__doc__, "instruments", rounds=5, seconds=2.0)
    options = parser.parse_args()
    report.require("wrk", "cc", "taskset")
    with tempfile.TemporaryDirectory(prefix="batchmill-bench-") as folder:
        figures = serve.measure([("floor", point) for point in POINTS], options, Path(folder))
    if options.server_core:
        os.sched_setaffinity(0, {int(options.server_core)})
    costs = {point: cost_us(rows, options.rounds * 4) for point, rows in POINTS.items()}
    promises = [bounds.instruments(point, costs[point], load.median(runs).cpu_us) for (_, point), runs in figures.items()]
    return report.finish(options, {f"floor {point}": runs for (_, point), runs in figures.items()}, promises)


if __name__ == "__main__":
    sys.exit(main())
