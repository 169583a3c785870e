"""Whatever ONNX can express is served as ONNX Runtime runs it in process, or refused at load by the name of what cannot be served."""

from __future__ import annotations

import json
import os

import grpc
import numpy as np
import onnxruntime
import pytest
from onnx import helper
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from . import forms, models
from .matrix import Case
from .server import ServerProcess
from .test_behaviour import post, tensor
from .test_clients import triton_input, tritongrpc, tritonhttp
from .test_matrix import ENCODINGS, equal, pb

MIB = 1 << 20
ELEMENTS = [b"", b"\0", b"a\0b\0", b"\xff\xfe", bytes(range(256)), "zwölf".encode(), os.urandom(MIB), bytes(MIB), b"\xf0\x9f" + b"x" * MIB]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms") / "registry"
    for name, (model, _) in {**forms.served(), **forms.refused()}.items():
        path = folder / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(model.SerializeToString())
    models.identity(folder, "BYTES", ["n"], "same")
    models.write(folder, "turned", [helper.make_node("Gather", ["x", "i"], ["y"])], [models.value("x", "BYTES", ["n"]), models.value("i", "INT64", ["m"])],
                 [models.value("y", "BYTES", ["m"])])
    models.write(folder, "picked", [helper.make_node("Compress", ["x", "pick"], ["y"])], [models.value("x", "INT64", ["n"]), models.value("pick", "BOOL", ["m"])],
                 [models.value("y", "INT64", ["k"])])
    return folder


@pytest.fixture(scope="module")
def server(registry):
    with ServerProcess(registry) as running:
        yield running


@pytest.fixture(scope="module")
def expected(registry):
    """(model, inputs, outputs in process) of every form."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    wanted = []
    for name, (_, feeds) in forms.served().items():
        session = onnxruntime.InferenceSession(registry / name / "1" / "model.onnx", options)
        wanted += [(Case(name, "", tuple(feed.values()), ()), feed, session.run(None, feed)) for feed in feeds]
    return wanted


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_models_of_every_form_answer_as_in_process(server, expected, encoding):
    client, wrong = ENCODINGS[encoding](server), []
    for case, feed, wanted in expected:
        try:
            got = client.ask(case, feed)
        except (AssertionError, grpc.RpcError) as error:
            wrong.append(f"{case.name}: {error}"[:300])
            continue
        if len(got) != len(wanted) or not all(equal(*pair) for pair in zip(got, wanted, strict=True)):
            wrong.append(f"{case.name}: {got} in place of {wanted}"[:300])
    assert not wrong, "\n".join(wrong)


def test_what_is_no_tensor_is_refused_at_load_by_its_name(server):
    index = {row["name"]: (row["state"], row["reason"]) for row in server.call("/v2/repository/index", "POST", {})[1]}
    wanted = {name: reason for name, (_, reason) in forms.refused().items()}
    told = {name: index[name] for name in wanted}
    assert {name: state for name, (state, _) in told.items()} == dict.fromkeys(wanted, "UNAVAILABLE")
    assert [f"{name}: {reason}" for name, (_, reason) in told.items() if not reason.startswith(wanted[name])] == []
    assert {state for name, (state, _) in index.items() if name not in wanted} == {"READY"}


def test_an_input_that_has_a_value_is_no_input_of_the_model(server):
    """It may be left out (left_out above), and cannot be given another value."""
    assert [one["name"] for one in json.loads(server.get("/v2/models/left_out")[1])["inputs"]] == ["x"]
    status, body = post(server, "left_out", [tensor("x", "FP32", [1, 4], [1, 2, 3, 4]), tensor("k", "FP32", [], [5])])
    assert (status, body["error"]) == (400, 'input "k" of left_out/1: no such input, or given twice')


def test_a_model_with_inputs_is_not_asked_without_them(server):
    assert post(server, "tied", []) == (400, {"error": 'input "a" of tied/1: missing'})
    assert post(server, "no_inputs", [])[0] == 200


def test_a_request_with_an_input_more_than_1024_is_refused(server):
    inputs = [tensor(f"x{at}", "INT64", [1], [1]) for at in range(1025)]
    status, body = post(server, "wide", inputs)
    assert (status, "more than 1024" in body["error"]) == (400, True)
    with tritongrpc.InferenceServerClient(server.address) as client, pytest.raises(Exception, match="more than 1024 inputs"):
        client.infer("wide", [triton_input(tritongrpc, f"x{at}", np.array([1]), "INT64") for at in range(1025)])


@pytest.mark.parametrize("byte", [2, 255])
@pytest.mark.parametrize("protocol", [tritongrpc, tritonhttp], ids=["gRPC", "REST"])
def test_a_bool_that_is_not_0_is_1_before_a_kernel_counts_with_it(server, protocol, byte):
    """Compress sums the bytes up to know how much to answer: it would tell of memory that it never wrote."""
    given = [triton_input(protocol, "x", np.arange(4), "INT64"), triton_input(protocol, "pick", np.array([0, 1, byte, 0], np.uint8).view(np.bool_), "BOOL")]
    with protocol.InferenceServerClient(server.address) as client:
        assert client.infer("picked", given).as_numpy("y").tolist() == [1, 2]


# --- BYTES, exact to the byte ---

def over_grpc(server, elements):
    with tritongrpc.InferenceServerClient(server.address) as client:
        return client.infer("same", [triton_input(tritongrpc, "x", np.array(elements, object), "BYTES")]).as_numpy("y").tolist()


def over_grpc_typed(server, elements):
    request = pb.ModelInferRequest(model_name="same")
    request.inputs.add(name="x", datatype="BYTES", shape=[len(elements)]).contents.bytes_contents.extend(elements)
    with grpc.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        answer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString)(request)
    if answer.raw_output_contents:
        return deserialize_bytes_tensor(answer.raw_output_contents[0]).tolist()
    return [*answer.outputs[0].contents.bytes_contents]


def over_rest(server, elements):
    with tritonhttp.InferenceServerClient(server.address) as client:
        outputs = [tritonhttp.InferRequestedOutput("y", binary_data=True)]
        return client.infer("same", [triton_input(tritonhttp, "x", np.array(elements, object), "BYTES", binary_data=True)], outputs=outputs).as_numpy("y").tolist()


def through_an_operator(server, elements):
    """Gathered in reverse, and turned back here."""
    given = [triton_input(tritongrpc, "x", np.array(elements, object), "BYTES"), triton_input(tritongrpc, "i", np.arange(len(elements))[::-1], "INT64")]
    with tritongrpc.InferenceServerClient(server.address) as client:
        return client.infer("turned", given).as_numpy("y").tolist()[::-1]


@pytest.mark.parametrize("way", [over_grpc, over_grpc_typed, over_rest, through_an_operator])
@pytest.mark.parametrize("elements", [ELEMENTS, ELEMENTS[:1], ELEMENTS[-3:-2]], ids=["all", "an empty one", "a large one"])
def test_strings_come_back_byte_for_byte(server, way, elements):
    assert way(server, elements) == elements


def test_json_carries_the_strings_that_are_utf_8_and_refuses_the_rest_by_name(server):
    """A JSON string stands for its bytes in UTF-8; an answer of other bytes has to be asked for as binary_data."""
    texts = ["", "\0", "a\0b", "zwölf", "\U0001f600", "x" * MIB]
    assert post(server, "same", [tensor("x", "BYTES", [6], texts)])[1]["outputs"][0]["data"] == texts
    raw = serialize_byte_tensor(np.array([b"\xff\xfe"], object)).item()
    head = json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(raw)}}]}).encode()
    status, _, answer = server.ask("/v2/models/same/infer", "POST", head + raw, {"Inference-Header-Content-Length": str(len(head))})
    assert (status, json.loads(answer)["error"]) == (400, 'output "y": holds bytes that are no UTF-8, which JSON cannot carry: ask for binary_data')
