"""Requests with more rows than a batch may have: they run in parts, and nobody can tell but by the batches."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from onnx import helper

from reference.processes import wait_until
from reference.proto import message

from . import models
from .server import ServerProcess
from .test_batching import counter
from .test_behaviour import post, tensor
from .test_faults_lifecycle import in_flight

MOST = 8  # rows of a batch


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    registry = tmp_path_factory.mktemp("large") / "registry"
    models.linear(registry)
    models.identity(registry, "BYTES", ["n", 2])
    models.identity(registry, "UINT8", ["n", "m"])
    models.write(registry, "pair", [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Cast", ["a"], ["whole"], to=models.DATATYPES["INT64"])],
                 [models.value("a", "FP32", ["n", 2]), models.value("b", "FP32", ["n", 2])],
                 [models.value("sum", "FP32", ["n", 2]), models.value("whole", "INT64", ["n", 2])])  # fmt: skip
    models.lookup(registry)
    models.slow(registry, 20)
    for folder in registry.iterdir():
        (folder / "model.yaml").write_text(f"batching: {{max_batch_size: {MOST}}}\n")
    (registry / "slow" / "model.yaml").write_text("batching: {max_batch_size: 1, mode: 'on'}\ninstances: {count: 1}\nqueue: {max_wait_ms: 0}\n")
    with ServerProcess(registry, "--max-response-mib", "2") as running:
        yield running


def asked(name, values, kind):
    given = (triton if kind == "grpc" else triton_http).InferInput(name, list(values.shape), {"f": "FP32", "O": "BYTES", "u": "UINT8"}[values.dtype.kind])
    given.set_data_from_numpy(values)
    return given


@pytest.mark.parametrize("kind", ["grpc", "http"])
@pytest.mark.parametrize("rows", [MOST, MOST + 1, 3 * MOST, 100, 1001])
def test_the_answer_has_all_rows_in_their_order(server, kind, rows):
    client = triton.InferenceServerClient(server.address) if kind == "grpc" else triton_http.InferenceServerClient(server.address)
    a, b = (np.arange(rows * 2, dtype=np.float32).reshape(rows, 2) * scale for scale in (1, 1000))
    texts = np.array([[f"text {row}".encode() * (row % 3), b"\x00\xff"] for row in range(rows)], object)
    before = counter(server, "batches", "pair")
    answer = client.infer("pair", [asked("b", b, kind), asked("a", a, kind)])
    np.testing.assert_array_equal(answer.as_numpy("sum"), a + b)
    np.testing.assert_array_equal(answer.as_numpy("whole"), a.astype(np.int64))
    np.testing.assert_array_equal(client.infer("identity_bytes", [asked("x", texts, kind)]).as_numpy("y"), texts)
    assert counter(server, "batches", "pair") - before == -(-rows // MOST)
    client.close()


def test_outputs_come_as_they_were_asked_for(server):
    """Some of them, in another order, in JSON."""
    rows = 3 * MOST + 1
    values = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    with triton_http.InferenceServerClient(server.address) as client:
        wanted = [triton_http.InferRequestedOutput(name, binary_data=binary) for name, binary in (("whole", False), ("sum", True))]
        answer = client.infer("pair", [asked("a", values, "http"), asked("b", values, "http")], outputs=wanted)
        assert [output["name"] for output in answer.get_response()["outputs"]] == ["whole", "sum"]
        np.testing.assert_array_equal(answer.as_numpy("sum"), 2 * values)
        np.testing.assert_array_equal(answer.as_numpy("whole"), values.astype(np.int64))


def test_no_batch_is_larger_than_it_may_be_and_the_last_part_shares_one(server):
    def batch_sizes():
        text = server.get("/metrics")[1].decode()
        bounds = re.findall(r'^batchmill_batch_rows_bucket{model="linear",version="1",le="(\d+)"} (\d+)', text, re.M)
        return {int(bound): int(count) for bound, count in bounds}, counter(server, "rows", "linear"), counter(server, "batches", "linear")

    given = np.random.default_rng(1).standard_normal((MOST + 1, 8)).astype(np.float32)
    before = batch_sizes()

    def ask(_):
        status, answer = post(server, "linear", [tensor("x", "FP32", [MOST + 1, 8], given.ravel().tolist())])
        return status, np.array(answer["outputs"][0]["data"], np.float32).reshape(-1, 4)

    with ThreadPoolExecutor(16) as pool:
        for status, answer in pool.map(ask, range(200)):
            assert status == 200
            np.testing.assert_allclose(answer, given @ (np.arange(32, dtype=np.float32).reshape(8, 4) / 5), rtol=1e-4, atol=1e-5)
    after = batch_sizes()
    assert after[1] - before[1] == 200 * (MOST + 1)
    assert after[2] - before[2] <= 400
    assert after[0][MOST] - before[0].get(MOST, 0) == after[2] - before[2]  # all of them within the bound


def test_one_bad_row_fails_its_request_alone_and_says_why(server):
    rows = 10 * MOST
    bad = [3] * rows
    bad[5 * MOST] = 99
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda data: post(server, "lookup", [tensor("i", "INT64", [rows], data)]), [bad, [4] * rows] * 20))
    for (status, answer), wanted in zip(answers, [400, 200] * 20, strict=True):
        assert status == wanted, answer
        assert "out of" in answer["error"] if wanted == 400 else answer["outputs"][0]["data"] == [4] * rows


def test_an_answer_over_the_limit_is_refused_and_the_next_one_is_served(server):
    """Each part is small enough; together they are not."""
    given = np.zeros((8192, 512), np.uint8)
    with triton.InferenceServerClient(server.address) as client:
        with pytest.raises(triton.InferenceServerException, match="RESOURCE_EXHAUSTED"):
            client.infer("identity_uint8", [asked("x", given, "grpc")])
        assert client.infer("identity_uint8", [asked("x", given[:100], "grpc")]).as_numpy("y").shape == (100, 512)


def test_one_of_very_many_rows_runs_in_no_more_parts_than_are_worth_while(server):
    rows = 10 * 4096 * MOST
    before = counter(server, "batches", "lookup")
    asked_ = message("ModelInferRequest")(model_name="lookup", inputs=[{"name": "i", "datatype": "INT64", "shape": [rows]}],
                                          raw_input_contents=[(np.arange(rows, dtype=np.int64) % 10).tobytes()])
    with grpc.insecure_channel(server.address, [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]) as channel:
        raw = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(asked_.SerializeToString(), timeout=60)
    (answer,) = message("ModelInferResponse").FromString(raw).raw_output_contents
    np.testing.assert_array_equal(np.frombuffer(answer, np.float32), np.arange(rows) % 10)
    assert counter(server, "batches", "lookup") - before == 4096


@pytest.mark.alone
def test_others_are_served_between_its_parts_and_what_is_left_of_a_cancelled_one_is_not_run(server):
    parts, image = 200, np.zeros((1, 256, 256), np.float32)
    one = message("ModelInferRequest")(model_name="slow", inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 256, 256]}], raw_input_contents=[image.tobytes()])
    all_ = message("ModelInferRequest")(model_name="slow", inputs=[{"name": "x", "datatype": "FP32", "shape": [parts, 256, 256]}],
                                        raw_input_contents=[image.tobytes() * parts])
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        before = counter(server, "rows", "slow")
        large = call.future(all_.SerializeToString(), timeout=60)
        wait_until(lambda: in_flight(server, "slow") == 1)
        call(one.SerializeToString(), timeout=1.5)  # an earlier deadline goes first
        assert not large.done()
        large.cancel()
        wait_until(lambda: in_flight(server, "slow") == 0)
        ran = counter(server, "rows", "slow") - before
        time.sleep(0.1)
        assert ran < parts
        assert counter(server, "rows", "slow") - before <= ran + 1
        assert b'batchmill_queue_rows{model="slow",version="1"} 0' in server.get("/metrics")[1]


def test_a_deadline_that_passes_between_the_parts_ends_the_request(server):
    parts = 4000
    asked_ = message("ModelInferRequest")(model_name="lookup", inputs=[{"name": "i", "datatype": "INT64", "shape": [parts * MOST]}],
                                          raw_input_contents=[bytes(8 * parts * MOST)])
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        assert call(asked_.SerializeToString(), timeout=30)
        with pytest.raises(grpc.RpcError) as failure:
            call(asked_.SerializeToString(), timeout=0.004)
        assert failure.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        wait_until(lambda: in_flight(server, "lookup") == 0)
        assert call(asked_.SerializeToString(), timeout=30)
