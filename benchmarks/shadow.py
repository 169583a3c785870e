#!/usr/bin/env python3
"""What a shadow of all requests costs those who ask: throughput, latencies and the server's CPU time, beside the same load without it.

Version 2 of a model, with the weights of version 1, runs what version 1 has answered. h2load asks at half of what the server can take, over gRPC and
HTTP/1.1 in turns, for periods with and without the shadow, which take turns, too, and change places from pair to pair.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import bounds
import load
import models
import numpy as np
import payloads
import report
from changes import Paced
from processes import Server, Usage, batchmill, others

SETTLE_SECS = 0.5
ANSWER_BYTES = 32  # eight floats


@dataclass(frozen=True, slots=True)
class Pair:
    """Two periods: rates a second, p99 in µs, CPU in µs a request; shares of the requests that were mirrored and compared; others: of the machine."""

    protocol: str
    rate: float
    shadow_rate: float
    p99_us: float
    shadow_p99_us: float
    cpu_us: float
    shadow_cpu_us: float
    compared: float
    others: float


def call(server: Server, method: str, path: str, body: Any = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    data = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{method} {path}: {answer.status} {data[:300]!r}")
    return json.loads(data)


def figures(server: Server) -> dict[str, int]:
    return dict(call(server, "GET", "/admin/models/mlp/shadow")["shadows"][0]["figures"])


def capacity(server: Server, tool: Paced, core: str) -> float:
    """Requests a second in a closed loop."""
    text = subprocess.run([*tool.command(server.port, core), "-n", "20000"], capture_output=True, text=True, check=True).stdout
    return load.h2load_rate(text, 20000, ANSWER_BYTES)


def period(server: Server, tool: Paced, rate: float, options: argparse.Namespace, log: Path) -> tuple[float, float, float, float, int]:
    """Rate, p99, CPU a request, share of others, requests."""
    log.unlink(missing_ok=True)
    before = Usage.now(server.pid)
    running = tool.start(server.port, options.client_core, rate, options.seconds, log)
    text, _ = running.communicate()
    after = Usage.now(server.pid)
    times = load.times_us(log)
    got = load.h2load_rate(text, len(times), ANSWER_BYTES)
    return got, load.percentile(times, 0.99), (after.server - before.server) / len(times) * 1e6, others(before, after), len(times)


def pair(server: Server, tool: Paced, rate: float, options: argparse.Namespace, log: Path, shadow_first: bool) -> Pair:
    found: dict[bool, tuple[float, float, float, float, int]] = {}
    compared = 0.0
    for shadowed in (shadow_first, not shadow_first):
        if shadowed:
            call(server, "PUT", "/admin/models/mlp/shadow", {"version": "2", "share": 1.0})
        time.sleep(SETTLE_SECS)
        found[shadowed] = period(server, tool, rate, options, log)
        if shadowed:
            told = figures(server)
            compared = told["compared"] / found[True][4]
            if told["agreeing"] != told["compared"] or told["errors"]:
                raise RuntimeError(f"the same weights disagree: {told}")
            call(server, "DELETE", "/admin/models/mlp/shadow")
    (rate_off, p99_off, cpu_off, others_off, _), (rate_on, p99_on, cpu_on, others_on, _) = found[False], found[True]
    return Pair(tool.name, rate_off, rate_on, p99_off, p99_on, cpu_off, cpu_on, compared, max(others_off, others_on))


def measure(options: argparse.Namespace, folder: Path) -> list[Pair]:
    registry = folder / "registry"
    for version in ("1", "2"):
        (registry / "mlp" / version).mkdir(parents=True)
        (registry / "mlp" / version / "model.onnx").write_bytes(models.mlp(128, 64).SerializeToString())
    (registry / "mlp" / "model.yaml").write_text("versions: {policy: all}\n")
    row = models.row("mlp")
    (folder / "grpc").write_bytes(payloads.framed(payloads.grpc_message("mlp", row)))
    (folder / "rest").write_bytes(payloads.rest_json("x", np.asarray(row["x"])))
    tools = [Paced("gRPC", load.METHOD + "ModelInfer", folder / "grpc", ("-H", "content-type: application/grpc", "-H", "te: trailers", "-m", "4")),
             Paced("REST", "/v2/models/mlp/infer", folder / "rest", ("--h1",))]
    pairs: list[Pair] = []
    with batchmill("shadow", registry, options.server_core, folder) as server:
        while sum(one["state"] == "READY" for one in call(server, "POST", "/v2/repository/index", {})) < 2:
            time.sleep(0.05)
        call(server, "POST", "/admin/models/mlp/promote", {"version": "1"})
        rates = {tool: options.load * capacity(server, tool, options.client_core) for tool in tools}
        for turn in range(options.rounds):
            for tool, rate in rates.items():
                for _ in range(options.attempts):
                    made = pair(server, tool, rate, options, folder / "log", bool(turn % 2))
                    if made.others < load.OTHERS_MAX:
                        break
                pairs.append(made)
                told = (f"{made.rate:,.0f}/s, with {made.shadow_rate:,.0f}; p99 {made.p99_us:,.0f} µs, with {made.shadow_p99_us:,.0f}; "
                        f"CPU {made.cpu_us:.2f} µs, with {made.shadow_cpu_us:.2f}; {made.compared:.1%} compared; others {made.others:.1%}")
                print(f"round {turn + 1}: {tool.name:5} {told}", file=sys.stderr, flush=True)
    return pairs


def main() -> int:
    parser = report.parser(__doc__, "shadow", rounds=10, seconds=5.0)
    parser.add_argument("--load", type=float, default=0.5, help="share of the capacity")
    options = parser.parse_args()
    report.require("h2load", "taskset")
    with tempfile.TemporaryDirectory(prefix="batchmill-shadow-") as folder:
        pairs = measure(options, Path(folder))
    rows, ratios = [], {}
    for name in dict.fromkeys(one.protocol for one in pairs):
        some = [one for one in pairs if one.protocol == name]
        middle = {field.name: statistics.median(getattr(one, field.name) for one in some) for field in fields(Pair) if field.name != "protocol"}
        rate = statistics.median(one.shadow_rate / one.rate for one in some)
        p99 = statistics.median(one.shadow_p99_us / one.p99_us for one in some)
        ratios[name] = rate, p99
        rows.append([name, f"{middle['rate']:,.0f}", f"{rate:.3f}", f"{middle['p99_us']:,.0f}", f"{p99:.3f}", f"{middle['cpu_us']:.2f}",
                     f"{middle['shadow_cpu_us']:.2f}", f"{middle['compared']:.1%}"])
    head = ["protocol", "requests/s", "with shadow", "p99 µs", "with shadow", "CPU µs", "with shadow", "compared"]
    print(report.table(head, rows, options.markdown))
    return report.finish(options, {"pairs": pairs}, bounds.shadow(ratios))


if __name__ == "__main__":
    sys.exit(main())
