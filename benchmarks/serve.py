#!/usr/bin/env python3
"""Measures the server's CPU time a request beside its yardsticks, and holds it against what is promised.

The server is pinned to one core, the load tools to another. Every round asks every point of the server and of the yardsticks
one after the other, so that a slow minute of the machine hits all of them; figures are medians over the rounds.
Needs h2load and wrk (apt-get install nghttp2-client wrk), a C compiler, libnghttp2's headers, taskset. Exit code 1 with --check when
a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import grpc
import limit
import load
import models
import numpy as np
import payloads
from bounds import bound_us
from processes import Server, free_port

from batchmill.proto import inference_pb2

HERE = Path(__file__).resolve().parent
METHOD = "/inference.GRPCInferenceService/"
REST = "/v2/models/mlp/infer"
IN_FLIGHT = (1, 8, 32, 128)
BATCHES = (1, 8, 32)  # of R
READY_SECS = 60

UNARY = [load.Point(f"grpc {n}", "h2load", "unary.grpc", n, METHOD + "ModelInfer") for n in IN_FLIGHT]
MESSAGES = payloads.STREAM_MESSAGES
STREAM = [load.Point(f"stream {MESSAGES}", "h2load", "stream.grpc", 1, METHOD + "ModelStreamInfer", MESSAGES)]
BINARY = [load.Point(f"rest-binary {n}", "wrk", "binary.lua", n, REST) for n in IN_FLIGHT]
JSON = [load.Point(f"rest-json {n}", "wrk", "json.lua", n, REST) for n in (1, 32)]

Figures = dict[tuple[str, str], list[load.Run]]  # (server, point): a run a round


def compile_yardstick(name: str, folder: Path, *libraries: str) -> str:
    target = folder / name
    subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", str(target), str(HERE / "yardsticks" / f"{name}.c"), *libraries], check=True)
    return str(target)


def servers(folder: Path, model: Path, core: str, baseline: bool) -> dict[Server, list[load.Point]]:
    """What is measured, and with which points."""
    ports = iter([free_port() for _ in range(5)])

    def server(name: str, *command: str) -> Server:
        port = next(ports)
        return Server(name, [part.replace("PORT", str(port)) for part in command], port, core, folder / f"{name}.log")

    found = {
        server("batchmill", sys.executable, "-m", "batchmill", "serve", str(folder / "registry"), "--port", "PORT", "--grpc-port", "0",
               "--state-dir", str(folder / "state"), "--lame-duck-secs", "0"): UNARY + STREAM + BINARY + JSON,
        server("floor_h2", compile_yardstick("floor_h2", folder, "-lnghttp2"), "PORT"): UNARY,
        server("floor", compile_yardstick("floor", folder), "PORT"): BINARY,
        server("grpcio_echo", sys.executable, str(HERE / "yardsticks" / "grpcio_echo.py"), "PORT"): UNARY,
    }
    if baseline:
        found[server("baseline_grpcio", sys.executable, str(HERE / "baseline_grpcio.py"), str(model), "PORT")] = UNARY
    return found


def check_answer(port: int, rows: np.ndarray, wanted: np.ndarray) -> None:
    """Waits until the server answers over gRPC, and fails unless the numbers are ONNX Runtime's own."""
    end = time.monotonic() + READY_SECS
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary(METHOD + "ModelInfer", response_deserializer=inference_pb2.ModelInferResponse.FromString)
        while True:
            try:
                answer = ask(payloads.grpc_message("mlp", "x", rows), timeout=5, wait_for_ready=True)
                break
            except grpc.RpcError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
    np.testing.assert_allclose(np.frombuffer(answer.raw_output_contents[0], np.float32), wanted.ravel(), rtol=1e-4, atol=1e-6)


def measure(targets: dict[Server, list[load.Point]], folder: Path, options: argparse.Namespace) -> Figures:
    """All rounds; the servers take turns at every point."""
    figures: Figures = {}
    points = sorted({point for asked in targets.values() for point in asked}, key=[*UNARY, *STREAM, *BINARY, *JSON].index)
    for turn in range(options.rounds):
        for point in points:
            for server, asked in targets.items():
                if point in asked:
                    run = load.run(server, point, folder, options.secs, options.client_core)
                    figures.setdefault((server.name, point.name), []).append(run)
                    print(f"round {turn + 1}: {server.name:16s} {point.name:16s} {run.cpu_us:8.2f} µs", file=sys.stderr, flush=True)
    return figures


def median(runs: list[load.Run]) -> load.Run:
    return load.Run(*(statistics.median(values) for values in zip(*(asdict(run).values() for run in runs), strict=True)))


def judge(figures: Figures, row_us: dict[int, float]) -> list[dict[str, object]]:
    """A row a server and point, with bound and ratio where one is promised."""
    medians = {key: median(runs) for key, runs in figures.items()}
    table = []
    for (server, point), run in medians.items():
        bound = None
        if server == "batchmill":
            bound = bound_us(point, lambda n: medians["floor_h2", f"grpc {n}"].cpu_us,
                             lambda n: medians["floor", f"rest-binary {n}"].cpu_us, row_us.__getitem__)
        low, high = (pick(r.cpu_us for r in figures[server, point]) for pick in (min, max))
        table.append({"server": server, "point": point, **asdict(run), "cpu_us_min": low, "cpu_us_max": high, "bound_us": bound,
                      "ratio": run.cpu_us / bound if bound else None})
    return table


def report(table: list[dict], row_us: dict[int, float]) -> str:
    lines = ["| server | point | CPU µs a request | range | requests/s | p50 µs | p99 µs | bound µs | of the bound |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row in table:
        bound = f"{row['bound_us']:.2f} | {row['ratio']:.2f}" if row["bound_us"] else " | "
        lines.append(f"| {row['server']} | {row['point']} | {row['cpu_us']:.2f} | {row['cpu_us_min']:.2f}-{row['cpu_us_max']:.2f} | "
                     f"{row['per_sec']:,.0f} | {row['p50_us']:,.0f} | {row['p99_us']:,.0f} | {bound} |")
    limits = ", ".join(f"R({n}) = {us:.2f} µs" for n, us in row_us.items())
    return "\n".join([*lines, "", f"ONNX Runtime in process, a row: {limits}"])


def machine() -> dict[str, object]:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    cpu = next((line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")), platform.processor())
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
            "onnxruntime": limit.onnxruntime.__version__}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--secs", type=float, default=2.0, help="length of one run")
    parser.add_argument("--server-core", default="0", help="core of the servers, '' for any")
    parser.add_argument("--client-core", default="1", help="core of the load tools, '' for any")
    parser.add_argument("--baseline", action="store_true", help="measure baseline_grpcio.py as well")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a bound is broken")
    parser.add_argument("--json", type=Path, default=HERE.parent / "build" / "benchmarks" / "serve.json")
    return parser.parse_args()


def main() -> int:
    options = parse()
    absent = [tool for tool in ("h2load", "wrk", "cc", "taskset") if not shutil.which(tool)]
    if absent:
        print(f"not found: {', '.join(absent)} (apt-get install nghttp2-client wrk build-essential util-linux)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="batchmill-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        model = models.write(folder / "registry", "mlp")
        rows = np.random.default_rng(7).standard_normal((1, 64)).astype(np.float32)
        payloads.write(folder, "mlp", "x", rows)
        session = limit.session_of(model)
        targets = servers(folder, model, options.server_core, options.baseline)
        for server in targets:
            stack.enter_context(server)
        batchmill = next(iter(targets))
        check_answer(batchmill.port, rows, session.run(None, {"x": rows})[0])
        row_us = {n: statistics.median(limit.row_us(session, {"x": np.repeat(rows, n, 0)}, 0.5, options.server_core) for _ in range(3))
                  for n in BATCHES}
        table = judge(measure(targets, folder, options), row_us)
    print(report(table, row_us))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"machine": machine(), "row_us": row_us, "points": table}, indent=1) + "\n")
    broken = [row for row in table if row["ratio"] is not None and float(str(row["ratio"])) > 1]
    for row in broken:
        print(f"over its bound: {row['point']}: {row['cpu_us']:.2f} µs, {row['bound_us']:.2f} promised", file=sys.stderr)
    return 1 if broken and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
