"""Who answers when a version fails: the next of its fallbacks, which the answer names; and a breaker that spares it."""

from __future__ import annotations

import json

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from . import models
from .server import ServerProcess
from .test_hot import wait_for

INFER = "/v2/models/count/infer"


@pytest.fixture
def registry(tmp_path):
    """Version 1 looks up 100 numbers, and version 2, which has the traffic, 2: of others its run fails."""
    for version, size in (("1", 100), ("2", 2)):
        models.table(tmp_path / "registry", "count", version, size)
    return tmp_path / "registry"


def settings(registry, text):
    (registry / "count" / "model.yaml").write_text(f"versions: {{policy: all}}\n{text}")


def body(index=50):
    return {"inputs": [{"name": "i", "datatype": "INT64", "shape": [1], "data": [index]}]}


def ask(server, index=50, path=INFER, **headers):
    """(status, version that answered or the error, who answered in its place)."""
    status, told_by, text = server.ask(path, "POST", json.dumps(body(index)).encode(), headers)
    told = json.loads(text)
    if status != 200:
        return status, told["error"], None
    assert told.get("parameters", {}).get("fallback") == told_by["x-fallback"]
    return status, told["model_version"], told_by["x-fallback"]


def row(server, version):
    return next(one for one in server.call("/admin/models")[1]["models"] if (one["model"], one["version"]) == ("count", version))


@pytest.mark.parametrize("step", ["version: 1", "version: previous"])
def test_another_version_answers_what_one_fails(registry, step):
    settings(registry, f"fallback: [{{{step}, when: [error, invalid]}}]\n")
    with ServerProcess(registry) as server:
        assert ask(server, 1) == (200, "2", None)
        assert ask(server, 50) == (200, "1", "version 1")
        assert ask(server, 50, "/v2/models/count/versions/2/infer")[0] == 400, "who names a version gets that one"
        status, error, _ = ask(server, 500)
        assert (status, "count/1" in error) == (400, True), "none can answer this"
        metrics = server.get("/metrics")[1].decode()
        assert 'batchmill_fallback_requests_total{model="count",version="2"} 2' in metrics


def test_values_that_cannot_be_run_are_the_callers_fault_unless_it_is_said_otherwise(registry):
    settings(registry, "fallback: [{version: 1}]\n")
    with ServerProcess(registry) as server:
        assert ask(server, 50)[0] == 400


def test_another_model_answers_and_says_its_name(registry):
    models.table(registry, "other", "7", 100)
    settings(registry, "fallback: [{version: 9, when: [invalid]}, {model: other, when: [invalid]}]\n")
    with ServerProcess(registry) as server:
        assert ask(server, 50) == (200, "7", "model other")


CONSTANT = "{constant: {outputs: [{name: y, datatype: FP32, shape: [1, 1], data: [-1]}]}, when: [invalid]}"


def test_what_is_constant_answers_where_nobody_else_can_a_row_for_each_that_was_asked_for(registry):
    settings(registry, f"feedback: true\nfallback: [{{version: 1, when: [invalid]}}, {CONSTANT}]\n")
    three = {"inputs": [{"name": "i", "datatype": "INT64", "shape": [3], "data": [1, 500, 0]}]}
    request = service_pb2.ModelInferRequest(model_name="count", raw_input_contents=[np.array([500], np.int64).tobytes()])
    request.inputs.add(name="i", datatype="INT64", shape=[1])
    with ServerProcess(registry) as server, grpc.insecure_channel(server.address) as channel:
        assert ask(server, 50) == (200, "1", "version 1")
        assert ask(server, 500) == (200, "1", "constant")
        _, told = server.call(INFER, "POST", three)
        assert told["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [3, 1], "data": [-1.0, -1.0, -1.0]}]
        assert told["parameters"] == {"fallback": "constant"}, "nobody predicted that: no token"
        answer, done = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.with_call(request)
        assert (np.frombuffer(answer.raw_output_contents[0], np.float32), dict(done.trailing_metadata())["x-fallback"]) == ([-1], "constant")


def test_a_constant_has_the_rows_that_were_asked_for_when_one_before_it_takes_no_such_request(registry):
    models.linear(registry, "linear", "1")
    settings(registry, f"fallback: [{{model: linear, when: [invalid]}}, {CONSTANT}]\n")
    three = {"inputs": [{"name": "i", "datatype": "INT64", "shape": [3], "data": [1, 500, 0]}]}
    with ServerProcess(registry) as server:
        assert server.call(INFER, "POST", three)[1]["outputs"][0]["shape"] == [3, 1]


def test_grpc_answers_say_it_in_a_trailer_and_a_parameter(registry):
    settings(registry, "feedback: true\nfallback: [{version: 1, when: [invalid]}]\n")
    request = service_pb2.ModelInferRequest(model_name="count", raw_input_contents=[np.array([50], np.int64).tobytes()])
    request.inputs.add(name="i", datatype="INT64", shape=[1])
    with ServerProcess(registry) as server, grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer, done = stub.ModelInfer.with_call(request)
        trailers = dict(done.trailing_metadata())
        assert (answer.model_version, answer.parameters["fallback"].string_param, trailers["x-fallback"]) == ("1", "version 1", "version 1")
        assert trailers["x-feedback-token"] == answer.parameters["feedback_token"].string_param
        (streamed,) = stub.ModelStreamInfer(iter([request]))
        assert streamed.infer_response.parameters["fallback"].string_param == "version 1"


def test_requests_that_share_a_batch_fall_back_one_by_one(registry):
    import concurrent.futures

    settings(registry, "fallback: [{version: 1, when: [invalid]}]\nbatching: {max_queue_delay_us: 20000}\n")
    with ServerProcess(registry) as server, concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: ask(server, 50 if number % 3 else 1), range(96)))
    assert found == [(200, "1", "version 1") if number % 3 else (200, "2", None) for number in range(96)]


def test_a_run_that_takes_too_long_is_the_models_fault(registry):
    models.endless(registry)
    (registry / "endless" / "model.yaml").write_text("run_timeout_ms: 100\ninstances: {run_on: executor}\nfallback: [{model: spare}]\n")
    models.endless_spare(registry, "spare")
    request = {"inputs": [{"name": "x", "datatype": "INT64", "shape": [1], "data": [0]}, {"name": "n", "datatype": "INT64", "shape": [], "data": [10**9]}]}
    with ServerProcess(registry) as server:
        _, headers, answer = server.ask("/v2/models/endless/infer", "POST", json.dumps(request).encode())
        assert (json.loads(answer)["model_name"], headers["x-fallback"]) == ("spare", "model spare")


def test_a_deadline_that_cannot_be_met_goes_to_one_who_can(registry):
    models.slow(registry)
    models.identity(registry, "FP32", ["n", 256, 256], "fast")
    (registry / "slow" / "model.yaml").write_text("fallback: [{model: fast}]\n")
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 256, 256], "parameters": {"binary_data_size": 1 << 18}}],
                       "parameters": {"binary_data_output": True}}).encode()
    body = head + np.zeros((1, 256, 256), np.float32).tobytes()

    def asked(server, **headers):
        status, told, _ = server.ask("/v2/models/slow/infer", "POST", body, {"Inference-Header-Content-Length": str(len(head)), **headers})
        assert status == 200
        return told["x-fallback"]

    with ServerProcess(registry) as server:
        assert [asked(server) for _ in range(4)] == [None] * 4
        assert asked(server, **{"x-request-timeout-ms": "20"}) == "model fast"


def test_a_breaker_opens_is_tried_and_closes(registry):
    settings(registry, "breaker: {failures: 0.5, window_s: 10, min_requests: 4, open_s: 0.5, when: [error, invalid]}\n")
    with ServerProcess(registry) as server:
        assert row(server, "2")["breaker"] == "closed"
        assert [ask(server, 50)[0] for _ in range(4)] == [400] * 4
        status, error, _ = ask(server, 1)
        assert (status, error) == (503, 'the breaker of version 2 of model "count" is open: its runs keep failing')
        assert row(server, "2")["breaker"] == "open"
        assert ask(server, 1, "/v2/models/count/versions/1/infer")[0] == 200, "each version has its own"
        wait_for(lambda: ask(server, 1)[0] == 200)
        wait_for(lambda: ask(server, 1)[0] == 200 and row(server, "2")["breaker"] == "closed")
        assert 'batchmill_breaker_opened_total{model="count",version="2"} 1' in server.get("/metrics")[1].decode()
        wait_for(lambda: "breaker_closed" in server.log_path.read_text())
        assert "breaker_open" in server.log_path.read_text()


def test_an_open_breaker_sends_requests_to_the_fallback_without_a_run(registry):
    settings(registry, "breaker: {min_requests: 4, open_s: 60, when: [invalid]}\nfallback: [{version: 1}]\n")
    with ServerProcess(registry) as server:
        assert [ask(server, 50)[0] for _ in range(4)] == [400] * 4
        assert ask(server, 1) == (200, "1", "version 1")


@pytest.mark.parametrize(("text", "wanted"), [
    ("breaker: {failures: 2}", "breaker.failures"),
    ("breaker: {opens_s: 2}", "did you mean 'open_s'"),
    ("fallback: [{}]", "a version, a model or a constant"),
    ("fallback: [{version: 1, model: other}]", "a version, a model or a constant"),
    ("fallback: [{constant: {outputs: [{name: y, datatype: FP32, shape: [2], data: [1]}]}}]", "outputs that can be read"),
    ("fallback: [{constant: {outputs: []}}]", "outputs"),
    ("fallback: [{constant: 3}]", "{outputs: [...]}"),
    ("fallback: [{version: older}]", "previous, or the number of a version"),
    ("fallback: {version: 1}", "a list of at most 4"),
    ("fallback: [{version: 1, when: [never]}]", "a list of error and invalid"),
    ("feedback: 3", "true, false or the name of an output"),
])
def test_what_is_wrong_in_the_file_is_told(tmp_path, text, wanted):
    from batchmill.errors import ConfigError
    from batchmill.registry import model_config

    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        model_config.read(tmp_path / "model.yaml")
    assert wanted in str(caught.value)
