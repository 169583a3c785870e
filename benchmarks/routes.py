#!/usr/bin/env python3
"""What a route costs a request: weights over versions, sticky keys, rules and fallbacks beside a model with one version.

In process, on the server's core: a front end reads requests of whole connections, they are decoded and routed, and answered without a run. The
cases take turns; the least of the rounds counts for each, the median for the floor, one epoll thread with a fixed answer (yardsticks/floor.c).
Promised is what the route costs more than one version that gets the same bytes; what a key, a header or a parameter costs by itself is told, too.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import bounds
import hpack
import load
import models
import payloads
import report
import serve

from batchmill.app import make_server
from batchmill.backends import Tuning
from batchmill.config import ServerConfig
from batchmill.core import ort
from batchmill.core.reactor import Server
from batchmill.core.route_probe import Passage
from batchmill.core.route_table import RouteEntry
from batchmill.core.router import Version

POINT = "rest-binary32"  # of the floor
REQUESTS = 2_000  # a run: so short that few are disturbed
KEYS = 64  # requests that differ take turns
MODEL = "mlp"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000" "0000040800000000007f000000")  # no settings; a wide window
HALVES = ((5000, "1"), (10_000, "2"))
KEYS_FROM = 0x9E3779B97F4A7C15F39CC0605CEDC835  # they are spread
KEY = "*"  # in its place each request has a key of its own


@dataclass(frozen=True, slots=True)
class Ask:
    """What a caller says beside the tensors."""

    version: str = ""
    label: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """A route, as Server.publish() takes it, and who asks; wanted: the versions that shall answer. promised: else it is told, and no more."""

    name: str
    ask: Ask = Ask()
    shares: tuple[tuple[int, str], ...] = ()
    rules: tuple[tuple[bool, str, str, str], ...] = ()
    fallbacks: tuple[Any, ...] = ()
    wanted: str = "1"
    feedback: bool = False
    grpc_only: bool = False
    promised: bool = True


@dataclass(frozen=True, slots=True)
class Cost:
    """Nanoseconds a request, and how many more than with one version that is asked alike, and that is asked without anything."""

    protocol: str
    case: str
    ns: float
    more_ns: float
    more_than_plain_ns: float


def rules(count: int, of_header: bool = True) -> tuple[tuple[bool, str, str, str], ...]:
    """Of as many headers, or parameters: the last one wants version 2."""
    return tuple((of_header, f"x-tenant-{number}" if of_header else f"tenant{number}", "gold", "2") for number in range(count))


ONE = Case("one version")
CASES = (
    Case("exact version", Ask(version="1")),
    Case("label", Ask(label="stable")),
    Case("weights, no key", shares=HALVES, wanted="12"),
    Case("weights, sticky key", Ask(headers={"x-route-key": KEY}), shares=HALVES, wanted="12"),
    *(case for count, name in ((1, "1 rule"), (8, "8 rules")) for case in (
        Case(f"{name} by header, not sent", rules=rules(count)),
        Case(f"{name} by header, other value", Ask(headers={f"x-tenant-{count - 1}": "lead"}), rules=rules(count)),
        Case(f"{name} by header, fits", Ask(headers={f"x-tenant-{count - 1}": "gold"}), rules=rules(count), wanted="2"),
        Case(f"{name} by parameter, fits", Ask(parameters={f"tenant{count - 1}": "gold"}), rules=rules(count, False), wanted="2", grpc_only=True))),
    Case("weights, key, 8 rules, other value", Ask(headers={"x-route-key": KEY, "x-tenant-7": "lead"}), HALVES, rules(8), wanted="12"),
    Case("fallbacks", fallbacks=((("unavailable", "error"), "2", "", (), "version 2"),)),
    Case("feedback tokens", feedback=True, promised=False),
)


# What callers send.
def parameter(name: str, text: str) -> bytes:
    """An entry of ModelInferRequest.parameters, which are a map: 1 key, 2 {3 string_param}."""
    return payloads.field(4, payloads.field(1, name.encode()) + payloads.field(2, payloads.field(3, text.encode())))


def grpc_body(ask: Ask) -> bytes:
    texts = dict(ask.parameters) | ({"label": ask.label} if ask.label else {})
    message = payloads.grpc_message(MODEL, models.row(MODEL)) + (payloads.field(2, ask.version.encode()) if ask.version else b"")
    return payloads.framed(message + b"".join(parameter(*text) for text in texts.items()))


def frames(encoder: hpack.Encoder, ask: Ask, key: str, stream: int = 1) -> bytes:
    """HEADERS and DATA of one call. What is the same in all is in the encoder's table after the first."""
    known = [(":method", "POST"), (":scheme", "http"), (":path", load.METHOD + "ModelInfer"), (":authority", "localhost:8001"), ("te", "trailers"),
             ("content-type", "application/grpc"), ("user-agent", "grpc-python/1.76.0"), ("grpc-accept-encoding", "identity, deflate, gzip")]
    given: list[Any] = [hpack.NeverIndexedHeaderTuple(name, key) if value == KEY else (name, value) for name, value in ask.headers.items()]
    block, body = encoder.encode([*known, *given]), grpc_body(ask)
    return b"".join(len(part).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + part
                    for kind, flags, part in ((1, 4, block), (0, 1, body)))


def rest(ask: Ask, key: str) -> bytes:
    (name, rows), = models.row(MODEL).items()
    body, json_bytes = payloads.rest_binary(name, rows)
    path = f"/v2/models/{MODEL}" + (f"/versions/{ask.version}" if ask.version else f"/labels/{ask.label}" if ask.label else "") + "/infer"
    headers = {"Host": "localhost:8000", "Content-Type": "application/octet-stream", "Inference-Header-Content-Length": json_bytes,
               "Content-Length": len(body), **{name: key if value == KEY else value for name, value in ask.headers.items()}}
    return f"POST {path} HTTP/1.1\r\n".encode() + b"".join(f"{n}: {v}\r\n".encode() for n, v in headers.items()) + b"\r\n" + body


class Line:
    """One caller on one connection, who asks a model with the case's route and one with one version. Both servers are not started."""

    def __init__(self, versions: dict[str, Version], case: Case, protocol: str) -> None:
        self.versions, self.case = versions, case
        entry = RouteEntry(MODEL, list(versions.values()), versions["1"], {"stable": "1"}, shares=case.shares, rules=case.rules, generation=1,
                           fallbacks=case.fallbacks)
        self.routed = server_of(entry)
        self.single = server_of(RouteEntry(MODEL, [versions["1"]], versions["1"], {"stable": "1"}))
        keys = [str(uuid.UUID(int=KEYS_FROM * (number + 1) % 2**128)) for number in range(KEYS)]
        if protocol == "gRPC":
            encoder = hpack.Encoder()
            self.passage = Passage(PREFACE + frames(encoder, case.ask, keys[0]))
            self.requests = [frames(encoder, case.ask, key) for key in keys]
        else:
            self.passage = Passage(b"")
            self.requests = [rest(case.ask, key) for key in keys]

    def cpu_ns(self, server: Server, count: int = REQUESTS) -> float:
        """Of a request."""
        before = time.thread_time_ns()
        self.passage.ask(server, self.requests, count)
        return (time.thread_time_ns() - before) / count

    def check(self) -> None:
        """That the requests go where the case says."""
        before = {number: version.answered for number, version in self.versions.items()}
        self.cpu_ns(self.routed, 4 * KEYS)
        got = "".join(number for number, version in self.versions.items() if version.answered > before[number])
        if got != self.case.wanted:
            raise RuntimeError(f"{self.case.name}: answered by {got}, not by {self.case.wanted}")


def server_of(entry: RouteEntry) -> Server:
    server = make_server(ServerConfig(io_threads=1, executor_threads=1))
    server.publish([entry])
    return server


def versions(folder: Path, feedback: bool) -> dict[str, Version]:
    made = {}
    for number in ("1", "2"):
        made[number] = Version(MODEL, number, ort.Model(str(models.write(folder, MODEL))), batched=True, fast_ok=True)
        made[number].tune(**asdict(Tuning()) | {"feedback": feedback})
    return made


def measure(folder: Path, rounds: int) -> list[Cost]:
    """All cases over both protocols, in turns with one version that is asked alike."""
    sets = {feedback: versions(folder, feedback) for feedback in (False, True)}
    lines = [(protocol, Line(sets[case.feedback], case, protocol))
             for protocol in ("gRPC", "REST") for case in (ONE, *CASES) if not (case.grpc_only and protocol == "REST")]
    least = [[float("inf")] * 2 for _ in lines]
    for _, line in lines:
        line.check()
    for _ in range(rounds):
        for (_, line), best in zip(lines, least, strict=True):
            best[:] = min(best[0], line.cpu_ns(line.routed)), min(best[1], line.cpu_ns(line.single))
    plain = {protocol: best[1] for (protocol, line), best in zip(lines, least, strict=True) if line.case is ONE}
    return [Cost(protocol, line.case.name, routed, routed - alike, routed - plain[protocol])
            for (protocol, line), (routed, alike) in zip(lines, least, strict=True)]


def main() -> int:
    parser = report.parser(__doc__, "routes", rounds=3, seconds=2.0)
    options = parser.parse_args()
    report.require("wrk", "cc", "taskset")
    ort.initialise()
    with tempfile.TemporaryDirectory(prefix="batchmill-bench-") as folder:
        floor = serve.measure([("floor", POINT)], options, Path(folder))["floor", POINT]
        if options.server_core:
            os.sched_setaffinity(0, {int(options.server_core)})
        costs = measure(Path(folder), options.rounds * 50)
    rows = [[c.protocol, c.case, f"{c.ns:,.0f}", f"{c.more_ns:+,.0f}", f"{c.more_than_plain_ns:+,.0f}"] for c in costs]
    print("\n" + report.table(["protocol", "route", "ns a request", "more than one version", "and asked for nothing"], rows, options.markdown))
    kept = {case.name for case in CASES if case.promised}
    promises = [bounds.route(f"{c.protocol}, {c.case}", c.more_ns / 1000, load.median(floor).cpu_us) for c in costs if c.case in kept]
    return report.finish(options, {f"floor {POINT}": floor, "routes": costs}, promises)


if __name__ == "__main__":
    sys.exit(main())
