"""More requests than can be read: some are served, the others told, and who floods harms himself alone. `benchmarks/batching.py` says how well."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import open_loop
import payloads
import processes
import pytest
from onnx import helper, numpy_helper

from . import models, wire
from .server import ServerProcess

RATE, SECONDS, DEADLINE_MS = 120_000, 1.5, 400
CALM_MS = 200            # a third of it is more than a round of all sockets takes, and less than the flood waits: a third of its time
PIPELINED = 100         # more than are taken in at once: the later ones are parsed when the earlier are answered


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Its model takes some ten microseconds a row, in batches too: a third of what comes is more than a core computes."""
    registry = tmp_path_factory.mktemp("flood") / "registry"
    weights = [numpy_helper.from_array(np.eye(*shape, dtype=np.float32), name) for name, shape in (("first", (8, 256)), ("w", (256, 256)), ("last", (256, 8)))]
    steps = [helper.make_node("MatMul", [f"t{step}", "w"], [f"t{step + 1}"]) for step in range(10)]
    nodes = [helper.make_node("MatMul", ["x", "first"], ["t0"]), *steps, helper.make_node("MatMul", ["t10", "last"], ["y"])]
    models.write(registry, "dense", nodes, [models.value("x", "FP32", ["n", 8])], [models.value("y", "FP32", ["n", 8])], weights)
    models.linear(registry)
    with ServerProcess(registry, "--cpu-budget", "1") as running:
        yield running


def target(server):
    """The server as the load tool knows it."""
    made = processes.Server("flooded", [], server.port, "", server.log_path)
    made.process = server.process
    return made


def calm_caller(server, until):
    """Of another model: pipelined requests, with little time each."""
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [1.0] * 8}]}).encode()
    one = (f"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nx-request-timeout-ms: {CALM_MS}\r\n"
           f"Content-Length: {len(body)}\r\n\r\n").encode() + body
    answers = []
    with wire.connect(server.port) as connection, connection.makefile("rb") as file:
        while time.monotonic() < until:
            connection.sendall(one * PIPELINED)
            answers += [wire.read_answer(file) for _ in range(PIPELINED)]
            time.sleep(0.02)
    return answers


def test_a_flood_is_served_in_part_and_does_not_count_against_a_calm_caller_beside_it(server, tmp_path):
    (tmp_path / "row.grpc").write_bytes(payloads.framed(payloads.grpc_message("dense", {"x": np.ones((1, 8), np.float32)})))
    generator = open_loop.Generator(tmp_path, "", wait_secs=2)
    due = open_loop.schedule("poisson", RATE, SECONDS, seed=1)
    with ThreadPoolExecutor(1) as pool:
        calm = pool.submit(calm_caller, server, time.monotonic() + SECONDS)
        run = generator.run(target(server), due, [tmp_path / "row.grpc"], deadline_ms=DEADLINE_MS)
        answers = calm.result()
    told = run.results
    assert (told["done_ns"] > 0).all(), "some were never answered"
    assert set(np.unique(told["status"])) <= {open_loop.OK, open_loop.RESOURCE_EXHAUSTED, open_loop.DEADLINE_EXCEEDED, open_loop.UNAVAILABLE}
    ok = told["status"] == open_loop.OK
    assert ok.sum() > 500, "how many depends on the machine: where it takes all to read what is refused, a few"
    assert (told["status"] == open_loop.RESOURCE_EXHAUSTED).sum() > 0.02 * len(told)
    assert len(answers) >= 2 * PIPELINED
    assert not [body for _, body in answers if b"behind" in body], "others' requests have waited in their sockets, his have not"
    assert [status for status, _ in answers].count(200) > 0
