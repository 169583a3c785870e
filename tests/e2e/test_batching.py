"""How requests share runs: who waits for whom, what a failed batch costs, what takes too long."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from reference.processes import wait_until
from reference.proto import message

from . import models
from .server import ServerProcess
from .test_behaviour import post, tensor
from .test_faults_lifecycle import in_flight


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    registry = tmp_path_factory.mktemp("batching") / "registry"
    models.linear(registry, "linear")
    models.linear(registry, "patient")
    (registry / "patient" / "model.yaml").write_text("batching: {max_queue_delay_us: 300000, max_batch_size: 4}\n")
    models.lookup(registry)
    models.bounded(registry, 8)
    models.endless(registry)
    (registry / "endless" / "model.yaml").write_text("run_timeout_ms: 200\n")
    with ServerProcess(registry) as running:
        yield running


def row(number):
    return [tensor("x", "FP32", [1, 8], [number] * 8)]


def counter(server, name, model):
    lines = server.get("/metrics")[1].decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"batchmill_{name}_total{{") and f'model="{model}"' in line)


def test_max_queue_delay_lets_rows_wait_for_company(server):
    before = time.monotonic()
    assert post(server, "patient", row(1))[0] == 200
    assert 0.29 < time.monotonic() - before < 5
    runs = counter(server, "batches", "patient")
    with ThreadPoolExecutor(3) as pool:
        assert [status for status, _ in pool.map(lambda n: post(server, "patient", row(n)), range(3))] == [200] * 3
    assert counter(server, "batches", "patient") - runs < 3


@pytest.mark.alone
def test_a_full_batch_does_not_wait(server):
    before = time.monotonic()
    assert post(server, "patient", [tensor("x", "FP32", [4, 8], [1] * 32)])[0] == 200
    assert time.monotonic() - before < 0.29


def test_a_run_that_takes_too_long_is_ended(server):
    def count_to(number):
        return post(server, "endless", [tensor("n", "INT64", [], [number]), tensor("x", "INT64", [1], [5])])

    assert count_to(10)[1]["outputs"][0]["data"] == [15]
    before = time.monotonic()
    status, answer = count_to(1 << 50)
    assert (status, "run_timeout_ms, 200" in answer["error"]) == (504, True), answer
    assert time.monotonic() - before < 5
    assert count_to(11)[1]["outputs"][0]["data"] == [16]  # the executor is free, and its next run is not ended


@pytest.mark.parametrize("rows", [1000, 20_000])
def test_json_that_is_parsed_off_the_io_thread_answers_the_same(server, rows):
    given = np.arange(rows * 8, dtype=np.float32).reshape(rows, 8) / 7
    status, answer = post(server, "linear", [tensor("x", "FP32", [rows, 8], given.tolist())])
    assert (status, answer["outputs"][0]["shape"]) == (200, [rows, 4])
    weights = np.arange(32, dtype=np.float32).reshape(8, 4) / 10 * 2
    np.testing.assert_allclose(np.array(answer["outputs"][0]["data"], np.float32).reshape(rows, 4), given @ weights, rtol=1e-4)


def test_a_large_json_body_is_refused_as_a_small_one(server):
    long = [1.0] * 40_000
    for inputs, model, wanted in [
        ([tensor("x", "FP32", [5000, 8], [*long[:-1], "a"])], "linear", 400),
        ([tensor("x", "FP32", [5000, 8], long)], "nobody", 404),
        ([tensor("x", "FP32", [8, 5000], long)], "linear", 400),
    ]:
        status, answer = post(server, model, inputs)
        assert (status, bool(answer["error"])) == (wanted, True)


def test_a_caller_whose_requests_fail_costs_no_more_runs_than_if_all_ran_alone(server):
    """Sixteen requests arrive as one batch, a bad one among them, a hundred times over."""

    def call(index):
        body = json.dumps({"inputs": [tensor("i", "INT64", [1], [index])]}).encode()
        return b"POST /v2/models/lookup/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    before = [counter(server, what, "lookup") for what in ("failed_batches", "batches")]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client, client.makefile("rb") as answers:
        for _ in range(100):
            client.sendall(call(3) * 7 + call(99) + call(3) * 8)
            statuses = [read_answer(answers) for _ in range(16)]
            assert statuses == [200] * 7 + [400] + [200] * 8
    failed, ran = (counter(server, what, "lookup") - had for what, had in zip(("failed_batches", "batches"), before, strict=True))
    assert failed > 0
    assert failed + ran < 1600


def test_a_model_that_fails_in_large_batches_alone_gets_smaller_ones(server):
    body = json.dumps({"inputs": row(1)}).encode()
    call = b"POST /v2/models/bounded/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client, client.makefile("rb") as answers:
        for _ in range(100):
            client.sendall(call * 16)
            assert [read_answer(answers) for _ in range(16)] == [200] * 16
    assert 0 < counter(server, "failed_batches", "bounded") < 10


def read_answer(stream):
    """The status of one HTTP/1.1 answer."""
    status = int(stream.readline().split()[1])
    length = 0
    while (line := stream.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    stream.read(length)
    return status


def test_a_high_priority_and_an_early_deadline_overtake_those_that_wait(tmp_path):
    """One run at a time: of what waits the most urgent is next, whatever came first."""
    models.slow(tmp_path / "registry", 1600)
    settings = "batching: {mode: off}\ninstances: {count: 1, intra_op_threads: 1}\nqueue: {priority_levels: 30}\n"
    (tmp_path / "registry" / "slow" / "model.yaml").write_text(settings)
    asked = message("ModelInferRequest")(model_name="slow", inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 256, 256]}], raw_input_contents=[bytes(1 << 18)])
    order = []
    with ServerProcess(tmp_path / "registry") as server, grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def ask(name, priority, timeout=60.0):
            asked.parameters["priority"].int64_param = priority
            future = call.future(asked.SerializeToString(), timeout=timeout)
            future.add_done_callback(lambda done: order.append((name, done.code().name)))
            return future

        lowest = [ask("low", 30) for _ in range(5)]
        wait_until(lambda: in_flight(server, "slow") + len(order) >= 5)
        others = [ask("high", 1), ask("soon", 30, timeout=20.0)]
        wait_until(lambda: in_flight(server, "slow") + len(order) >= 7)
        assert len(order) < 3, "they were answered before the others came"
        for one in (*lowest, *others):
            one.result()
    assert {code for _, code in order} == {"OK"}
    names = [name for name, _ in order]
    assert names.index("soon") < names.index("high") < 5
