"""One run of a load tool against one server: requests a second, latencies, and the server's CPU time a request."""

from __future__ import annotations

import math
import re
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from processes import Server, Usage, others

METHOD = "/inference.GRPCInferenceService/"
ANSWER_BYTES_MIN = 32  # eight floats: what an answer of mlp holds at least
OTHERS_MAX = 0.03  # of the machine: above it a run says little
RUN_SECS_MAX = 300
SHARED_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # h2load's log costs no disk writes there


@dataclass(frozen=True, slots=True)
class Run:
    """cpu_us: of the server, a request (a message on a stream). others: share of the machine. Latencies: as the client saw them."""

    cpu_us: float
    per_sec: float
    others: float
    p50_us: float = 0.0
    p99_us: float = 0.0
    p999_us: float = 0.0

    @property
    def quiet(self) -> bool:
        return self.others < OTHERS_MAX


@dataclass(frozen=True, slots=True)
class Point:
    """What is asked: tool h2load or wrk; body in the payload folder; streams at once on each connection; messages in a request."""

    name: str
    tool: str
    body: str
    path: str
    connections: int
    streams: int = 1
    messages: int = 1

    @property
    def in_flight(self) -> int:
        return self.connections * self.streams


def median(runs: Sequence[Run]) -> Run:
    """Figure by figure, over the quiet runs; over all when none was."""
    chosen = [run for run in runs if run.quiet] or runs
    return Run(*(statistics.median(getattr(run, f.name) for run in chosen) for f in fields(Run)))


def ratio_beside(runs: Sequence[Run], beside: Sequence[Run]) -> float:
    """The median of the p50 of each run over that of the one beside it: from second to second a machine differs more than servers do. 0: none."""
    return statistics.median(run.p50_us / other.p50_us for run, other in zip(runs, beside, strict=True)) if runs and beside else 0.0


def quietest(attempts: int, run: Callable[[], Run]) -> Run:
    """The first quiet run; after so many attempts without one, that which was disturbed least."""
    runs: list[Run] = []
    while len(runs) < attempts and not (runs and runs[-1].quiet):
        runs.append(run())
    return min(runs, key=lambda run: run.others)


def percentile(ordered: Sequence[int], share: float) -> float:
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))])


def times_us(log: Path) -> list[int]:
    """Of the requests in h2load's log, ordered."""
    return sorted(int(line.split()[2]) for line in log.read_text().splitlines())


def pinned(command: list[str], core: str) -> list[str]:
    """core: '' for any."""
    return ["taskset", "-c", core, *command] if core else command


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"no {pattern!r} in what the load tool said: {text[-1500:]}")
    return match[1]


def h2load_rate(text: str, count: int, answer_bytes: int) -> float:
    """Requests a second; RuntimeError unless all succeeded and brought data: h2load counts HTTP's statuses, and gRPC's errors have no data."""
    if int(found(r"(\d+) succeeded", text)) != count:
        raise RuntimeError(f"not all succeeded: {text[-1500:]}")
    if int(found(r"\((\d+)\) data", text)) < count * answer_bytes:
        raise RuntimeError(f"answers without data: {text[-1500:]}")
    return float(found(r"finished in .*?, ([\d.]+) req/s", text))


def wrk_result(text: str) -> dict[str, float]:
    """The line of numbers that the script of payloads.py prints; RuntimeError when a request failed."""
    result = {name: float(value) for name, value in re.findall(r"(\w+)=(-?[\d.]+)", found(r"RESULT (.*)", text))}
    if result["non2xx"] or result["errors"]:
        raise RuntimeError(f"not all succeeded: {text[-1500:]}")
    return result


@dataclass
class Client:
    """The load tools on one core. rates: requests a second of (server, point), learnt by a warm-up before the first run."""

    payloads: Path
    seconds: float
    core: str
    attempts: int
    count_min: int = 0
    rates: dict[tuple[str, str], float] = field(default_factory=dict)

    def run(self, server: Server, point: Point) -> Run:
        """One run in which other processes used little, if `attempts` bring one."""
        once = self.h2load if point.tool == "h2load" else self.wrk
        try:
            return quietest(self.attempts, lambda: once(server, point))
        except RuntimeError as error:
            raise RuntimeError(f"{server.name}, {point.name}: {error}") from None

    def h2load(self, server: Server, point: Point) -> Run:
        def once(count: int, log: str = "") -> float:
            text = self.call([
                "h2load", "-t", "1", "-c", str(point.connections), "-m", str(point.streams), "-n", str(count),
                "-d", str(self.payloads / point.body), "-H", "content-type: application/grpc", "-H", "te: trailers",
                *([f"--log-file={log}"] if log else []), f"http://127.0.0.1:{server.port}{point.path}"])
            return h2load_rate(text, count, ANSWER_BYTES_MIN * point.messages)

        def full(seconds: float) -> int:  # whole turns: no batch is cut short at the end
            return math.ceil(self.rates[key] * seconds / point.in_flight) * point.in_flight

        key = server.name, point.name
        if key not in self.rates:
            self.rates[key] = once(point.in_flight)
            self.rates[key] = once(full(self.seconds / 3))
        count = max(2 * point.in_flight, full(self.seconds), self.count_min)
        with tempfile.NamedTemporaryFile(dir=SHARED_MEMORY, suffix=".h2load") as log:
            before = Usage.now(server.pid)
            rate = once(count, log.name)
            after = Usage.now(server.pid)
            times = times_us(Path(log.name))
        total = count * point.messages
        return Run((after.server - before.server) / total * 1e6, rate * point.messages, others(before, after),
                   *(percentile(times, share) for share in (0.5, 0.99, 0.999)))

    def wrk(self, server: Server, point: Point) -> Run:
        def once(seconds: int) -> dict[str, float]:
            return wrk_result(self.call([
                "wrk", "-t1", f"-c{point.connections}", f"-d{seconds}s", "--timeout", "60s",
                "-s", str(self.payloads / point.body), f"http://127.0.0.1:{server.port}{point.path}"]))

        key = server.name, point.name
        if key not in self.rates:
            warm = once(1)
            self.rates[key] = warm["requests"] / warm["duration_us"] * 1e6
        before = Usage.now(server.pid)
        result = once(max(1, round(self.seconds)))
        after = Usage.now(server.pid)
        return Run((after.server - before.server) / result["requests"] * 1e6, result["requests"] / result["duration_us"] * 1e6,
                   others(before, after), *(result[name] for name in ("p50_us", "p99_us", "p999_us")))

    def call(self, command: list[str]) -> str:
        done = subprocess.run(pinned(command, self.core), capture_output=True, text=True, timeout=RUN_SECS_MAX)
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
        return done.stdout
