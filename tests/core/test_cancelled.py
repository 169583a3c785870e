"""Requests whose callers have gone are let go, also when nobody comes after them."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import socket
import struct
import time
from pathlib import Path

import numpy as np

from batchmill.app import make_server
from batchmill.backends import Tuning
from batchmill.config import ServerConfig
from batchmill.core import ort
from batchmill.core.route_table import RouteEntry
from batchmill.core.router import Version
from e2e import models, wire

SECONDS = float(os.environ.get("CHURN_SECONDS", "1"))
WAIT_SECS = 20


def awaited(done) -> None:
    end = time.monotonic() + WAIT_SECS
    while not done():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_request_that_is_refused_right_after_they_were_found_to_be_gone_does_not_keep_them(tmp_path: Path) -> None:
    """The refused one finds the queue full, and looks for them; then its own deadline cannot be met, and so no batch follows that takes them along."""
    ort.initialise()
    version = Version("slow", "1", ort.Model(str(models.slow(tmp_path, rounds=100))), batched=True, fast_ok=True)
    version.tune(**dataclasses.asdict(Tuning(max_batch_size=1, instances=1, max_queue_rows=2, run_on="executor")))
    server = make_server(ServerConfig(io_threads=1, executor_threads=1))
    port = server.listen("127.0.0.1", 0)
    server.start()
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 256, 256], "parameters": {"binary_data_size": 1 << 18}}],
                       "parameters": {"binary_data_output": True}}).encode()
    lines = f"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: {len(head)}\r\nContent-Length: {len(head) + (1 << 18)}\r\n"
    body = head + np.zeros((1, 256, 256), np.float32).tobytes()
    request, hurried = (lines.encode() + more + b"\r\n" + body for more in (b"", b"X-Request-Timeout-Ms: 1\r\n"))
    try:
        server.publish([RouteEntry("slow", [version], version)])
        for turn in range(10):      # where a tick of the server finds them first, or their runs are over, it proves nothing
            with wire.connect(port) as connection, connection.makefile("rb") as file:
                callers = [wire.connect(port) for _ in range(3)]
                for caller in callers:
                    caller.sendall(request)
                awaited(lambda: version.queue_rows == 2 or server.idle())
                for caller in callers:
                    caller.close()
                time.sleep(0.002)
                connection.sendall(hurried)
                status, _ = wire.read_answer(file)
            assert status in (200, 429, 503, 504), turn
            awaited(server.idle)
    finally:
        server.stop()


def test_requests_that_are_cancelled_while_their_rows_are_taken_are_let_go_once(tmp_path: Path) -> None:
    """Thousands of parts at once, each looked at twice; rows without elements cost nothing to send."""
    ort.initialise()
    version = Version("wide", "1", ort.Model(str(models.table(tmp_path, "wide", "1", 2, ["n", "k"]))), batched=True, fast_ok=False)
    version.tune(**dataclasses.asdict(Tuning(max_batch_size=8, instances=1, run_on="executor")))
    server = make_server(ServerConfig(io_threads=1, executor_threads=1))
    port = server.listen("127.0.0.1", 0)
    server.start()
    given = {"name": "i", "datatype": "INT64", "shape": [1 << 40, 0], "data": []}
    request = wire.post("/v2/models/wide/infer", json.dumps({"inputs": [given]}).encode())
    rng, end = random.Random(1), time.monotonic() + SECONDS
    try:
        server.publish([RouteEntry("wide", [version], version)])
        while time.monotonic() < end:
            caller = wire.connect(port)
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))     # a close resets the connection
            caller.sendall(request)
            awaited(lambda: version.leases > 0)
            time.sleep(rng.random() * 0.002)
            caller.close()
            awaited(server.idle)
            awaited(lambda: version.leases == 0)
        assert server.stats()["pending_bytes"] == 0
    finally:
        server.stop()
