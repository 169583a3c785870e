"""Many requests, good, wrong and cancelled, leave nothing behind: `make soak`, SOAK_REQUESTS=100000."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import pytest

from e2e import models, wire
from e2e.server import ServerProcess
from reference import proto
from reference.processes import Held

pytestmark = pytest.mark.long
REQUESTS = int(os.environ.get("SOAK_REQUESTS", "100000"))
ROUNDS = 10                         # each with the same mixture; the first warms up
SETTLE_SECS = 20                    # a body that stops coming is given up after 10
WRONG = 10                          # one request in so many is wrong, cancelled or cut off
GROWTH_MOST, GROWTH_MOST_KB = 0.02, 20_000
GRPC = "/inference.GRPCInferenceService/ModelInfer"
GRPC_HEADERS = (("content-type", "application/grpc"), ("te", "trailers"))
REST = "/v2/models/linear/infer"


def framed(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def grpc_body(model: str, datatype: str, shape: list[int], raw: bytes) -> bytes:
    name = "x" if model == "linear" else "i"
    tensor = {"name": name, "datatype": datatype, "shape": shape}
    return framed(proto.message("ModelInferRequest")(model_name=model, inputs=[tensor], raw_input_contents=[raw]).SerializeToString())


def rest_body(rows: int, width: int = 8) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, width], "data": [0.5] * (rows * width)}]}).encode()


LINEAR = grpc_body("linear", "FP32", [1, 8], bytes(32))
# A batch that fails in the runtime, a wrong shape, an unknown model, no message, a frame that ends early, a deadline that has passed.
WRONG_GRPC = [
    (grpc_body("lookup", "INT64", [1], struct.pack("<q", 99)), ()), (grpc_body("linear", "FP32", [1, 3], bytes(12)), ()),
    (grpc_body("none", "FP32", [1, 8], bytes(32)), ()), (framed(b"\xff"), ()), (LINEAR[:-1], ()), (LINEAR, (("grpc-timeout", "1n"),)),
]  # fmt: skip
WRONG_REST = [(REST, rest_body(1, 3)), (REST, rest_body(1)[:-1]), (REST, b""), ("/v2/models/none/infer", rest_body(1)), ("/v2/nothing", b"{}")]


def wrong_grpc(port: int, count: int) -> None:
    """Wrong, cancelled at work, cancelled half sent; the connection is cut with requests on it."""
    with wire.Http2(port) as connection:
        for turn in range(count):
            kind = turn % (len(WRONG_GRPC) + 2)
            body, headers = WRONG_GRPC[kind] if kind < len(WRONG_GRPC) else (LINEAR, ())
            stream = connection.ask(GRPC, body, *GRPC_HEADERS, *headers, end=kind <= len(WRONG_GRPC))
            if kind >= len(WRONG_GRPC):
                connection.flush()
                connection.cancel(stream)
                for _ in connection.answers():
                    pass
        connection.ask(GRPC, LINEAR, *GRPC_HEADERS)
        connection.flush()


def wrong_rest(port: int, count: int) -> None:
    """Each on a connection of its own: answered, or cut off in the middle of the body."""
    for turn in range(count):
        with socket.create_connection(("127.0.0.1", port), wire.SECONDS) as connection:
            kind = turn % (len(WRONG_REST) + 1)
            if kind == len(WRONG_REST):
                connection.sendall(wire.post(REST, rest_body(1))[:-20])
                continue
            connection.sendall(wire.post(*WRONG_REST[kind]))
            with connection.makefile("rb") as file:
                assert wire.read_answer(file)[0] >= 400


def good(port: int, count: int, folder: Path, grpc: bool) -> None:
    if not shutil.which("h2load"):
        return good_without_tool(port, count, grpc)
    path, body = (GRPC, LINEAR) if grpc else (REST, rest_body(4))
    (folder / "body").write_bytes(body)
    kind = [part for name, value in GRPC_HEADERS for part in ("-H", f"{name}: {value}")] if grpc else ["--h1"]
    done = subprocess.run(["h2load", "-c", "8", "-m", "16", "-n", str(count), "-d", str(folder / "body"), *kind, f"http://127.0.0.1:{port}{path}"],
                          capture_output=True, text=True, check=True)
    assert f" {count} succeeded, 0 failed" in done.stdout, done.stdout
    return None


def good_without_tool(port: int, count: int, grpc: bool) -> None:
    with wire.Http2(port) as connection:
        for turn in range(count):
            connection.ask(*((GRPC, LINEAR, *GRPC_HEADERS) if grpc else (REST, rest_body(4))))
            if turn % 64 == 63:
                assert all(connection.answers())
        assert all(connection.answers())


def settled(server: ServerProcess) -> Held:
    """What it holds once it has closed what the clients left."""
    end = time.monotonic() + SETTLE_SECS
    while b"\nbatchmill_connections 1.0\n" not in server.get("/metrics")[1]:    # the one that asks
        assert time.monotonic() < end, "connections that their clients have closed stay open"
        time.sleep(0.5)
    held = []
    for _ in range(5):      # the connection that asked is closed by the server a moment later
        time.sleep(0.1)
        held.append(Held.by(server.process.pid))
    return min(held, key=lambda one: one.descriptors)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    models.linear(tmp_path / "registry")
    models.lookup(tmp_path / "registry")
    with ServerProcess(tmp_path / "registry", "--io-threads", "2", "--executor-threads", "2") as process:
        yield process


def test_nothing_grows_after_the_first_tenth(server: ServerProcess, tmp_path: Path) -> None:
    wrong = REQUESTS // ROUNDS // WRONG
    right = REQUESTS // ROUNDS - wrong
    held = []
    for _ in range(ROUNDS):
        good(server.port, right // 2, tmp_path, grpc=True)
        good(server.port, right - right // 2, tmp_path, grpc=False)
        wrong_grpc(server.port, wrong // 2)
        wrong_rest(server.port, wrong - wrong // 2)
        held.append(settled(server))
        print(*astuple(held[-1]))
    first, last = held[0], held[-1]
    print(f"{REQUESTS} requests: {first} -> {last}, {(last.rss_kb / first.rss_kb - 1) * 100:+.2f}% RSS")
    assert last.rss_kb - first.rss_kb < min(GROWTH_MOST * first.rss_kb, GROWTH_MOST_KB)
    assert last.descriptors == first.descriptors
    assert last.threads <= first.threads + 1     # one of Python's workers may begin late, once
