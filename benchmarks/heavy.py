#!/usr/bin/env python3
"""Heavy models: rows a second of the server beside those of ONNX Runtime in process, one thread each, on the same core.

Eight requests in flight over gRPC, a row each. In process: the better of batches of 1 and of 8. The sides take turns, A B A B.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import answers
import bounds
import limit
import load
import models
import payloads
import report
from processes import batchmill

MODELS = ("encoder", "resnet")
BATCHES = (1, 8)


def measure(name: str, options: argparse.Namespace, folder: Path) -> dict[str, list[load.Run]]:
    """Runs of "in process 1", "in process 8" and "batchmill", one a round."""
    model, row = models.write(folder / "registry", name), models.row(name)
    message = payloads.grpc_message(name, row)
    (folder / f"{name}.grpc").write_bytes(payloads.framed(message))
    point = load.Point(name, "h2load", f"{name}.grpc", load.METHOD + "ModelInfer", connections=2, streams=4)
    client = load.Client(folder, options.seconds, options.client_core, options.attempts)
    session = limit.session_of(model)
    runs: dict[str, list[load.Run]] = {}
    with batchmill("batchmill", folder / "registry", options.server_core, folder) as server:
        answers.check(server, message, session.run(None, row)[0])
        for turn in range(options.rounds):
            for batch in BATCHES:
                run = limit.run(session, limit.batch_of(row, batch), options.seconds, options.server_core, options.attempts)
                runs.setdefault(f"in process {batch}", []).append(run)
                report.progress(turn, f"in process {batch}", name, run, f"{run.per_sec:.1f} rows/s")
            run = client.run(server, point)
            runs.setdefault("batchmill", []).append(run)
            report.progress(turn, "batchmill", name, run, f"{run.per_sec:.1f} rows/s")
    return runs


def judge(name: str, runs: dict[str, list[load.Run]]) -> bounds.Promise:
    rates = {side: load.median(some).per_sec for side, some in runs.items()}
    return bounds.heavy(name, rates.pop("batchmill"), max(rates.values()))


def rows_table(figures: dict[str, dict[str, list[load.Run]]], markdown: bool) -> str:
    rows = []
    for name, runs in figures.items():
        for side, some in runs.items():
            run, rates = load.median(some), [run.per_sec for run in some]
            latencies = [f"{us / 1000:,.1f}" if us else "" for us in (run.p50_us, run.p99_us)]
            rows.append([name, side, f"{run.per_sec:,.1f}", f"{min(rates):,.1f}-{max(rates):,.1f}", *latencies, report.others_text(some)])
    return report.table(["model", "side", "rows/s", "range", "p50 ms", "p99 ms", "others"], rows, markdown)


def main() -> int:
    parser = report.parser(__doc__, "heavy", rounds=9, seconds=3.0)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    options = parser.parse_args()
    report.require("h2load", "taskset")
    figures = {}
    for name in options.models:
        with tempfile.TemporaryDirectory(prefix="batchmill-heavy-") as folder:
            figures[name] = measure(name, options, Path(folder))
    print(rows_table(figures, options.markdown))
    promises = [judge(name, runs) for name, runs in figures.items()]
    return report.finish(options, {f"{name} {side}": some for name, runs in figures.items() for side, some in runs.items()}, promises)


if __name__ == "__main__":
    sys.exit(main())
