"""Answers that are constant, on a real data plane: what a caller may have of them."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

from batchmill.app import make_server
from batchmill.backends import Tuning
from batchmill.config import ServerConfig
from batchmill.core import ort
from batchmill.core.route_table import RouteEntry
from batchmill.core.router import Version
from e2e import models, wire

CONSTANT = ((b"y", b"FP32", (1, 1), struct.pack("<f", -1)),)


def test_nobody_gets_more_constant_rows_than_an_answer_may_have(tmp_path: Path) -> None:
    """Rows without elements may be as many as a caller likes: terabytes of constants are asked for, and the failure is told."""
    ort.initialise()
    version = Version("wide", "1", ort.Model(str(models.table(tmp_path, "wide", "1", 2, ["n", "k"]))), batched=True, fast_ok=False)
    tuning = Tuning(instances=1, breaker_failures=0.5, breaker_min_requests=1, breaker_invalid=True, breaker_open_s=60)
    version.tune(**dataclasses.asdict(tuning))
    server = make_server(ServerConfig(io_threads=1, executor_threads=1))
    port = server.listen("127.0.0.1", 0)
    server.start()
    try:
        server.publish([RouteEntry("wide", [version], version, fallbacks=[(("unavailable", "invalid"), "", "", CONSTANT, "constant")])])
        with wire.connect(port) as connection, connection.makefile("rb") as file:

            def asked(shape: list[int], data: list[int]) -> tuple[int, dict]:
                body = {"inputs": [{"name": "i", "datatype": "INT64", "shape": shape, "data": data}]}
                connection.sendall(wire.post("/v2/models/wide/infer", json.dumps(body).encode()))
                status, answer = wire.read_answer(file)
                return status, json.loads(answer)

            assert asked([2, 1], [0, 500])[1]["outputs"][0]["data"] == [-1, -1]
            assert version.breaker == "open"
            assert asked([3, 0], [])[1]["outputs"][0]["shape"] == [3, 1]
            status, told = asked([1 << 40, 0], [])
            assert (status, "breaker" in told["error"]) == (503, True)
            assert asked([1, 0], [])[0] == 200
    finally:
        server.stop()
