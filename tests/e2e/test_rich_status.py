"""gRPC's rich statuses, read by grpcio-status: why a call was refused, in a word that a program can read, and when to come back."""

from __future__ import annotations

import subprocess
import threading

import numpy as np
import pytest

from . import models
from .server import ServerProcess

grpc = pytest.importorskip("grpc")
rpc_status = pytest.importorskip("grpc_status.rpc_status")
pytest.importorskip("tritonclient.grpc")
from google.rpc import error_details_pb2  # noqa: E402
from tritonclient.grpc import service_pb2, service_pb2_grpc  # noqa: E402


def details_of(error):
    """(reason, seconds to wait or None) of a refused call."""
    status = rpc_status.from_call(error)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "batchmill"
    if len(status.details) == 1:
        return info.reason, None
    assert status.details[1].Unpack(retry)
    return info.reason, retry.retry_delay.seconds


def request(name, rows):
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=rows.shape)
    return service_pb2.ModelInferRequest(model_name=name, inputs=[tensor], raw_input_contents=[rows.tobytes()])


@pytest.mark.parametrize(("method", "message", "reason"), [
    ("ModelInfer", request("nobody", np.zeros((1, 8), np.float32)), "NOT_FOUND"), ("ModelInfer", request("linear", np.zeros((1, 3), np.float32)), "INVALID_REQUEST"),
    ("ModelMetadata", service_pb2.ModelMetadataRequest(name="nobody"), "NOT_FOUND"), ("ModelReady", service_pb2.ModelReadyRequest(name="nobody"), "NOT_FOUND"),
    ("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(model_name="nobody"), "NOT_FOUND"),
])  # fmt: skip
def test_a_refusal_says_why_in_a_word(server, method, message, reason):
    with grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            getattr(stub, method)(message)
    assert details_of(refused.value) == (reason, None)
    assert "grpc-retry-pushback-ms" not in dict(refused.value.trailing_metadata())


def test_refusals_on_one_connection_are_told_apart(server):
    """The same again and again, and others in between."""
    wide, narrow, nobody = (request(name, np.zeros((1, size), np.float32)) for name, size in (("linear", 9), ("linear", 3), ("nobody", 8)))
    with grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

        def told(message):
            with pytest.raises(grpc.RpcError) as refused:
                stub.ModelInfer(message)
            return refused.value.code(), refused.value.details(), details_of(refused.value)

        first = [told(message) for message in (wide, narrow, nobody)]
        assert len({*first}) == 3
        for order in ((0, 0, 1, 1, 2, 2, 2), (2, 0, 1, 0, 2)):
            assert [told((wide, narrow, nobody)[which]) for which in order] == [first[which] for which in order]


def test_a_full_queue_says_when_to_come_back(tmp_path):
    registry = tmp_path / "registry"
    models.slow(registry)
    (registry / "slow" / "model.yaml").write_text("queue: {max_rows: 1}\nbatching: {mode: off}\n")
    rows, refused, http = np.zeros((1, 256, 256), np.float32), [], []
    with ServerProcess(registry) as server:
        def ask():
            with grpc.insecure_channel(server.address) as channel:
                try:
                    service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request("slow", rows))
                except grpc.RpcError as error:
                    refused.append((details_of(error), dict(error.trailing_metadata())["grpc-retry-pushback-ms"]))
                    head = '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,256,256],"parameters":{"binary_data_size":262144}}]}'
                    http.append(subprocess.run(
                        ["curl", "-s", "-D-", "-o", "/dev/null", f"{server.url}/v2/models/slow/infer", "-H", f"Inference-Header-Content-Length: {len(head)}",
                         "--data-binary", "@-"], input=head.encode() + rows.tobytes(), capture_output=True, check=True).stdout)

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert refused
    assert set(refused) == {(("QUEUE_FULL", 1), "1000")}
    assert all(b"Retry-After: 1\r\n" in head for head in http if head.startswith(b"HTTP/1.1 429"))
