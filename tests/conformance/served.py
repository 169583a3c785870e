"""The server that the clients ask, and the relay that counts what they send and get."""

from __future__ import annotations

import re
import shutil
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

from e2e import models
from e2e.server import ServerProcess

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "registry"
SLOW_ROUNDS = 1500  # products of matrices, a second or so: far longer than the deadline of 100 ms, far shorter than that of 10 s


def make_registry(registry: Path) -> Path:
    """examples/registry, and the models that some calls need beside it."""
    shutil.copytree(EXAMPLES, registry)
    models.identity(registry, "BYTES")
    models.identity(registry, "FP16")
    models.linear(registry, "spare")
    models.slow(registry, SLOW_ROUNDS)
    (registry / "slow" / "model.yaml").write_text("batching: {mode: 'off'}\nwarmup: {runs: 0}\n")  # proof and warm-up would take a minute
    return registry


def serve(folder: Path) -> ServerProcess:
    return ServerProcess(make_registry(folder / "registry"), "--strict-readiness")


def in_flight(server: ServerProcess) -> int:
    found = re.search(r"^batchmill_in_flight_requests (\d+)", server.get("/metrics")[1].decode(), re.M)
    assert found, "no metric batchmill_in_flight_requests"
    return int(found[1])


def wait_idle(server: ServerProcess, seconds: float = 30) -> bool:
    """Whether nothing is in flight within that time, what was cancelled included."""
    end = time.monotonic() + seconds
    while in_flight(server):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


class Relay:
    """Hands bytes on between clients and a server; counts connections, and bytes to the server and from it."""

    def __init__(self, port: int) -> None:
        self.connections = 0
        self.bytes = [0, 0]
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self.connections += 1
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            threading.Thread(target=self._pump, args=(client, server, 0), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, 1), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, way: int) -> None:
        try:
            while data := source.recv(1 << 16):
                self.bytes[way] += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:  # one of them has gone
            pass

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        for one in self._sockets:
            one.close()
