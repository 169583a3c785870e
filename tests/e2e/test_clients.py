"""Real clients of other people against the running server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import numpy as np
import pytest

tritongrpc = pytest.importorskip("tritonclient.grpc")
tritonhttp = pytest.importorskip("tritonclient.http")
import tritonclient.grpc.aio as tritongrpc_aio  # noqa: E402
import tritonclient.http.aio as tritonhttp_aio  # noqa: E402

ROWS = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
WEIGHTS = np.arange(32, dtype=np.float32).reshape(8, 4) / 10


def samples(datatype):
    if datatype == "BYTES":
        return np.array([[b"a", b"", b"\x00\xff"], [b"xyz", "\u00e9".encode(), b"0" * 300]], dtype=object)
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    kind = {"UINT": np.iinfo, "INT": np.iinfo}.get(datatype.rstrip("0123456789"))
    dtype = {"FP16": "f2", "FP32": "f4", "FP64": "f8"}.get(datatype) or datatype.lower()
    if kind:
        info = kind(dtype)
        return np.array([[info.min, info.max, 0], [1, 2, 3]], dtype=dtype)
    return np.array([[0.5, -1.25, 3.0], [1e-3, 100, np.inf]], dtype=dtype)


DATATYPES = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"]


def triton_input(module, name, array, datatype, **binary):
    given = module.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, **binary)
    return given


@pytest.mark.parametrize("datatype", DATATYPES)
def test_tritonclient_grpc_gets_every_datatype_back(server, datatype):
    array = samples(datatype)
    with tritongrpc.InferenceServerClient(server.address) as client:
        answer = client.infer(f"identity_{datatype.lower()}", [triton_input(tritongrpc, "x", array, datatype)], request_id="abc")
    assert answer.get_response().id == "abc"
    assert np.array_equal(answer.as_numpy("y"), array)


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_http_gets_every_datatype_back(server, datatype, binary):
    array = samples(datatype)
    if not binary and datatype == "FP16":
        pytest.skip("FP16 travels only as binary data")
    if not binary and datatype == "BYTES":
        array = np.array([[b"a", b"", b"b"], [b"xyz", "\u00e9".encode(), b"0" * 300]], dtype=object)
    if not binary and datatype in ("FP32", "FP64"):
        array = np.nan_to_num(array, posinf=2.0)
    with tritonhttp.InferenceServerClient(server.address) as client:
        answer = client.infer(f"identity_{datatype.lower()}", [triton_input(tritonhttp, "x", array, datatype, binary_data=binary)],
                              outputs=[tritonhttp.InferRequestedOutput("y", binary_data=binary)])
    got = answer.as_numpy("y")
    if not binary and datatype == "BYTES":
        got = np.array([[text.encode() for text in row] for row in got.tolist()], dtype=object)
    assert np.array_equal(got, array)


def test_bf16_travels_raw(server):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([[1.0, -2.5, 3.0]], dtype=ml_dtypes.bfloat16)
    with tritongrpc.InferenceServerClient(server.address) as client:
        answer = client.infer("identity_bf16", [triton_input(tritongrpc, "x", array, "BF16")])
    assert np.array_equal(answer.as_numpy("y"), array)


def test_tritonclient_finds_its_way(server):
    with tritongrpc.InferenceServerClient(server.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("linear")
        assert client.is_model_ready("linear", "2")
        assert client.get_server_metadata().name == "batchmill"
        metadata = client.get_model_metadata("linear")
        assert [tuple(i.shape) for i in metadata.inputs] == [(-1, 8)]
        assert sorted(metadata.versions) == ["1", "2"]
        assert client.get_model_config("linear").config.name == "linear"
    with tritonhttp.InferenceServerClient(server.address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("linear")
        assert client.get_model_metadata("linear")["inputs"][0]["shape"] == [-1, 8]
        assert client.get_model_config("linear")["name"] == "linear"


@pytest.mark.parametrize(("version", "factor"), [("1", 2), ("2", 3), ("", 3)])
def test_the_version_asked_for_answers_and_the_newest_by_default(server, version, factor):
    with tritongrpc.InferenceServerClient(server.address) as client:
        answer = client.infer("linear", [triton_input(tritongrpc, "x", ROWS, "FP32")], model_version=version)
    assert answer.get_response().model_version == (version or "2")
    assert np.allclose(answer.as_numpy("y"), ROWS @ WEIGHTS * factor, rtol=1e-5)


def test_a_label_picks_its_version(server):
    with tritongrpc.InferenceServerClient(server.address) as client:
        assert client.infer("linear@stable", [triton_input(tritongrpc, "x", ROWS, "FP32")]).get_response().model_version == "1"


def test_tritonclient_aio_both_protocols(server):
    async def ask():
        async with tritongrpc_aio.InferenceServerClient(server.address) as grpc_client, \
                tritonhttp_aio.InferenceServerClient(server.address) as http_client:
            over_grpc = [grpc_client.infer("linear", [triton_input(tritongrpc, "x", ROWS, "FP32")]) for _ in range(50)]
            over_http = [http_client.infer("linear", [triton_input(tritonhttp, "x", ROWS, "FP32")]) for _ in range(50)]
            return [answer.as_numpy("y") for answer in await asyncio.gather(*over_grpc, *over_http)]

    for answer in asyncio.run(ask()):
        assert np.allclose(answer, ROWS @ WEIGHTS * 3, rtol=1e-5)


def test_tritonclient_aio_reads_long_answers(server):
    """It says that it reads gzip in every call, and reads it in the answers of inferences alone."""
    async def ask():
        async with tritonhttp_aio.InferenceServerClient(server.address) as client:
            return await client.get_model_repository_index(), await client.infer("linear", [triton_input(tritonhttp, "x", np.repeat(ROWS, 100, 0), "FP32")])

    index, answer = asyncio.run(ask())
    assert len(json.dumps(index)) > 1024
    assert {"name": "linear", "version": "2", "state": "READY", "reason": ""} in index
    assert answer.as_numpy("y").shape == (200, 4)


def test_tritonclient_stream_keeps_the_order_and_survives_a_bad_message(server):
    answers = []
    with tritongrpc.InferenceServerClient(server.address) as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        for index in range(100):
            wrong = index == 50
            client.async_stream_infer("linear", [triton_input(tritongrpc, "z" if wrong else "x", ROWS + index, "FP32")], request_id=str(index))
        client.stop_stream()
    assert len(answers) == 100
    for index, (result, error) in enumerate(answers):
        if index == 50:
            assert "missing" in str(error)
        else:
            assert result.get_response().id == str(index)
            assert np.allclose(result.as_numpy("y"), (ROWS + index) @ WEIGHTS * 3, rtol=1e-4)


def test_curl_speaks_rest_over_http_1_and_2(server):
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 8], "data": ROWS.ravel().tolist()}]})
    for flag in ("--http1.1", "--http2-prior-knowledge"):
        done = subprocess.run(["curl", "-sS", "--fail", flag, "-d", body, "-H", "content-type: application/json",
                               f"{server.url}/v2/models/linear/infer"], capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        assert answer["model_version"] == "2"
        assert np.allclose(np.array(answer["outputs"][0]["data"]).reshape(2, 4), ROWS @ WEIGHTS * 3, rtol=1e-5)
        done = subprocess.run(["curl", "-sS", "--fail", flag, f"{server.url}/v2"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["name"] == "batchmill"


GRPCIO = """
import sys, grpc, numpy as np
from batchmill.proto import inference_pb2 as pb, inference_pb2_grpc
channel = grpc.insecure_channel(sys.argv[1])
stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
rows = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)
def request(**k):
    r = pb.ModelInferRequest(model_name="linear", **k)
    r.inputs.add(name="x", datatype="FP32", shape=[2, 8])
    return r
raw = request(); raw.raw_input_contents.append(rows.tobytes())
typed = request(); typed.inputs[0].contents.fp32_contents.extend(rows.ravel().tolist())
typed.parameters["binary_data_output"].bool_param = False
a, b = stub.ModelInfer(raw), stub.ModelInfer(typed, timeout=5)
assert a.raw_output_contents and not a.outputs[0].HasField("contents")
assert b.outputs[0].contents.fp32_contents and not b.raw_output_contents
assert np.allclose(np.frombuffer(a.raw_output_contents[0], np.float32), b.outputs[0].contents.fp32_contents)
def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
assert code(lambda: stub.ModelInfer(pb.ModelInferRequest(model_name="nobody")))[0] == "NOT_FOUND"
assert code(lambda: stub.ModelInfer(request()))[0] == "INVALID_ARGUMENT"
slow = pb.ModelInferRequest(model_name="slow")
slow.inputs.add(name="x", datatype="FP32", shape=[1, 256, 256])
slow.raw_input_contents.append(bytes(256 * 256 * 4))
assert code(lambda: stub.ModelInfer(slow, timeout=0.02))[0] == "DEADLINE_EXCEEDED"
assert code(lambda: stub.ModelMetadata(pb.ModelMetadataRequest(name="nobody"))) == ("NOT_FOUND", "Request for unknown model 'nobody'")
assert code(lambda: stub.SystemSharedMemoryStatus(pb.SystemSharedMemoryStatusRequest()))[0] == "UNIMPLEMENTED"
call = channel.unary_unary("/nobody.Nothing/Never")
assert code(lambda: call(b""))[0] == "UNIMPLEMENTED"
from grpc_health.v1 import health_pb2, health_pb2_grpc
health = health_pb2_grpc.HealthStub(channel)
assert health.Check(health_pb2.HealthCheckRequest()).status == 1
watch = health.Watch(health_pb2.HealthCheckRequest())
assert next(watch).status == 1
watch.cancel()
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
assert "inference.GRPCInferenceService" in ProtoReflectionDescriptorDatabase(channel).get_services()
print("fine")
"""


def test_grpcio_with_generated_stubs_health_and_reflection(server):
    done = subprocess.run([sys.executable, "-c", GRPCIO, server.address], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "fine", done.stderr


def test_parameters_come_back_with_the_answer(server):
    row = {"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [1] * 8}
    asked = {"priority": 0, "mine": "caf\u00e9", "deep": {"a": [1, None]}}
    assert server.call("/v2/models/linear/infer", "POST", {"inputs": [row], "parameters": asked})[1]["parameters"] == asked
    with tritongrpc.InferenceServerClient(server.address) as client:
        answer = client.infer("linear", [triton_input(tritongrpc, "x", ROWS, "FP32")], parameters={"mine": "text", "count": 3, "flag": True})
    told = answer.get_response().parameters
    assert {name: getattr(told[name], told[name].WhichOneof("parameter_choice")) for name in told} == {"mine": "text", "count": 3, "flag": True}


def test_a_wrong_input_name_is_told_with_the_one_that_is_wanted(server):
    with tritongrpc.InferenceServerClient(server.address) as client, pytest.raises(Exception, match=r'input "x" of linear/2: missing; "image" was given'):
        client.infer("linear", [triton_input(tritongrpc, "image", ROWS, "FP32")])


def test_a_deadline_counts_until_the_answer_is_there(server):
    """A run that is under way is not broken off, but its answer comes too late to be one. Who is known to be late is told before."""
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [8, 256, 256], "data": [0.5] * (8 * 256 * 256)}]}).encode()
    for milliseconds, status in ((60, 504), (20_000, 200), (60, 504)):      # the run alone takes some hundred
        assert server.ask("/v2/models/slow/infer", "POST", body, {"x-request-timeout-ms": str(milliseconds)})[0] == status
