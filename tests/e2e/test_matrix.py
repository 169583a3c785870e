"""Every model of the matrix that ONNX Runtime can run answers as it does in process, bit for bit, in every encoding that can carry it."""

from __future__ import annotations

import http.client
import json
import warnings

import grpc
import numpy as np
import onnxruntime
import pytest
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from . import matrix
from .server import ServerProcess
from .test_clients import tritongrpc

pb = tritongrpc.service_pb2
TYPED = {"BOOL": "bool_contents", "BYTES": "bytes_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "INT64": "int64_contents",
         "UINT64": "uint64_contents", **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
         **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents")}


def session_of(case):
    """None for what this runtime has no kernel for."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        return onnxruntime.InferenceSession(case.model().SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if "NOT_IMPLEMENTED" in str(error) or "INVALID_GRAPH" in str(error) or "not support" in str(error):
            return None
        raise


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """case -> (inputs, outputs in process); the models lie in the folder `registry` beside."""
    wanted = {}
    for case in matrix.cases():
        if session := session_of(case):
            feed = case.feed()
            wanted[case] = feed, session.run(None, feed)
    assert len(wanted) >= 500
    return wanted


@pytest.fixture(scope="module")
def server(expected, tmp_path_factory):
    registry = tmp_path_factory.mktemp("matrix") / "registry"
    for case in expected:
        path = registry / case.name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(case.model().SerializeToString())
    with ServerProcess(registry) as running:
        yield running


def raw(array):
    if array.dtype != object:
        return array.tobytes()
    return serialize_byte_tensor(array).item() if array.size else b""


def array_of(data, datatype, shape):
    if datatype != "BYTES":
        return np.frombuffer(data, matrix.DTYPES[datatype]).reshape(shape)
    return np.array([text.decode() for text in deserialize_bytes_tensor(data)], object).reshape(shape)


class Grpc:
    """typed: the values as fields of the message, in place of bytes."""

    def __init__(self, server, typed):
        self.typed = typed
        channel = grpc.insecure_channel(server.address)
        self.call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString)

    def carries(self, datatypes, arrays):
        return not self.typed or "FP16" not in datatypes

    def ask(self, case, feed):
        request = pb.ModelInferRequest(model_name=case.name)
        for (name, array), given in zip(feed.items(), case.inputs, strict=True):
            tensor = request.inputs.add(name=name, datatype=matrix.datatype_of(given), shape=array.shape)
            if self.typed:
                flat = array.ravel().tolist()
                getattr(tensor.contents, TYPED[tensor.datatype]).extend([one.encode() for one in flat] if tensor.datatype == "BYTES" else flat)
            else:
                request.raw_input_contents.append(raw(array))
        answer = self.call(request, timeout=30)
        if answer.raw_output_contents:
            return [array_of(data, one.datatype, one.shape) for one, data in zip(answer.outputs, answer.raw_output_contents, strict=True)]
        return [typed_array(one) for one in answer.outputs]


def typed_array(output):
    flat = [*getattr(output.contents, TYPED[output.datatype])]
    flat = [one.decode() for one in flat] if output.datatype == "BYTES" else flat
    return np.array(flat, matrix.DTYPES[output.datatype]).reshape(output.shape)


class Rest:
    def __init__(self, server, binary):
        self.binary = binary
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

    def carries(self, datatypes, arrays):
        """JSON has no infinity, and no FP16 here."""
        return self.binary or ("FP16" not in datatypes and all(array.dtype.kind != "f" or np.isfinite(array).all() for array in arrays))

    def ask(self, case, feed):
        inputs, tail = [], b""
        for (name, array), given in zip(feed.items(), case.inputs, strict=True):
            tensor = {"name": name, "datatype": matrix.datatype_of(given), "shape": list(array.shape)}
            if self.binary:
                tail += raw(array)
                inputs.append(tensor | {"parameters": {"binary_data_size": len(raw(array))}})
            else:
                inputs.append(tensor | {"data": np.atleast_1d(array).tolist()})
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": self.binary}}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))} if self.binary else {}
        self.connection.request("POST", f"/v2/models/{case.name}/infer", head + tail, headers)
        answer = self.connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        if not self.binary:
            return [np.array(one["data"], matrix.DTYPES[one["datatype"]]).reshape(one["shape"]) for one in json.loads(body)["outputs"]]
        size, outputs = int(answer.headers["Inference-Header-Content-Length"]), []
        head, tail = json.loads(body[:size]), body[size:]
        for one in head["outputs"]:
            size = one["parameters"]["binary_data_size"]
            outputs.append(array_of(tail[:size], one["datatype"], one["shape"]))
            tail = tail[size:]
        assert not tail
        return outputs


ENCODINGS = {"gRPC raw": lambda server: Grpc(server, False), "gRPC typed": lambda server: Grpc(server, True),
             "REST binary": lambda server: Rest(server, True), "REST JSON": lambda server: Rest(server, False)}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_one_node_models_answer_as_in_process(expected, server, encoding):
    client, wrong, asked = ENCODINGS[encoding](server), [], 0
    for case, (feed, wanted) in expected.items():
        if not client.carries({matrix.datatype_of(one) for one in case.inputs} | {*case.outputs}, [*feed.values(), *wanted]):
            continue
        asked += 1
        try:
            got = client.ask(case, feed)
        except (AssertionError, grpc.RpcError, ValueError) as error:
            wrong.append(f"{case.name}: {error}"[:300])
            continue
        same = len(got) == len(wanted) and all(equal(*pair) for pair in zip(got, wanted, strict=True))
        if not same:
            wrong.append(f"{case.name}: {got} in place of {wanted}"[:300])
    assert not wrong, f"{len(wrong)} of {asked}:\n" + "\n".join(wrong[:20])
    assert asked >= 400


def equal(got, wanted):
    """Bit for bit, but that one NaN is as good as another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if got.dtype != wanted.dtype or got.shape != wanted.shape:
            return False
        if got.dtype.kind != "f":
            return got.tolist() == wanted.tolist()
        return np.array_equal(np.isnan(got), np.isnan(wanted)) and np.where(np.isnan(got), 0, got).tobytes() == np.where(np.isnan(wanted), 0, wanted).tobytes()
