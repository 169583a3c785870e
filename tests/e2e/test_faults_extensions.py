"""Extensions that are not offered or guarded, and what callers have put into logs (faults C)."""

from __future__ import annotations

import base64
import json

import grpc
import pytest

from reference import proto

from .faults import INFER, ask, attacked, error_of, infer, rest_body
from .test_faults_grpc import refused

GOOD = rest_body("x", "FP32", [1, 8], [0.0] * 8)
UNIMPLEMENTED, INVALID, NOT_FOUND = grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
KEYS = ["/etc/passwd", "../../etc/passwd", "nothing", "", "k" * 4096, "a\0b", "/dev/shm/batchmill", "\r\n\x1b[31m"]
SIZES = [(0, 0), (0, -1), (2**63, 2**63), (0, 64)]
SHARED = [f"{kind}SharedMemory{what}" for kind in ("System", "Cuda") for what in ("Status", "Register", "Unregister")]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with attacked(tmp_path_factory.mktemp("extensions")) as process:
        yield process


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address) as made:
        yield made


def refused_here(answer, *statuses):
    status, body = answer
    assert status in statuses, body
    return error_of(body)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: repr(key[:20]))
@pytest.mark.parametrize("kind", ["systemsharedmemory", "cudasharedmemory"])
def test_shared_memory_is_not_offered_over_rest_and_no_region_is_named(server, kind, key):
    for offset, size in SIZES:
        body = json.dumps({"key": key, "raw_handle": {"b64": key}, "device_id": 0, "offset": offset, "byte_size": size}).encode()
        refused_here(ask(server, f"/v2/{kind}/region/r/register", body), 501)
    refused_here(ask(server, f"/v2/{kind}/region/r/unregister"), 501)
    refused_here(ask(server, f"/v2/{kind}/status", method="GET"), 501)


@pytest.mark.parametrize("method", [*SHARED, "TraceSetting", "LogSettings"])
def test_what_is_not_offered_is_unimplemented_over_grpc(channel, method):
    for key in KEYS:
        message = proto.message(f"{method}Request")()
        if "Register" in method and method.startswith("System"):
            message.name, message.key, message.offset, message.byte_size = "r", key, 2**64 - 1, 2
        refused(channel, f"/inference.GRPCInferenceService/{method}", message, UNIMPLEMENTED, piece="not offered")


def with_region(what, **region):
    message = proto.message("ModelInferRequest")(model_name="linear", inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 8]}])
    holder = message.inputs[0] if what == "input" else message.outputs.add(name="y")
    for name, value in region.items():
        holder.parameters[name].CopyFrom(proto.message("InferParameter")(**{"int64_param" if isinstance(value, int) else "string_param": value}))
    if what == "output":
        message.raw_input_contents.append(bytes(32))
    return message


REGIONS = [{"shared_memory_region": "r", "shared_memory_byte_size": 32}, {"shared_memory_region": "/dev/shm/x", "shared_memory_byte_size": 2**62, "shared_memory_offset": 2**62},
           {"shared_memory_region": "r" * 4096, "shared_memory_byte_size": -1}]


@pytest.mark.parametrize("region", REGIONS, ids=["unknown", "over 2^63", "4 KB name"])
@pytest.mark.parametrize("what", ["input", "output"])
def test_a_tensor_in_shared_memory_is_refused(server, channel, what, region):
    refused(channel, INFER, with_region(what, **region), INVALID, UNIMPLEMENTED, piece="shared memory")
    given = {"name": "x", "datatype": "FP32", "shape": [1, 8], **({"parameters": region} if what == "input" else {"data": [0] * 8})}
    asked = {"inputs": [given], **({"outputs": [{"name": "y", "parameters": region}]} if what == "output" else {})}
    assert "shared memory" in refused_here(infer(server, "linear", json.dumps(asked).encode()), 400, 501)


@pytest.mark.parametrize("name", ["..", "%2e%2e%2flinear", "linear%00", "%00", "nobody", "%0d%0a", "a" * 20_000, "linear%2f1", "%ff", "."], ids=lambda name: name[:20])
@pytest.mark.parametrize("what", ["load", "unload"])
def test_a_load_call_for_what_is_no_model_is_refused(server, name, what):
    refused_here(ask(server, f"/v2/repository/models/{name}/{what}"), 400, 404)


PARAMETERS = [
    {"config": "no JSON"}, {"config": "{}"}, {"config": '{"backend": "python"}'}, {"config": 5}, {"file:1/model.onnx": base64.b64encode(b"x").decode()},
    {"config": "{}", "file:../../evil.py": base64.b64encode(b"x").decode()}, {"config": "{}", "file:/tmp/evil": base64.b64encode(b"x").decode()},
    {"config": "{}", "file:" + "f" * 256: base64.b64encode(b"x").decode()}, {"file:1/model.onnx": "no base64!"}, {"unknown": 1},
]  # fmt: skip


@pytest.mark.parametrize("parameters", PARAMETERS, ids=lambda parameters: str(parameters)[:40])
def test_files_and_settings_in_a_load_call_are_refused_and_nothing_is_written(server, tmp_path, parameters):
    registry = server.log_path.parent / "registry"
    before = sorted(registry.parent.rglob("*"))
    refused_here(ask(server, "/v2/repository/models/linear/load", json.dumps({"parameters": parameters}).encode()), 400, 403, 501)
    assert sorted(registry.parent.rglob("*")) == before
    assert infer(server, "linear", GOOD)[0] == 200


@pytest.mark.parametrize("body", [b"{", b"[]", b"5", b"\xff", b'{"parameters": []}', b'{"parameters": 5}', b"[" * 200_000, b'{"a":' * 200_000, b'{"ready":' + b"[" * 5000 + b"]" * 5000 + b"}"],
                         ids=lambda body: repr(body[:20]))
@pytest.mark.parametrize("path", ["/v2/repository/index", "/v2/repository/x/index", "/v2/repository/models/linear/load"])
def test_what_is_no_json_is_refused_by_the_repository_calls(server, path, body):
    if path.endswith("index") and b"parameters" in body:
        assert ask(server, path, body)[0] == 200     # parameters that the index has not
    else:
        refused_here(ask(server, path, body), 400)


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_a_caller_puts_into_a_name_stays_on_its_line_of_the_log(tmp_path, form):
    evil = "a\r\nb\x1b[31m\x00\u2028c"
    with attacked(tmp_path, "--access-log", "1", "--log-format", form, log_lines=10_000) as server:
        assert infer(server, "linear", rest_body("x", "FP32", [1, 8], [0.0] * 8, id=evil))[0] == 200
        refused_here(infer(server, "linear", rest_body(evil, "FP32", [1, 8], [0.0] * 8)), 400)
        refused_here(infer(server, "a%C2%9Bb%E2%80%A8c", GOOD, {"X-Request-Id": "x" * 200, "traceparent": "\x9b31m"}), 404)
        ask(server, "/v2/models/a%0Ab%1B", method="GET")
    log = server.log_path.read_text()
    assert log.replace("\n", "").isprintable()
    assert all(line.startswith("{") if form == "json" else line[2] == ":" for line in log.split("\n")[:-1])
