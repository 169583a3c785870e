#!/usr/bin/env python3
"""What a thousand models cost: start, memory and idle time, a request beside that of a server with one, and the answers while scraped.

--models copies of mlp are served, and each is asked once, so that /metrics has all its series. Then, in turns: the server of one
model; that of all; that of all while /metrics and the index are asked for ten times a second.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import answers
import bounds
import limit
import load
import models
import payloads
import report
from processes import Server, batchmill, cpu_secs, stand_back
from startup import memory_mib
from tail import POINT

IDLE_SECS, ASKS, PERIOD_SECS = 5.0, 20, 0.1
READY_SECS = 120.0


def registry_of(folder: Path, count: int) -> Path:
    """mlp, and copies of it."""
    model = models.write(folder / f"registry-{count}", "mlp")
    for number in range(1, count):
        place = model.parents[2] / f"mlp-{number:04}" / "1"
        place.mkdir(parents=True)
        shutil.copy(model, place)
    return model.parents[2]


class Asker:
    """One connection over which cold calls are timed."""

    CALLS = (("GET", "/metrics"), ("POST", "/v2/repository/index"))

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[float, int]:
        """Seconds, and bytes of the answer; RuntimeError when it was refused."""
        start = time.monotonic()
        self._connection.request(method, path, body, headers or {})
        answer = self._connection.getresponse()
        size = len(answer.read())
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status}")
        return time.monotonic() - start, size


@contextlib.contextmanager
def asked(server: Server, core: str, took: list[float]) -> Iterator[None]:
    """Meanwhile both calls are made ten times a second, from the load tool's core and behind it."""
    done = threading.Event()

    def work() -> None:
        stand_back(core)
        asker, due = Asker(server.port), time.monotonic()
        while not done.wait(max(0.0, due - time.monotonic())):
            due += PERIOD_SECS
            took.extend(asker.ask(*call)[0] for call in Asker.CALLS)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def wait_ready(server: Server, start: float) -> float:
    """Seconds from the start until all models are."""
    while time.monotonic() < start + READY_SECS:
        with contextlib.suppress(OSError, RuntimeError, http.client.HTTPException):
            Asker(server.port).ask("GET", "/v2/health/ready")
            return time.monotonic() - start
        time.sleep(0.02)
    raise RuntimeError(f"not ready after {READY_SECS:.0f} s: {server.log.read_text()[-2000:]}")


def use_all(server: Server, count: int) -> None:
    asker = Asker(server.port)
    body, json_bytes = payloads.rest_binary("x", models.row("mlp")["x"])
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(json_bytes)}
    for number in range(1, count):
        asker.ask("POST", f"/v2/models/mlp-{number:04}/infer", body, headers)


def idle_share(server: Server) -> float:
    before = cpu_secs(server.pid)
    time.sleep(IDLE_SECS)
    return (cpu_secs(server.pid) - before) / IDLE_SECS


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, float], dict[str, list[load.Run]]]:
    """Figures of the server of all models, and the runs by what was asked."""
    row = models.row("mlp")
    payloads.write(folder, "mlp", row)
    message = payloads.grpc_message("mlp", row)
    client = load.Client(folder, options.seconds, options.client_core, options.attempts, count_min=options.requests)
    single, all_of_them = registry_of(folder, 1), registry_of(folder, options.models)
    wanted = limit.session_of(single / "mlp" / "1" / "model.onnx").run(None, row)[0]
    figures: dict[str, float] = {}
    runs: dict[str, list[load.Run]] = {"one": [], "all": [], "all, asked": []}
    start = time.monotonic()
    with batchmill("all", all_of_them, options.server_core, folder) as server, batchmill("one", single, options.server_core, folder) as other:
        figures["ready s"] = wait_ready(server, start)
        for each in (server, other):
            answers.check(each, message, wanted)
        time.sleep(2)
        figures["idle %"] = 100 * idle_share(server)
        use_all(server, options.models)
        figures["MiB"], figures["threads"] = memory_mib(server.pid), len(os.listdir(f"/proc/{server.pid}/task"))
        asker = Asker(server.port)
        for call in Asker.CALLS:
            took = [asker.ask(*call) for _ in range(ASKS)]
            figures[f"{call[1]} ms"] = 1000 * statistics.median(secs for secs, _ in took)
            figures[f"{call[1]} slowest ms"] = 1000 * max(secs for secs, _ in took)
            figures[f"{call[1]} MB"] = took[0][1] / 1e6
        figures["idle, all used %"] = 100 * idle_share(server)
        loaded: list[float] = []
        for turn in range(options.rounds):
            for name, runs_of in runs.items():
                with asked(server, options.client_core, loaded) if name == "all, asked" else contextlib.nullcontext():
                    run = client.run(other if name == "one" else server, POINT)
                runs_of.append(run)
                report.progress(turn, name, POINT.name, run, f"{run.cpu_us:.2f} µs, p99.9 {run.p999_us:,.0f} µs")
        figures["under load ms"] = 1000 * statistics.median(loaded)
    return figures, runs


def main() -> int:
    parser = report.parser(__doc__, "many_models", rounds=5, seconds=3.0)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=200_000, help="at least so many in each run")
    options = parser.parse_args()
    report.require("h2load", "taskset")
    with tempfile.TemporaryDirectory(prefix="batchmill-many-") as folder:
        figures, runs = measure(options, Path(folder))
    print(report.table(["figure", "measured"], [[name, f"{value:,.1f}"] for name, value in figures.items()], options.markdown) + "\n")
    medians = {name: load.median(some) for name, some in runs.items()}
    rows = [[name, f"{run.cpu_us:.2f}", f"{run.p50_us:,.0f}", f"{run.p99_us:,.0f}", f"{run.p999_us:,.0f}", report.others_text(runs[name])]
            for name, run in medians.items()]
    print(report.table(["models", "CPU µs", "p50 µs", "p99 µs", "p99.9 µs", "others"], rows, options.markdown))
    ratios = [many.cpu_us / one.cpu_us for one, many in zip(runs["one"], runs["all"], strict=True)]
    promises = bounds.many_models(figures, statistics.median(ratios), medians["all, asked"].p999_us, medians["all"].p999_us)
    return report.finish(options, runs, promises)


if __name__ == "__main__":
    sys.exit(main())
