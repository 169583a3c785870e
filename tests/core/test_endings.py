"""How connections end, on a real data plane."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from batchmill.app import make_server
from batchmill.config import ServerConfig
from batchmill.core import ort
from batchmill.core.reactor import Server
from e2e import wire

HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


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
