"""The whole data plane under load while versions come and go. Real threads and sockets, because what is looked for is races: see `make tsan`."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from batchmill.app import make_server
from batchmill.config import ServerConfig
from batchmill.core import ort
from batchmill.core.bridge import OPEN
from batchmill.core.reactor import Server
from batchmill.core.router import Version
from e2e import models, wire

SECONDS = 1.0
FACTORS = 3                              # version n computes x @ W * (1 + n % FACTORS)
SUMS = np.arange(32, dtype=np.float32).reshape(8, 4).sum(axis=0) / 10
TABLE_ROWS = 10                          # of the lookup model; an index beyond them fails its batch
STREAMS = 12
COLD_CALL = b"GET /cold HTTP/1.1\r\nHost: x\r\n\r\n"


def serve(path: Path, name: str, number: int, **limits: object) -> Version:
    settings = {"batched": True, "max_batch_size": 8, "instances": 2, "max_queue_rows": 4096, "max_queue_delay_us": 0,
                "default_timeout_us": 0, "run_timeout_ms": 10_000, "fast_ok": False} | limits
    return Version(name, str(number), ort.Model(str(path)), **settings)


@dataclass
class Churn:
    """A server whose model "linear" is replaced all the time; "lookup" stays."""

    server: Server
    port: int
    paths: list[Path]
    kept: list[Version]
    serving: list[Version] = field(default_factory=list)
    retiring: list[Version] = field(default_factory=list)
    replaced: int = 0

    def replace(self) -> None:
        """Publishes a new version in the place of the old one, which some requests still hold."""
        number = self.replaced = self.replaced + 1
        fresh = serve(self.paths[number % FACTORS], "linear", number, fast_ok=bool(number & 1), max_queue_delay_us=100 * (number & 2))
        self.retiring += self.serving
        self.serving = [fresh]
        self.publish([(one.name, [one], one, {}) for one in [fresh, *self.kept]])

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
        """What a scrape reads."""
        self.server.stats()
        for version in [*self.serving, *self.kept]:
            version.stats(), version.latencies(), version.queue_rows, version.oldest_wait_ns

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
    made = Churn(server, port, paths, [serve(models.lookup(tmp_path), "lookup", 1)])
    made.replace()
    try:
        yield made
    finally:
        server.stop()


def linear_body(rows: int) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 8], "data": [1.0] * (8 * rows)}]}).encode()


def lookup_body(index: int) -> bytes:
    return json.dumps({"inputs": [{"name": "i", "datatype": "INT64", "shape": [1], "data": [index]}]}).encode()


def check_linear(status: int, body: bytes, rows: int) -> None:
    answer = json.loads(body)
    assert status == 200, answer
    wanted = np.tile(SUMS * (1 + int(answer["model_version"]) % FACTORS), rows)
    np.testing.assert_allclose(answer["outputs"][0]["data"], wanted, rtol=1e-5)


def ask_http1(port: int, going_on: Callable[[], bool]) -> int:
    """Pipelined: small bodies, one that an executor parses, a batch with a guilty request, a call for Python. How many were answered."""
    rows = [1, 2, 1, 900, 1, 8]
    burst = b"".join(wire.post("/v2/models/linear/infer", linear_body(n)) for n in rows)
    burst += b"".join(wire.post("/v2/models/lookup/infer", lookup_body(i)) for i in (3, TABLE_ROWS, 4)) + COLD_CALL
    answered = 0
    with socket.create_connection(("127.0.0.1", port), 20) as connection, connection.makefile("rb") as file:
        while going_on():
            connection.sendall(burst)
            for n in rows:
                check_linear(*wire.read_answer(file), n)
            good, guilty, also_good = (wire.read_answer(file) for _ in range(3))
            assert [json.loads(body)["outputs"][0]["data"] for _, body in (good, also_good)] == [[3], [4]]
            assert guilty[0] >= 400
            assert wire.read_answer(file) == (200, b"cold")
            answered += len(rows) + 4
    return answered


def ask_http2(port: int, going_on: Callable[[], bool]) -> int:
    """Many streams at once, a third of them cancelled; the connection is cut in the end. How many were answered."""
    answered = 0
    with wire.Http2(port) as connection:
        while going_on():
            for turn in range(STREAMS):
                stream = connection.ask("/v2/models/linear/infer", linear_body(1))
                if turn % 3 == 0:
                    connection.flush()      # so that it is at work when it is cancelled
                    connection.cancel(stream)
            for body in connection.answers():
                check_linear(200, body, 1)
                answered += 1
        connection.ask("/v2/models/linear/infer", linear_body(1))
        connection.ask("/cold", method="GET")
        connection.flush()
    return answered


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
        clients = [threads.submit(ask, churn.port, lambda: time.monotonic() < end) for ask in (ask_http1, ask_http1, ask_http2, ask_http2)]
        try:
            assert min(client.result() for client in clients) > 0
        finally:
            ended.set()
        for helper in helpers:
            helper.result()
    assert churn.replaced > 10
    last = [*churn.serving, *churn.kept]
    until(churn.close)
    assert [version.leases for version in last] == [0, 0]
    assert churn.server.idle()
    until(lambda: churn.server.stats()["connections"] == 0)
    assert churn.server.stats()["pending_bytes"] == 0
