"""The whole data plane under load while versions come and go, CHURN_SECONDS=1 long.

Real threads and sockets, because what is looked for is races: see `make tsan`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from batchmill.app import make_server
from batchmill.backends import Tuning
from batchmill.config import ServerConfig
from batchmill.core import exposition, ort
from batchmill.core.bridge import OPEN
from batchmill.core.reactor import Server
from batchmill.core.route_table import RouteEntry
from batchmill.core.router import Version
from e2e import models, wire

SECONDS = float(os.environ.get("CHURN_SECONDS", "1"))
FACTORS = 3                              # version n computes x @ W * (1 + n % FACTORS)
SUMS = np.arange(32, dtype=np.float32).reshape(8, 4).sum(axis=0) / 10
TABLE_ROWS = 10                          # of the lookup model; an index beyond them fails its batch
STREAMS = 12
ENDLESS = json.dumps({"inputs": [{"name": "n", "datatype": "INT64", "shape": [], "data": [200_000]},
                                 {"name": "x", "datatype": "INT64", "shape": [1], "data": [0]}]}).encode()
COLD_CALL = b"GET /cold HTTP/1.1\r\nHost: x\r\n\r\n"


class Watched(Version):
    """Can be referred to weakly, which tells that its memory is freed; its model's as well."""

    class Model(ort.Model):
        pass


@dataclass
class Churn:
    """A server whose model "linear" is replaced all the time: version n serves while n + 1 is the standard, then retires. "lookup" stays."""

    server: Server
    port: int
    paths: list[Path]
    kept: list[Version] = field(default_factory=list)
    serving: list[Version] = field(default_factory=list)
    retiring: list[Version] = field(default_factory=list)
    replaced: int = 0      # the last version that is in the table, or just about to be
    standard: int = 0      # the last one that surely is, and what no request that comes now is older than
    alive: weakref.WeakSet[Version | ort.Model] = field(default_factory=weakref.WeakSet)

    def serve(self, path: Path, name: str, number: int, batched: bool = True, fast_ok: bool = False, max_queue_delay_us: int = 0) -> Version:
        model = Watched.Model(str(path))
        version = Watched(name, str(number), model, batched=batched, fast_ok=fast_ok)
        version.tune(**dataclasses.asdict(Tuning(max_batch_size=8, instances=2, run_timeout_ms=10_000, max_queue_delay_us=max_queue_delay_us)))
        self.alive.update((model, version))
        return version

    def replace(self) -> None:
        """Publishes a new version in the place of the oldest one, which some requests still hold."""
        number = self.replaced + 1
        fresh = self.serve(self.paths[number % FACTORS], "linear", number, fast_ok=bool(number & 1), max_queue_delay_us=100 * (number & 2))
        self.replaced = number
        self.retiring += self.serving[:-1]
        self.serving = [*self.serving[-1:], fresh]
        self.publish([RouteEntry("linear", self.serving, fresh), *(RouteEntry(one.name, [one], one) for one in self.kept)])
        self.standard = number

    def publish(self, table: list) -> None:
        self.server.publish(table)
        self.retiring = [version for version in self.retiring if not self.server.release(version)]

    def close(self) -> bool:
        """Retires all that serves. False: requests still hold some of it."""
        self.retiring += [*self.serving, *self.kept]
        self.serving = self.kept = []
        self.publish([])
        return not self.retiring

    def read(self) -> None:
        """What a scrape reads; and what a change of limits does."""
        self.server.stats()
        exposition.render([*self.serving, *self.kept], triton=True)
        for version in [*self.serving, *self.kept]:
            version.stats(), version.snapshot(), version.answered, version.queue_rows, version.oldest_wait_ns
            self.server.look_again(version)

    def answer_cold(self) -> None:
        for call, kind, _ in self.server.bridge.take():
            if kind == OPEN:
                call.start(200, [(b"content-length", b"4")])
                call.write(b"cold")
                call.finish()


@pytest.fixture
def churn(tmp_path: Path) -> Iterator[Churn]:
    ort.initialise()
    paths = [models.linear(tmp_path, version=str(i + 1), factor=i + 1.0) for i in range(FACTORS)]
    server = make_server(ServerConfig(io_threads=3, executor_threads=3))
    port = server.listen("127.0.0.1", 0)
    server.start()
    made = Churn(server, port, paths)
    made.kept.append(made.serve(models.lookup(tmp_path), "lookup", 1))
    made.replace()
    try:
        yield made
    finally:
        server.stop()


def linear_body(rows: int) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 8], "data": [1.0] * (8 * rows)}]}).encode()


def lookup_body(index: int) -> bytes:
    return json.dumps({"inputs": [{"name": "i", "datatype": "INT64", "shape": [1], "data": [index]}]}).encode()


def check_linear(status: int, body: bytes, rows: int) -> int:
    """The version that answered, and rightly."""
    answer = json.loads(body)
    assert status == 200, answer
    version = int(answer["model_version"])
    np.testing.assert_allclose(answer["outputs"][0]["data"], np.tile(SUMS * (1 + version % FACTORS), rows), rtol=1e-5)
    return version


def ask_http1(churn: Churn, going_on: Callable[[], bool]) -> int:
    """Pipelined: small bodies, one that an executor parses, a batch with a guilty request, a call for Python. How many were answered."""
    rows = [1, 2, 1, 900, 1, 8]
    burst = b"".join(wire.post("/v2/models/linear/infer", linear_body(n)) for n in rows)
    burst += b"".join(wire.post("/v2/models/lookup/infer", lookup_body(i)) for i in (3, TABLE_ROWS, 4)) + COLD_CALL
    answered = 0
    with socket.create_connection(("127.0.0.1", churn.port), 20) as connection, connection.makefile("rb") as file:
        while going_on():
            named = churn.standard
            connection.sendall(wire.post(f"/v2/models/linear/versions/{named}/infer", linear_body(1)) + burst)
            status, body = wire.read_answer(file)
            assert check_linear(status, body, 1) == named if status == 200 else (status, churn.replaced > named + 1) == (404, True)
            for n in rows:
                assert check_linear(*wire.read_answer(file), n) >= named
            good, guilty, also_good = (wire.read_answer(file) for _ in range(3))
            assert [json.loads(body)["outputs"][0]["data"] for _, body in (good, also_good)] == [[3], [4]]
            assert guilty[0] >= 400
            assert wire.read_answer(file) == (200, b"cold")
            answered += len(rows) + 5
    return answered


def ask_http2(churn: Churn, going_on: Callable[[], bool]) -> int:
    """Many streams at once, a third of them cancelled; the connection is cut in the end. How many were answered."""
    answered = 0
    with wire.Http2(churn.port) as connection:
        while going_on():
            standard = churn.standard
            for turn in range(STREAMS):
                stream = connection.ask("/v2/models/linear/infer", linear_body(1))
                if turn % 3 == 0:
                    connection.flush()      # so that it is at work when it is cancelled
                    connection.cancel(stream)
            for body in connection.answers():
                assert check_linear(200, body, 1) >= standard
                answered += 1
        connection.ask("/v2/models/linear/infer", linear_body(1))
        connection.ask("/cold", method="GET")
        connection.flush()
    return answered


def ask_until_closed(port: int) -> None:
    request = wire.post("/v2/models/linear/infer", linear_body(1))
    with socket.create_connection(("127.0.0.1", port), 20) as connection, connection.makefile("rb") as file, suppress(OSError, IndexError):
        while True:
            connection.sendall(request)
            wire.read_answer(file)


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.001)


def repeat(action: Callable[[], None], ended: threading.Event) -> None:
    while not ended.wait(0.001):
        action()


def test_requests_are_answered_right_while_their_versions_are_replaced_and_destroyed(churn: Churn) -> None:
    end, ended = time.monotonic() + SECONDS, threading.Event()
    with ThreadPoolExecutor(8) as threads:
        helpers = [threads.submit(repeat, action, ended) for action in (churn.replace, churn.read, churn.answer_cold)]
        clients = [threads.submit(ask, churn, lambda: time.monotonic() < end) for ask in (ask_http1, ask_http1, ask_http2, ask_http2)]
        try:
            assert min(client.result() for client in clients) > 0
        finally:
            ended.set()
        for helper in helpers:
            helper.result()
    assert churn.replaced > 10
    until(churn.close)
    assert not churn.alive
    assert churn.server.idle()
    until(lambda: churn.server.stats()["connections"] == 0)
    assert churn.server.stats()["pending_bytes"] == 0


def test_versions_may_be_replaced_while_the_server_stops(churn: Churn, tmp_path: Path) -> None:
    slow = churn.serve(models.endless(tmp_path), "endless", 1, batched=False)
    churn.kept.append(slow)
    churn.replace()
    ended = threading.Event()
    with ThreadPoolExecutor(3) as threads, socket.create_connection(("127.0.0.1", churn.port), 20) as connection:
        connection.sendall(wire.post("/v2/models/endless/infer", ENDLESS))
        until(lambda: slow.leases == 1 and slow.queue_rows == 0)
        helpers = [threads.submit(ask_until_closed, churn.port), threads.submit(ask_until_closed, churn.port), threads.submit(repeat, churn.replace, ended)]
        churn.server.stop()     # waits for the run
        ended.set()
        for helper in helpers:
            helper.result()
