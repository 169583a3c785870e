"""One run of a load tool against one server: requests a second, latencies, and the server's CPU time a request."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from processes import Server, cpu_secs

H2LOAD_CLIENTS = {1: (1, 1), 8: (2, 4), 32: (4, 8), 128: (4, 32)}  # in flight: (connections, streams on each)
UNIT_US = {"us": 1.0, "ms": 1e3, "s": 1e6}
ANSWER_BYTES_MIN = 32  # eight floats: what an answer of mlp holds at least
RUN_SECS_MAX = 120


@dataclass(frozen=True, slots=True)
class Run:
    """cpu_us: of the server, a request (a message on a stream). p50_us, p99_us: as the client saw it."""

    cpu_us: float
    per_sec: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Point:
    """What is asked: tool h2load or wrk; body in the payload folder; requests in flight; messages in one request."""

    name: str
    tool: str
    body: str
    in_flight: int
    path: str
    messages: int = 1


def call(command: list[str], core: str) -> str:
    pinned = ["taskset", "-c", core, *command] if core else command
    done = subprocess.run(pinned, capture_output=True, text=True, timeout=RUN_SECS_MAX)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"no {pattern!r} in what the load tool said: {text[-1500:]}")
    return match[1]


def h2load(server: Server, point: Point, count: int, folder: Path, core: str, log: str = "") -> float:
    """Requests a second over count requests; RuntimeError unless every one succeeded and brought data (gRPC errors have none)."""
    connections, streams = H2LOAD_CLIENTS[point.in_flight]
    text = call(["h2load", "-t", "1", "-c", str(connections), "-m", str(streams), "-n", str(count),
                 "-d", str(folder / point.body), "-H", "content-type: application/grpc", "-H", "te: trailers",
                 *([f"--log-file={log}"] if log else []), f"http://127.0.0.1:{server.port}{point.path}"], core)
    if int(found(r"(\d+) succeeded", text)) != count:
        raise RuntimeError(f"{server.name}, {point.name}: not all succeeded: {text[-1500:]}")
    if int(found(r"\((\d+)\) data", text)) < ANSWER_BYTES_MIN * count * point.messages:
        raise RuntimeError(f"{server.name}, {point.name}: answers without data: {text[-1500:]}")
    return float(found(r"finished in .*?, ([\d.]+) req/s", text))


def run_h2load(server: Server, point: Point, folder: Path, secs: float, core: str) -> Run:
    """A short run finds the rate, a second one of that many requests is measured."""
    rate = h2load(server, point, max(200 // point.messages, 4 * point.in_flight), folder, core)
    rate = h2load(server, point, max(4 * point.in_flight, int(rate * secs / 5)), folder, core)
    count = max(4 * point.in_flight, int(rate * secs))
    with tempfile.NamedTemporaryFile(suffix=".log") as log:
        before = cpu_secs(server.pid)
        rate = h2load(server, point, count, folder, core, log.name)
        used = cpu_secs(server.pid) - before
        times = sorted(int(line.split()[2]) for line in Path(log.name).read_text().splitlines())
    total = count * point.messages
    return Run(used / total * 1e6, rate * point.messages, times[len(times) // 2], times[len(times) * 99 // 100])


def microseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(number) * UNIT_US[unit]


def run_wrk(server: Server, point: Point, folder: Path, secs: float, core: str) -> Run:
    before = cpu_secs(server.pid)
    text = call(["wrk", "-t1", f"-c{point.in_flight}", f"-d{max(1, round(secs))}s", "--latency", "--timeout", "30s",
                 "-s", str(folder / point.body), f"http://127.0.0.1:{server.port}{point.path}"], core)
    used = cpu_secs(server.pid) - before
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"{server.name}, {point.name}: {text[-1500:]}")
    p50, p99 = (microseconds(found(rf"{share}%\s+([\d.]+\w+)", text)) for share in (50, 99))
    return Run(used / int(found(r"(\d+) requests in", text)) * 1e6, float(found(r"Requests/sec:\s+([\d.]+)", text)), p50, p99)


def run(server: Server, point: Point, folder: Path, secs: float, core: str) -> Run:
    return (run_h2load if point.tool == "h2load" else run_wrk)(server, point, folder, secs, core)
