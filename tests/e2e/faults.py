"""A server to attack, another client beside it who must not notice, and what an error may say."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import grpc
import numpy as np
from onnx import helper

from reference import proto
from reference.processes import Held, wait_until

from . import models, wire
from .server import ServerProcess

MIB = 1 << 20
LATE_SECS = 2.0             # generous: the machine may be busy with something else
SETTLE_SECS = 20            # until a server has closed what its clients left
GROWTH_MOST_KB = 96 << 10    # bodies of 50 MB at once are among what is sent: malloc keeps some of what they took, once
SPARE = 2                   # threads that come with load and stay, each with a descriptor: one that paces, one more that renders metrics
LOG_LINES_MOST = 40         # of a whole module of attacks: nothing logs each of them
ECHO_MOST = 200
OWN = [("grpc.use_local_subchannel_pool", 1)]    # channels to one address share a connection otherwise
INFER = "/inference.GRPCInferenceService/ModelInfer"
# What an error must not tell: tracebacks, files and classes of ours or of the libraries below, addresses in memory.
INSIDE = re.compile(r"Traceback|\.(py|pyx|pxd|cc|cpp|hpp|so)\b|/(tmp|root|home|usr|work|opt|build)/|site-packages|<class|0x[0-9a-f]{6}"
                    r"|\b[A-Z]\w*(Error|Exception)\b|\bstd::|\bonnxruntime::|\bbatchmill(::|\.)|Status Message")


def all_kinds(registry: Path) -> None:
    """The models that are attacked, and `linear`, which the other client asks."""
    for datatype in models.DATATYPES:
        models.identity(registry, datatype)
    models.identity(registry, "INT32", [2, 2], "fixed")
    models.identity(registry, "BYTES", ["n"], "texts")
    models.linear(registry)
    models.lookup(registry)
    models.divide(registry)
    filled = helper.make_node("ConstantOfShape", ["n"], ["y"])
    models.write(registry, "zeros", [filled], [models.value("n", "INT64", [1])], [models.value("y", "FP32", ["a"])])
    models.write(registry, "plane", [filled], [models.value("n", "INT64", [2])], [models.value("y", "FP32", ["a", "b"])])
    where = helper.make_node("ArgMax", ["x"], ["y"], keepdims=0)
    models.write(registry, "largest", [where], [models.value("x", "FP32", ["n"])], [models.value("y", "INT64", [])])
    models.slow(registry, 60)
    (registry / "slow" / "model.yaml").write_text("batching: {mode: 'off'}\n")


class Bystander:
    """Another client: asks over REST and gRPC, some ten times a second, on connections of its own."""

    def __init__(self, server: ServerProcess) -> None:
        self.server, self.answers, self.slowest = server, 0, 0.0
        self.failures: list[str] = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, name="bystander")

    def run(self) -> None:
        try:
            with (wire.connect(self.server.port) as connection, connection.makefile("rb") as file,
                  grpc.insecure_channel(self.server.address, OWN) as channel):  # fmt: skip
                call = channel.unary_unary(INFER)
                while not self.stopped.wait(0.05):
                    row = np.full((1, 8), self.answers % 100, np.float32)
                    self.note(row, lambda: self.rest(connection, file, row), lambda: self.grpc(call, row))  # noqa: B023
        except Exception as error:
            self.failures.append(repr(error))

    def note(self, row: np.ndarray, *asks) -> None:
        wanted = row @ (np.arange(32, dtype=np.float32).reshape(8, 4) / 10 * 2)
        for ask in asks:
            started = time.monotonic()
            got = ask()
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.answers += 1
            if not np.allclose(got, wanted, rtol=1e-4):
                self.failures.append(f"{got} given, {wanted} wanted")

    def rest(self, connection: socket.socket, file, row: np.ndarray) -> np.ndarray:
        connection.sendall(wire.post("/v2/models/linear/infer", rest_body("x", "FP32", [1, 8], row.ravel().tolist())))
        status, body = wire.read_answer(file)
        return np.array(json.loads(body)["outputs"][0]["data"]) if status == 200 else np.array([status])

    def grpc(self, call, row: np.ndarray) -> np.ndarray:
        asked = infer_message("linear", "x", "FP32", [1, 8], row.tobytes())
        answer = proto.message("ModelInferResponse").FromString(call(asked.SerializeToString(), timeout=wire.SECONDS))
        return np.frombuffer(answer.raw_output_contents[0], np.float32)

    def check(self) -> None:
        assert self.failures == []
        assert self.thread.is_alive() or self.stopped.is_set()
        assert self.slowest < LATE_SECS, f"an answer took {self.slowest:.1f} s"

    def __enter__(self) -> Bystander:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stopped.set()
        self.thread.join()


@contextlib.contextmanager
def attacked(folder: Path, *flags: str, peak_mib: int = 256, log_lines: int = LOG_LINES_MOST) -> Iterator[ServerProcess]:
    """A server that serves all kinds of models. At the end the other client was answered well throughout, and the server is the
    same process, holds what it held before, took at most peak_mib more in between, and has logged at most so many lines.
    """
    all_kinds(folder / "registry")
    with ServerProcess(folder / "registry", *flags) as server:
        with Bystander(server) as warm:
            wait_until(lambda: warm.answers > 10 or warm.failures)
        warm.check()
        for path in ("/v2", "/v2/models/linear", "/nowhere", "/v2/models/linear/stats"):
            server.get(path)
        before = settled(server, 1)
        Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the highest mark of resident memory begins anew
        with Bystander(server) as bystander:
            yield server
            wait_until(lambda: bystander.answers > 3 or bystander.failures)
        bystander.check()
        after = settled(server, 1, before.descriptors + SPARE)
        log = server.log_path.read_text()
        assert server.process.poll() is None
        assert not re.search("traceback|handler_failed|application_failed|internal error", log, re.I), log
        assert log.count("\n") < log_lines, log
        assert after.descriptors <= before.descriptors + SPARE
        assert after.threads <= before.threads + SPARE
        assert after.rss_kb - before.rss_kb < GROWTH_MOST_KB
        assert after.peak_kb - before.rss_kb < peak_mib << 10


def settled(server: ServerProcess, connections: int = 3, descriptors: int = 0) -> Held:
    """What it holds once it has closed what the clients left, but for the bystander's two connections and the one that asks.
    Waits for its descriptors to be no more than those, if that is told.
    """
    held = f"\nbatchmill_connections {connections}.0\n", "\nbatchmill_in_flight_requests 0.0\n", "\nbatchmill_pending_bytes 0.0\n"
    wait_until(lambda: all(line in server.get("/metrics")[1].decode() for line in held), SETTLE_SECS)
    with contextlib.suppress(AssertionError):       # the caller says what it is about
        wait_until(lambda: 0 < Held.by(server.process.pid).descriptors <= descriptors, SETTLE_SECS if descriptors else 0.2)
    return Held.by(server.process.pid)


# Requests.
def rest_body(name: str, datatype: str, shape: object, data: object, **more: object) -> bytes:
    return json.dumps({"inputs": [{"name": name, "datatype": datatype, "shape": shape, "data": data}], **more}).encode()


def binary_body(name: str, datatype: str, shape: list[int], payload: bytes, size: object = None, **more: object) -> tuple[bytes, dict[str, object]]:
    """A body with one binary tensor, and the header that tells where it begins."""
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(payload) if size is None else size}}
    head = json.dumps({"inputs": [tensor], **more}).encode()
    return head + payload, {"Inference-Header-Content-Length": len(head)}


def element(content: bytes) -> bytes:
    """One element of a BYTES tensor."""
    return struct.pack("<I", len(content)) + content


def infer_message(model: str, name: str, datatype: str, shape: list[int], *raw: bytes):
    return proto.message("ModelInferRequest")(model_name=model, inputs=[{"name": name, "datatype": datatype, "shape": shape}], raw_input_contents=raw)


def request(path: str, body: bytes = b"", headers: dict[str, object] | None = None, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n" + body


def exchange(server: ServerProcess, sent: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to what is sent on a connection of its own."""
    with wire.connect(server.port) as connection, connection.makefile("rb") as file:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):    # refused before it has all been sent
            connection.sendall(sent)
        return wire.read_answer(file)


def ask(server: ServerProcess, path: str, body: bytes = b"", headers: dict[str, object] | None = None, method: str = "POST") -> tuple[int, bytes]:
    return exchange(server, request(path, body, headers, method))


def infer(server: ServerProcess, model: str, body: bytes, headers: dict[str, object] | None = None) -> tuple[int, bytes]:
    return ask(server, f"/v2/models/{model}/infer", body, headers)


# Refusals.
def error_of(body: bytes) -> str:
    """The text of a REST refusal, whose form and content are held against the rules for all of them."""
    told = json.loads(body)
    assert [*told] == ["error"]
    assert_harmless(told["error"])
    return str(told["error"])


def assert_harmless(text: str) -> None:
    """Says something, in one line of bounded length, and nothing of our inside."""
    assert text
    assert text.isprintable(), repr(text)
    assert len(text) < 3 * ECHO_MOST, text      # two things of the caller's may be named in one
    assert not INSIDE.search(text), text
