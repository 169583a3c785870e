"""gzip and deflate, both ways, over every protocol, by the clients that people use."""

from __future__ import annotations

import functools
import gzip
import json
import subprocess
import zlib
from pathlib import Path

import h2.events
import numpy as np
import pytest

from . import models
from .server import ServerProcess
from .wire import Http2

grpc = pytest.importorskip("grpc")
tritongrpc = pytest.importorskip("tritonclient.grpc")
tritonhttp = pytest.importorskip("tritonclient.http")
from tritonclient.grpc import service_pb2, service_pb2_grpc  # noqa: E402

packed = functools.partial(gzip.compress, mtime=0)  # the time of a run in the names of tests would make each run have others
COMPRESS = {"gzip": packed, "deflate": zlib.compress}
PLAIN = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}
ROWS = np.tile(np.arange(8, dtype=np.float32), (500, 1))
BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [500, 8], "data": ROWS.ravel().tolist()}]}).encode()
INFER = "/v2/models/linear/infer"
HTTP = ["--http1.1", "--http2-prior-knowledge"]
MIB = 1 << 20


def curl(server, path, *arguments, body=None):
    """(status, headers in lower case, body)."""
    command = ["curl", "-s", "-i", "--max-time", "20", server.url + path, *arguments, *(["--data-binary", "@-"] if body is not None else [])]
    done = subprocess.run(command, input=body, capture_output=True, check=True).stdout
    head, _, answer = done.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}, answer


@pytest.mark.parametrize("transport", HTTP)
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_rest_takes_and_gives_compressed_bodies(server, transport, coding):
    plain = curl(server, INFER, transport, body=BODY)
    status, headers, answer = curl(server, INFER, transport, "-H", f"Content-Encoding: {coding}", "-H", f"Accept-Encoding: {coding}",
                                   body=COMPRESS[coding](BODY))
    assert (status, headers["content-encoding"]) == (200, coding)
    assert len(answer) == int(headers["content-length"]) < len(plain[2])
    assert PLAIN[coding](answer) == plain[2]
    assert plain[0] == 200
    assert "content-encoding" not in plain[1]


@pytest.mark.parametrize(("accepts", "coding"), [
    ("gzip, deflate", "gzip"), ("deflate, br", "deflate"), ("*", "gzip"), ("gzip;q=0, deflate;q=0.5", "deflate"), ("br", None), ("identity", None),
    ("gzip;q=0.000", None), ("GZIP ; q=1", "gzip"), ("", None),
])  # fmt: skip
def test_an_answer_is_coded_as_the_caller_can_read(server, accepts, coding):
    _, headers, answer = curl(server, INFER, "-H", f"Accept-Encoding: {accepts}", body=BODY)
    assert headers.get("content-encoding") == coding
    assert json.loads(PLAIN[coding](answer))["outputs"][0]["shape"] == [500, 4]


@pytest.mark.parametrize("transport", HTTP)
def test_a_short_answer_and_an_error_stay_plain(server, transport):
    short = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [1] * 8}]}).encode()
    for body, wanted in ((short, 200), (b"{}", 400)):
        status, headers, answer = curl(server, INFER, transport, "-H", "Accept-Encoding: gzip", body=body)
        assert status == wanted
        assert "content-encoding" not in headers
        assert json.loads(answer)


@pytest.mark.parametrize("transport", HTTP)
@pytest.mark.parametrize(("headers", "body", "status", "text"), [
    (["br"], BODY, 415, "gzip, deflate or identity wanted"), (["gzip", "gzip"], packed(packed(BODY)), 415, "once"),
    (["gzip, gzip"], packed(packed(BODY)), 415, "wanted"), (["gzip"], BODY, 400, "damaged"), (["deflate"], BODY, 400, "damaged"),
    (["gzip"], packed(BODY)[:-4], 400, "cut short"), (["gzip"], b"", 400, "cut short"), (["deflate"], zlib.compress(BODY) + b"x", 400, "ends before"),
    (["gzip"], packed(packed(BODY)), 400, "given, an object wanted"),
])  # fmt: skip
def test_what_cannot_be_decompressed_is_the_callers_mistake(server, transport, headers, body, status, text):
    lines = [part for value in headers for part in ("-H", f"Content-Encoding: {value}")]
    got, answered, answer = curl(server, INFER, transport, *lines, body=body)
    assert got == status
    assert text in json.loads(answer)["error"]
    assert status != 415 or answered["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize("transport", HTTP)
def test_calls_that_python_answers_take_and_give_compressed_bodies(server, transport):
    index = "/v2/repository/index"
    plain = curl(server, index, transport, body=b'{"ready": true}')
    status, headers, answer = curl(server, index, transport, "-H", "Content-Encoding: gzip", "-H", "Accept-Encoding: gzip", body=packed(b'{"ready": true}'))
    assert (status, "content-encoding" in headers, answer) == (200, False, plain[2])  # see test_tritonclient_aio_reads_long_answers
    status, headers, answer = curl(server, "/metrics", transport, "-H", "Accept-Encoding: gzip")
    assert (status, headers["content-encoding"]) == (200, "gzip")
    assert b"batchmill_requests_total" in gzip.decompress(answer)
    for coding, body, wanted in (("br", b"{}", 415), ("gzip", b"{}", 400), ("deflate", zlib.compress(b"[]"), 400)):
        status, _, answer = curl(server, index, transport, "-H", f"Content-Encoding: {coding}", body=body)
        assert status == wanted
        assert json.loads(answer)["error"]


def triton_input(module, rows=ROWS):
    given = module.InferInput("x", list(rows.shape), "FP32")
    given.set_data_from_numpy(rows)
    return given


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_tritonclient_compresses_over_http(server, coding):
    with tritonhttp.InferenceServerClient(server.address) as client:
        plain = client.infer("linear", [triton_input(tritonhttp)]).as_numpy("y")
        got = client.infer("linear", [triton_input(tritonhttp)], request_compression_algorithm=coding, response_compression_algorithm=coding)
    assert np.array_equal(got.as_numpy("y"), plain)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_tritonclient_compresses_over_grpc(server, coding):
    with tritongrpc.InferenceServerClient(server.address) as client:
        plain = client.infer("linear", [triton_input(tritongrpc)]).as_numpy("y")
        got = client.infer("linear", [triton_input(tritongrpc)], compression_algorithm=coding)
        assert np.array_equal(got.as_numpy("y"), plain)


def request(rows=ROWS):
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=rows.shape)
    return service_pb2.ModelInferRequest(model_name="linear", inputs=[tensor], raw_input_contents=[rows.tobytes()])


@pytest.mark.parametrize(("coding", "accepts", "answered"), [
    ("gzip", "identity, deflate, gzip", "gzip"), ("deflate", "identity,deflate,gzip", "deflate"), ("gzip", "identity, deflate", None),
    ("gzip", None, None), (None, "identity, deflate, gzip", None),
])  # fmt: skip
def test_a_grpc_answer_has_the_coding_of_its_request_where_the_caller_can_read_it(server, coding, accepts, answered):
    """Most clients say that they can read gzip, few want it: so what the request came in decides."""
    body = request().SerializeToString()
    status, headers, data = grpc_call(server, "ModelInfer", coding, framed(COMPRESS[coding](body)) if coding else framed(body, 0), accepts)
    assert (status, headers.get("grpc-encoding"), data[0]) == (0, answered, 1 if answered else 0)
    message = service_pb2.ModelInferResponse.FromString(PLAIN[answered](data[5:]))
    assert int.from_bytes(data[1:5], "big") == len(data) - 5
    assert len(message.raw_output_contents[0]) == 500 * 4 * 4


def test_a_grpc_stream_carries_compressed_messages_and_goes_on_after_a_bad_one(server):
    bad = request()
    bad.inputs[0].shape[0] = 7
    with grpc.insecure_channel(server.address, compression=grpc.Compression.Gzip) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers = list(stub.ModelStreamInfer(iter([request(), bad, request()])))
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert answers[0].infer_response.raw_output_contents == answers[2].infer_response.raw_output_contents


def test_short_calls_and_those_that_python_answers_may_be_compressed(server):
    with grpc.insecure_channel(server.address, compression=grpc.Compression.Gzip) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(service_pb2.ServerLiveRequest()).live
        assert stub.ModelReady(service_pb2.ModelReadyRequest(name="linear")).ready
        assert stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="linear")).name == "linear"
        for call, message in ((stub.ModelReady, service_pb2.ModelReadyRequest(name="linear" * 100)),
                              (stub.ModelMetadata, service_pb2.ModelMetadataRequest(name="linear" * 100))):
            with pytest.raises(grpc.RpcError) as refused:
                call(message)
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def framed(body, compressed=1):
    return bytes([compressed]) + len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata"])
@pytest.mark.parametrize(("coding", "body", "code", "text"), [
    ("br", b"", 12, "gzip, deflate or identity"), (None, framed(packed(b"")), 13, "no grpc-encoding"),
    ("gzip", framed(b"garbage"), 3, ""), ("deflate", framed(packed(b"")), 3, ""), ("gzip", framed(b""), 3, ""),
])  # fmt: skip
def test_a_bad_grpc_message_is_refused_by_its_code(server, method, coding, body, code, text):
    status, headers, _ = grpc_call(server, method, coding, body)
    assert status == code
    assert text in headers.get("grpc-message", "")
    assert code != 12 or headers["grpc-accept-encoding"] == "identity,deflate,gzip"


def grpc_call(server, method, coding, body, accepts=None):
    """(grpc-status, headers and trailers, data) of a call whose bytes are given."""
    codings = [(name, value) for name, value in (("grpc-encoding", coding), ("grpc-accept-encoding", accepts)) if value]
    found, data = {}, b""
    with Http2(server.port) as client:
        client.ask(f"/inference.GRPCInferenceService/{method}", body, ("content-type", "application/grpc"), ("te", "trailers"), *codings)
        client.flush()
        while "grpc-status" not in found:
            received = client.socket.recv(1 << 16)
            assert received, "the server has closed the connection"
            for event in client.client.receive_data(received):
                if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    found.update(event.headers)
                elif isinstance(event, h2.events.DataReceived):
                    data += event.data
            client.flush()
    return int(found["grpc-status"]), found, data


def bomb(coding, size):
    packer = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    part = bytes(MIB)
    return b"".join([packer.compress(part) for _ in range(size // MIB)]) + packer.flush()


def peak_bytes(process):
    line = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def test_a_bomb_costs_the_body_limit_and_no_more(tmp_path):
    registry = tmp_path / "registry"
    models.linear(registry)
    limit = 64 * MIB     # the default; what is so large goes back to the system at once
    with ServerProcess(registry, "--max-body-mib", "64") as server, grpc.insecure_channel(server.address, compression=grpc.Compression.Gzip) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for path, body in ((INFER, BODY), ("/v2/repository/index", b"{}")):
            assert curl(server, path, "-H", "Content-Encoding: gzip", body=packed(body))[0] == 200
        assert stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="linear")).name == "linear"
        before = peak_bytes(server.process)
        for coding, bombed in (("gzip", bomb("gzip", 256 * MIB)), ("deflate", bomb("deflate", 128 * MIB))):
            for path in (INFER, "/v2/repository/index"):
                for transport in HTTP:
                    status, _, answer = curl(server, path, transport, "-H", f"Content-Encoding: {coding}", body=bombed)
                    assert status == 413
                    assert "decompressed" in json.loads(answer)["error"]
        for call, message, code in (
            (stub.ModelInfer, request(np.zeros((4 << 20, 8), np.float32)), grpc.StatusCode.RESOURCE_EXHAUSTED),
            (stub.ModelMetadata, service_pb2.ModelMetadataRequest(name="a" * 128 * MIB), grpc.StatusCode.RESOURCE_EXHAUSTED),
            (stub.ModelReady, service_pb2.ModelReadyRequest(name="a" * 128 * MIB), grpc.StatusCode.INVALID_ARGUMENT),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call(message)
            assert refused.value.code() is code
        assert peak_bytes(server.process) - before < 1.5 * limit
