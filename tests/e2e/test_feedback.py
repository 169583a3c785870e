"""Ground truth of answers: tokens over every protocol, what is told by them over REST and gRPC, and which version is better."""

from __future__ import annotations

import json

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from batchmill.proto import admin_pb2, admin_pb2_grpc

from . import models, wire
from .server import ServerProcess
from .test_hot import ROW, wait_for

BOTH = "versions: {policy: all}\n"
INFER, TELL, ADMIN = "/v2/models/linear/infer", "/v2/models/linear/feedback", "/admin/models/linear"


def contrary(registry):
    """Of a row of ones version 1 says class 3, and version 2 class 0."""
    models.linear(registry, "linear", "1", 1.0)
    models.linear(registry, "linear", "2", -1.0)
    (registry / "linear" / "model.yaml").write_text(f"{BOTH}feedback: true\n")
    return registry


@pytest.fixture
def registry(tmp_path):
    return contrary(tmp_path / "registry")


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """For calls that are refused: one server for all of them."""
    with ServerProcess(contrary(tmp_path_factory.mktemp("unchanged") / "registry")) as running:
        yield running


@pytest.fixture
def server(registry):
    with ServerProcess(registry) as running:
        yield running


def asked(server, parameters=None, path=INFER, inputs=ROW):
    """(version, token) of an answer."""
    body = {"inputs": inputs, **({"parameters": parameters} if parameters is not None else {})}
    status, headers, text = server.ask(path, "POST", json.dumps(body).encode())
    assert status == 200, text
    answer = json.loads(text)
    assert headers["x-feedback-token"] == answer["parameters"]["feedback_token"]
    return answer["model_version"], answer["parameters"]["feedback_token"]


def tell(server, *feedback):
    status, answer = server.call(TELL, "POST", {"feedback": [*feedback]})
    assert status == 200, answer
    return answer


def quality(server):
    return server.call(f"{ADMIN}/quality")[1]


def grpc_request(**fields):
    request = service_pb2.ModelInferRequest(model_name="linear", raw_input_contents=[np.ones((1, 8), np.float32).tobytes()], **fields)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 8])
    return request


def test_labels_by_tokens_alone_tell_which_version_is_right(server):
    server.call(f"{ADMIN}/route", "PUT", {"weights": {"1": 50, "2": 50}})
    answers = [asked(server) for _ in range(200)]
    assert {version for version, _ in answers} == {"1", "2"}
    assert tell(server, *({"token": token, "label": 3} for _, token in answers)) == {"counted": 200, "rejected": []}
    told = quality(server)
    assert {row["version"]: (row["judged"], row["accuracy"]) for row in told["versions"]} == {
        version: (sum(one == version for one, _ in answers), float(version == "1")) for version in "12"}
    (verdict,) = told["verdicts"]
    assert {verdict["version"], verdict["than"]} == {"1", "2"}
    assert verdict["verdict"] == ("better" if verdict["version"] == "1" else "worse")
    assert verdict["text"] in server.command("quality", "linear").stdout
    metrics = server.get("/metrics")[1].decode()
    assert f'batchmill_feedback_correct_answers_total{{model="linear",version="1"}} {float(sum(one == "1" for one, _ in answers))}' in metrics


def test_grpc_answers_carry_tokens_and_feedback_goes_over_grpc(server):
    with grpc.insecure_channel(server.address) as channel:
        stub, admin = service_pb2_grpc.GRPCInferenceServiceStub(channel), admin_pb2_grpc.AdminStub(channel)
        answer, done = stub.ModelInfer.with_call(grpc_request())
        token = answer.parameters["feedback_token"].string_param
        assert dict(done.trailing_metadata())["x-feedback-token"] == token
        streamed = [one.infer_response.parameters["feedback_token"].string_param for one in stub.ModelStreamInfer(iter([grpc_request(), grpc_request(id="7")]))]
        assert len({token, *streamed}) == 3
        given = [admin_pb2.Feedback(token=token, label=admin_pb2.Class(number=0)), admin_pb2.Feedback(token=streamed[0], reward=0.5),
                 admin_pb2.Feedback(token=streamed[1], label=admin_pb2.Class(text="cat"), prediction=admin_pb2.Class(text="dog")),
                 admin_pb2.Feedback(token=token, correct=True)]
        taken = admin.SendFeedback(admin_pb2.SendFeedbackRequest(model="linear", feedback=given))
        assert (taken.counted, [(one.index, one.reason) for one in taken.rejected]) == (3, [(3, "repeated")])
        told = admin.GetQuality(admin_pb2.GetQualityRequest(model="linear"))
        assert [(row.version, row.judged, row.correct, row.rewards, row.reward) for row in told.versions] == [("2", 2, 1, 1, 0.5)]
        assert (told.feedback, dict(told.rejected)) == (True, {"repeated": 1})
        with pytest.raises(grpc.RpcError) as caught:
            admin.SendFeedback(admin_pb2.SendFeedbackRequest(model="linear", feedback=[admin_pb2.Feedback(token=token)]))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "label, correct or reward wanted" in caught.value.details()


@pytest.mark.parametrize("parameters", [None, {}, {"tenant": "a\"b"}])
def test_a_token_joins_the_parameters_that_are_answered(server, parameters):
    _, answer = server.call(INFER, "POST", {"inputs": ROW, **({"parameters": parameters} if parameters is not None else {})})
    token = answer["parameters"].pop("feedback_token")
    assert len(token) == 48
    assert answer["parameters"] == (parameters or {})


def test_the_other_ways_to_an_answer_carry_tokens(server):
    body = json.dumps({"inputs": ROW, "parameters": {"binary_data_output": True}}).encode()
    _, headers, answer = server.ask(INFER, "POST", body)
    size = int(headers["Inference-Header-Content-Length"])
    assert json.loads(answer[:size])["parameters"]["feedback_token"] == headers["x-feedback-token"]
    with wire.Http2(server.port) as connection:
        connection.ask(INFER, json.dumps({"inputs": ROW}).encode(), ("content-type", "application/json"))
        token = json.loads(next(connection.answers()))["parameters"]["feedback_token"]
    assert tell(server, {"token": token, "label": 0})["counted"] == 1
    version, token = asked(server, path="/v2/models/linear/versions/2/infer")
    assert (version, tell(server, {"token": token, "correct": True})["counted"]) == ("2", 1)


def test_a_request_of_many_rows_has_one_token_without_a_class(server):
    many = [{"name": "x", "datatype": "FP32", "shape": [3, 8], "data": [1.0] * 24}]
    _, token = asked(server, inputs=many)
    assert [one["reason"] for one in tell(server, {"token": token, "label": 0})["rejected"]] == ["no_prediction"]
    assert tell(server, {"token": token, "reward": 0.9})["counted"] == 1


def test_a_model_that_asks_for_no_feedback_carries_none_and_takes_it_up_without_loading_anew(server, registry):
    (registry / "linear" / "model.yaml").write_text(BOTH)
    wait_for(lambda: "x-feedback-token" not in server.ask(INFER, "POST", json.dumps({"inputs": ROW}).encode())[1])
    assert "parameters" not in server.call(INFER, "POST", {"inputs": ROW})[1]
    before = server.call("/admin/models")[1]["models"]
    assert server.call(f"{ADMIN}/tuning", "PATCH", {"feedback": "y"})[0] == 200
    _, token = asked(server)
    assert tell(server, {"token": token, "label": 0})["counted"] == 1
    assert server.call("/admin/models")[1]["models"] == before
    assert server.call(f"{ADMIN}/tuning", "PATCH", {"feedback": "no such output"})[0] == 200
    assert tell(server, {"token": asked(server)[1], "label": 0})["rejected"][0]["reason"] == "no_prediction"


def test_tokens_and_counts_outlive_a_restart(registry):
    with ServerProcess(registry) as server:
        _, late = asked(server)
        tell(server, {"token": asked(server)[1], "label": 0})
    with ServerProcess(registry) as server:
        assert quality(server)["versions"][0]["correct"] == 1
        assert tell(server, {"token": late, "label": 0})["counted"] == 1
        assert quality(server)["versions"][0]["correct"] == 2


def test_tokens_that_are_too_old_are_refused(registry):
    with ServerProcess(registry, "--feedback-max-age-secs", "0") as server:
        _, token = asked(server)
        wait_for(lambda: "expired" in [one["reason"] for one in tell(server, {"token": token, "label": 0})["rejected"]])


@pytest.mark.parametrize(("body", "text"), [
    ({"feedback": [{"token": "x", "label": 1}, {"token": "x"}]}, "feedback.1: {'token': 'x'} given, label, correct or reward wanted"),
    ({"feedback": [{"token": "x", "label": 1.5}]}, "feedback.0.label"),
    ({"feedback": [{"token": "x", "lable": 1}]}, "feedback.0.lable"),
    ({"feedback": [{"label": 1}]}, "feedback.0.token"),
    ({"feedback": [{"token": "x", "reward": "high"}]}, "feedback.0.reward"),
    ({"feedback": {}}, "feedback"),
    ({}, "feedback"),
    ({"feedback": [{"token": "x", "label": 1}] * 10_001}, "at most 10000"),
])
def test_what_is_no_feedback_is_told_and_counts_nothing(unchanged, body, text):
    status, answer = unchanged.call(TELL, "POST", body)
    assert (status, text in answer["error"]) == (400, True), answer
    assert quality(unchanged)["rejected"] == {}


def test_a_model_that_is_not_there_is_not_found(server):
    assert server.call("/v2/models/none/feedback", "POST", {"feedback": []})[0] == 404
    assert server.call("/admin/models/none/quality")[0] == 404
    assert server.call(f"{ADMIN}/quality?generation=x")[0] == 400


def test_routes_over_grpc_are_those_of_rest_and_guarded_alike(registry, tmp_path):
    (tmp_path / "key").write_text("a-secret-of-16-characters")
    with ServerProcess(registry, "--admin-key-file", str(tmp_path / "key")) as server, grpc.insecure_channel(server.address) as channel:
        admin, key = admin_pb2_grpc.AdminStub(channel), [("authorization", "Bearer a-secret-of-16-characters")]
        with pytest.raises(grpc.RpcError) as caught:
            admin.Promote(admin_pb2.PromoteRequest(model="linear", version="1"))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        rule = admin_pb2.Rule(header="x-tenant", equals="acme", version="2")
        told = admin.SetRoute(admin_pb2.SetRouteRequest(model="linear", weights={"1": 90, "2": 10}, rules=[rule]), metadata=key)
        assert (dict(told.weights), told.generation, [*told.rules]) == ({"1": 90, "2": 10}, 1, [rule])
        assert admin.Promote(admin_pb2.PromoteRequest(model="linear", version="2"), metadata=key).weights == {"2": 100}
        assert admin.Rollback(admin_pb2.RollbackRequest(model="linear"), metadata=key).weights == {"1": 90, "2": 10}
        assert admin.SetLabel(admin_pb2.SetLabelRequest(model="linear", label="best", version="2"), metadata=key).labels == {"best": "2"}
        assert admin.RemoveLabel(admin_pb2.RemoveLabelRequest(model="linear", label="best"), metadata=key).labels == {}
        assert admin.GetRoute(admin_pb2.GetRouteRequest(model="linear")).shares["1"].configured == 0.9
        assert server.call(f"{ADMIN}/route")[1]["weights"] == {"1": 90, "2": 10}
        assert admin.ClearRoute(admin_pb2.ClearRouteRequest(model="linear"), metadata=key).weights == {}
        with pytest.raises(grpc.RpcError) as caught:
            admin.SetRoute(admin_pb2.SetRouteRequest(model="linear", weights={"one": 1}), metadata=key)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "weights.one" in caught.value.details()
