#!/usr/bin/env python3
"""Do the server's figures agree with its clients'? The same requests, as h2load counted and timed them and as the server tells of them.

--requests go to two copies of a model, half over gRPC and half over HTTP/1.1, in closed loops; a hundredth more, wrong ones, follow.
Counts are those of /metrics and of the v2 statistics. Latencies are those of /v2/models/{m}/latency, beside the client's minus its
transport: the median of the same tool at the same rate for an answer without a model. No core is pinned: where executors share the
core of the I/O thread, requests wait in the kernel for it to read them, which the server cannot see.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import bounds
import load
import models
import payloads
import report
from many_models import wait_ready
from processes import Server, batchmill

CONNECTIONS, STREAMS = 4, 4     # of gRPC; HTTP/1.1 has a connection for each stream
IN_FLIGHT = CONNECTIONS * STREAMS
FRAME_BYTES = 5                 # before a gRPC message
TRANSPORT_REQUESTS = 5000


@dataclass(frozen=True, slots=True)
class Side:
    """One protocol, which has a copy of the model of its name, and what h2load is told."""

    name: str
    path: str
    flags: tuple[str, ...]

    def ask(self, server: Server, core: str, count: int, *flags: str, path: str = "") -> str:
        command = ["h2load", "-t", "1", "-n", str(count), *self.flags, *flags, f"http://127.0.0.1:{server.port}{path or self.path}"]
        return subprocess.run(load.pinned(command, core), check=True, capture_output=True, text=True, timeout=load.RUN_SECS_MAX).stdout


def write_sides(folder: Path) -> tuple[Side, Side]:
    """gRPC and REST; NAME.good and NAME.bad, of a shape that the model does not take, are written to the folder."""
    row = models.row("wide")["x"]
    for kind, rows in (("good", row), ("bad", row[:, :32])):    # the digits of both shapes are as many: one length for both
        (folder / f"grpc.{kind}").write_bytes(payloads.framed(payloads.grpc_message("grpc", {"x": rows})))
        body, json_bytes = payloads.rest_binary("x", rows)
        (folder / f"rest.{kind}").write_bytes(body)
    grpc_flags = "-c", str(CONNECTIONS), "-m", str(STREAMS), "-H", "content-type: application/grpc", "-H", "te: trailers"
    rest_flags = "--h1", "-c", str(IN_FLIGHT), "-H", f"inference-header-content-length: {json_bytes}"
    return Side("grpc", load.METHOD + "ModelInfer", grpc_flags), Side("rest", "/v2/models/rest/infer", rest_flags)


def get(server: Server, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as answer:
        return str(answer.read(), "utf-8")


def metric(text: str, name: str, *labels: str) -> float:
    """The sum of the samples that have these labels."""
    lines = [line for line in text.splitlines() if line.startswith(name + "{") and all(label in line for label in labels)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def counts(server: Server, side: Side, folder: Path, good: int, bad: int) -> dict[str, tuple[float, float]]:
    """(of the client, of the server)."""
    metrics, model = get(server, "/metrics"), f'model="{side.name}"'
    stats = json.loads(get(server, f"/v2/models/{side.name}/stats"))["model_stats"][0]
    sent = good * (folder / f"{side.name}.good").stat().st_size + bad * (folder / f"{side.name}.bad").stat().st_size
    framing = FRAME_BYTES * (good + bad) if side.name == "grpc" else 0
    return {
        f"{side.name}, ok": (good, metric(metrics, "batchmill_requests_total", model, 'outcome="ok"')),
        f"{side.name}, refused": (bad, metric(metrics, "batchmill_requests_total", model, 'outcome="invalid_argument"')),
        f"{side.name}, timed": (good, metric(metrics, "batchmill_request_duration_seconds_count", model)),
        f"{side.name}, rows": (good, metric(metrics, "batchmill_rows_total", model)),
        f"{side.name}, bytes sent": (sent - framing, metric(metrics, "batchmill_request_bytes_total", model)),
        f"{side.name}, statistics' success": (good, stats["inference_stats"]["success"]["count"]),
        f"{side.name}, statistics' fail": (bad, stats["inference_stats"]["fail"]["count"]),
        f"{side.name}, statistics' rows": (good, stats["inference_count"]),
    }


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float, float]]]:
    """Counts of (client, server) and latencies in µs of (client, its transport, server)."""
    model = models.write(folder / "made", "wide")
    both, good, bad = write_sides(folder), options.requests // 2, options.requests // 200
    for side in both:
        (folder / "registry" / side.name / "1").mkdir(parents=True)
        shutil.copy(model, folder / "registry" / side.name / "1")
    with batchmill("agreement", folder / "registry", options.server_core, folder) as server:
        wait_ready(server, time.monotonic())
        core, logs = options.client_core, {side: folder / f"{side.name}.log" for side in both}
        texts = [side.ask(server, core, good, "-d", str(folder / f"{side.name}.good"), f"--log-file={logs[side]}") for side in both]
        rates = [load.h2load_rate(text, good, 0) for text in texts]
        told = {side: json.loads(get(server, f"/v2/models/{side.name}/latency"))["versions"][0]["windows"]["5m"] for side in both}
        latencies = {}
        for side, rate in zip(both, rates, strict=True):
            idle = folder / f"{side.name}.idle"
            each = max(1, round(rate / (CONNECTIONS if side.name == "grpc" else IN_FLIGHT)))
            side.ask(server, core, TRANSPORT_REQUESTS, "--rps", str(each), f"--log-file={idle}", path="/v2/health/live")
            transport, times = load.percentile(load.times_us(idle), 0.5), load.times_us(logs[side])
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                latencies[f"{side.name}, {name}"] = load.percentile(times, share), transport, told[side]["stages"]["total"][f"{name}_us"]
        for side in both:
            side.ask(server, core, bad, "-d", str(folder / f"{side.name}.bad"))
        found = {name: pair for side in both for name, pair in counts(server, side, folder, good, bad).items()}
    return found, latencies


def main() -> int:
    parser = report.parser(__doc__, "agreement", rounds=1, seconds=0.0)
    parser.set_defaults(server_core="", client_core="")
    parser.add_argument("--requests", type=int, default=200_000)
    options = parser.parse_args()
    report.require("h2load", "taskset")
    with tempfile.TemporaryDirectory(prefix="batchmill-agreement-") as folder:
        found, latencies = measure(options, Path(folder))
    rows = [[name, *(f"{value:,.0f}" for value in values)] for name, values in latencies.items()]
    print(report.table(["latency µs", "client", "transport", "server"], rows, options.markdown))
    return report.finish(options, {}, bounds.agreement(found, latencies))


if __name__ == "__main__":
    sys.exit(main())
