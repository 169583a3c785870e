"""What is said of a single request: its id, its trace, its stage times, its line in the access log."""

from __future__ import annotations

import json
import re

import grpc
import pytest

from reference import proto

from . import models
from .server import ServerProcess

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [0] * 8}]}).encode()
WRONG = json.dumps({"id": "by-body", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 7], "data": [0] * 7}]}).encode()


def rest(server, body, **headers):
    return server.ask("/v2/models/linear/infer", "POST", body, {name.replace("_", "-"): value for name, value in headers.items()})[1]


def ask(server, *metadata):
    message = proto.message("ModelInferRequest")(
        model_name="linear", id="by-message", inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 8]}], raw_input_contents=[bytes(32)]
    )
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        _, done = call.with_call(message.SerializeToString(), metadata=metadata, timeout=10)
        return dict(done.initial_metadata()), dict(done.trailing_metadata())


def stages(text):
    return {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", text)}


def lines(server):
    return [entry for line in server.log_path.read_text().splitlines() if (entry := json.loads(line))["event"] == "request"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("access") / "registry"
    models.linear(folder)
    with ServerProcess(folder, "--access-log", "1") as process:
        yield process


def test_the_stage_times_of_a_request_add_up(server):
    for told in (rest(server, BODY, x_server_timing="1")["Server-Timing"], ask(server, ("x-server-timing", "1"))[1]["server-timing"]):
        found = stages(told)
        assert list(found) == ["decode", "queue", "assembly", "compute", "encode", "total"]
        assert 0 < sum(found.values()) - found["total"] <= found["total"] + 0.003
    assert rest(server, BODY)["Server-Timing"] is None


def test_a_request_id_comes_back(server):
    assert rest(server, BODY, x_request_id="r1")["X-Request-Id"] == "r1"
    assert rest(server, WRONG, x_request_id="r2")["X-Request-Id"] == "r2"
    assert ask(server, ("x-request-id", "g1"))[0]["x-request-id"] == "g1"


def test_each_request_is_a_line_of_the_access_log(tmp_path):
    models.linear(tmp_path / "registry")
    with ServerProcess(tmp_path / "registry", "--access-log", "1") as server:
        rest(server, BODY, x_request_id="r1", traceparent=TRACE)
        rest(server, WRONG, x_request_id="r2")
        ask(server, ("traceparent", TRACE))
        server.get("/v2/models/linear")
        assert b"\nbatchmill_access_log_dropped_requests_total 0.0\n" in server.get("/metrics")[1]
    first, second, third = lines(server)
    assert first["request_id"] == "r1"
    assert first["traceparent"] == third["traceparent"] == TRACE
    assert (first["protocol"], first["model"], first["version"], first["outcome"], first["rows"]) == ("rest", "linear", "1", "ok", 1)
    assert first["peer"].startswith("ipv4:127.0.0.1:")
    assert 0 <= first["compute_ms"] <= first["total_ms"]
    assert (second["request_id"], second["outcome"], second["version"]) == ("by-body", "invalid_argument", "1")
    assert (third["request_id"], third["protocol"], third["request_bytes"] > 32) == ("by-message", "grpc", True)


def test_without_the_flag_no_request_is_logged(tmp_path):
    models.linear(tmp_path / "registry")
    with ServerProcess(tmp_path / "registry") as server:
        rest(server, BODY)
    assert lines(server) == []
