import json

import models
import numpy as np
import payloads
import pytest

from reference.proto import message


@pytest.mark.parametrize("name", ["mlp", "encoder", "resnet", "gbdt", "encoder2", "convnet"])
def test_the_grpc_message_is_what_protobuf_says(name):
    row = models.row(name)
    request = message("ModelInferRequest").FromString(payloads.grpc_message(name, row))
    assert request.model_name == name
    for values, tensor, raw in zip(row.values(), request.inputs, request.raw_input_contents, strict=True):
        assert (tensor.datatype, list(tensor.shape)) == ({"f": "FP32", "i": "INT64"}[values.dtype.kind], list(values.shape))
        np.testing.assert_array_equal(np.frombuffer(raw, values.dtype).reshape(values.shape), values)
    assert [tensor.name for tensor in request.inputs] == list(row)


def test_the_stream_holds_every_message(tmp_path):
    payloads.write(tmp_path, "mlp", models.row("mlp"))
    frame = (tmp_path / "unary.grpc").read_bytes()
    assert frame[:5] == b"\0" + (len(frame) - 5).to_bytes(4, "big")
    assert (tmp_path / "stream.grpc").read_bytes() == frame * payloads.STREAM_MESSAGES


def test_rest_bodies_carry_the_same_row(tmp_path):
    (name, row), = models.row("mlp").items()
    body, json_bytes = payloads.rest_binary(name, row)
    assert json.loads(body[:json_bytes])["inputs"][0]["parameters"] == {"binary_data_size": row.nbytes}
    assert body[json_bytes:] == row.tobytes()
    (tensor,) = json.loads(payloads.rest_json(name, row))["inputs"]
    np.testing.assert_array_equal(np.asarray(tensor["data"], np.float32).reshape(tensor["shape"]), row)


def test_wrk_reads_the_body_from_beside_its_script(tmp_path):
    payloads.write(tmp_path, "mlp", models.row("mlp"))
    script = (tmp_path / "binary.lua").read_text()
    assert f'io.open("{tmp_path / "binary.body"}", "rb")' in script
    assert 'wrk.headers["Inference-Header-Content-Length"]' in script
