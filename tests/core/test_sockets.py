"""How sockets end: on a real data plane, whose process starts others, and whose callers leave at the worst moment."""

from __future__ import annotations

import dataclasses
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import hpack
import numpy as np
import pytest

from batchmill.app import make_server
from batchmill.backends import Tuning
from batchmill.config import ServerConfig
from batchmill.core import ort
from batchmill.core.reactor import Server
from batchmill.core.route_table import RouteEntry
from batchmill.core.router import Version
from e2e import models, wire
from reference import proto

pb = proto.Messages()
HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("00000604000000000000047fffffff" "0000040800000000007f000000")  # wide windows


@pytest.fixture
def server() -> Iterator[Server]:
    ort.initialise()
    made = make_server(ServerConfig(io_threads=1, executor_threads=1))
    try:
        yield made
    finally:
        made.stop()


def started(server: Server) -> int:
    port = server.listen("127.0.0.1", 0)
    server.start()
    return port


def test_a_socket_that_a_child_has_inherited_keeps_no_thread_busy_once_its_caller_has_gone(server: Server) -> None:
    """A child has all descriptors until it runs another program; to epoll a socket that it has is open."""
    port = started(server)
    with wire.connect(port) as caller, caller.makefile("rb") as file:
        caller.sendall(HEALTH)
        assert wire.read_answer(file)[0] == 200
        ends, ended = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ended)
            os.close(caller.fileno())
            os.read(ends, 1)    # until the parent has closed it
            os._exit(0)
    try:
        end = time.monotonic() + 20
        while server.stats()["connections"]:
            assert time.monotonic() < end
            time.sleep(0.001)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1
    finally:
        os.close(ended)
        os.waitpid(child, 0)
        os.close(ends)


def frames(*parts: tuple[int, int, bytes]) -> bytes:
    return b"".join(len(data).to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, 1]) + data for kind, flags, data in parts)


def request(model: str, values: np.ndarray) -> bytes:
    """Over HTTP/2, in frames of 16 KiB."""
    message = pb.ModelInferRequest(model_name=model, raw_input_contents=[values.tobytes()],
                                   inputs=[{"name": "x", "datatype": "FP32", "shape": list(values.shape)}]).SerializeToString()
    body = struct.pack(">BI", 0, len(message)) + message
    head = hpack.Encoder().encode([(":method", "POST"), (":path", "/inference.GRPCInferenceService/ModelInfer"), (":scheme", "http"),
                                   (":authority", "x"), ("content-type", "application/grpc")])
    pieces = [body[at:at + 16384] for at in range(0, len(body), 16384)]
    return PREFACE + frames((1, 4, head), *((0, 0, piece) for piece in pieces[:-1]), (0, 1, pieces[-1]))


def test_a_caller_may_leave_when_there_is_room_to_write_again(server: Server, tmp_path: Path) -> None:
    """Both are told by one event where the thread has been busy meanwhile. Only AddressSanitizer sees a socket that is looked at after its end."""
    slow = Version("slow", "1", ort.Model(str(models.slow(tmp_path))), batched=True, fast_ok=True)
    large = Version("large", "1", ort.Model(str(models.identity(tmp_path, "FP32", ["n", 1 << 20], "large"))), batched=True, fast_ok=True)
    for version in (slow, large):
        version.tune(**dataclasses.asdict(Tuning(instances=1, run_on="io")))
    server.publish([RouteEntry("slow", [slow], slow), RouteEntry("large", [large], large)])
    port = started(server)
    for _ in range(3):
        with wire.connect(port) as caller, wire.connect(port) as other:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            caller.sendall(request("large", np.zeros((4, 1 << 20), np.float32)))
            end = time.monotonic() + 20
            while not server.idle() or server.stats()["connections"] < 2:    # answered, and stuck in the socket
                assert time.monotonic() < end
                time.sleep(0.001)
            other.sendall(request("slow", np.zeros((1, 256, 256), np.float32)))
            time.sleep(0.05)
            caller.settimeout(0.02)
            got, most = 0, 1 << 22
            while got < most:
                try:
                    got += len(caller.recv(1 << 20))
                except TimeoutError:
                    break
            caller.shutdown(socket.SHUT_WR)
            while not server.idle():
                time.sleep(0.001)
    with wire.connect(port) as caller, caller.makefile("rb") as file:
        caller.sendall(HEALTH)
        assert wire.read_answer(file)[0] == 200
