"""TensorFlow Serving's words for requests and answers, against numpy."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from batchmill.endpoints import tfserving
from batchmill.errors import InvalidRequest

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
DATATYPES = {"INT64": np.int64, "FP64": np.float64, "BOOL": np.bool_}


class Version:
    def __init__(self, inputs, outputs=(("y", "FP32"),)):
        self.inputs = tuple((name, datatype, (-1,), ("",)) for name, datatype in inputs)
        self.outputs = tuple((name, datatype, (-1,), ("",)) for name, datatype in outputs)


def asked(wish, *inputs):
    """{name: (datatype, shape, data or bytes)} of the v2 request for it."""
    _, body, size = tfserving.request_of(json.dumps(wish).encode(), Version(inputs))
    at, found = size, {}
    for tensor in json.loads(body[:size])["inputs"]:
        data = tensor.get("data")
        if data is None:
            data = body[at : at + tensor["parameters"]["binary_data_size"]]
            at += len(data)
        found[tensor["name"]] = tensor["datatype"], tensor["shape"], data
    assert at == len(body)
    return found


def told(outputs, row_form):
    """The answer for v2 outputs of {name: array}."""
    head = {"model_version": "3", "outputs": [{"name": name, "datatype": datatype, "shape": array.shape, "data": array.ravel().tolist()}
                                              for name, (datatype, array) in outputs.items()]}
    text, version = tfserving.answer_of(json.dumps(head).encode(), -1, {"instances" if row_form else "inputs": []})
    assert version == "3"
    return json.loads(text)


@given(st.sampled_from(sorted(DATATYPES)).flatmap(lambda name: st.tuples(st.just(name), arrays.arrays(DATATYPES[name], SHAPES))))
def test_a_column_has_the_shape_and_values_of_its_array(drawn):
    datatype, array = drawn
    array = np.nan_to_num(array)
    if 0 in array.shape:     # nested lists cannot tell what lies beyond an axis of size 0
        array = array.reshape(array.shape[: array.shape.index(0) + 1])
    (_, shape, data) = asked({"inputs": {"x": array.tolist()}}, ("x", datatype))["x"]
    assert tuple(shape) == array.shape
    assert np.array_equal(np.array(data, array.dtype), array.ravel())


@given(st.integers(1, 5), SHAPES, SHAPES)
def test_rows_that_name_inputs_are_the_columns(rows, one, other):
    first, second = np.ones((rows, *one)), np.zeros((rows, *other), np.int64)
    instances = [{"a": a, "b": b} for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    inputs = (("a", "FP64"), ("b", "INT64"))
    assert asked({"instances": instances}, *inputs) == asked({"inputs": {"a": first.tolist(), "b": second.tolist()}}, *inputs)


@given(arrays.arrays(np.float64, SHAPES))
def test_an_answer_in_columns_has_the_shape_and_values_of_its_array(array):
    array = np.nan_to_num(array)
    assert told({"y": ("FP64", array)}, False) == {"outputs": array.tolist()}
    assert told({"y": ("FP64", array), "z": ("INT64", np.arange(3))}, False) == {"outputs": {"y": array.tolist(), "z": [0, 1, 2]}}


@given(st.integers(1, 5), SHAPES)
def test_an_answer_in_rows_has_a_row_for_each_instance(rows, shape):
    array, labels = np.ones((rows, *shape)), np.arange(rows)
    assert told({"y": ("FP64", array)}, True) == {"predictions": array.tolist()}
    both = told({"y": ("FP64", array), "z": ("INT64", labels)}, True)
    assert both == {"predictions": [{"y": y, "z": z} for y, z in zip(array.tolist(), labels.tolist(), strict=True)]}


def test_numbers_that_json_does_not_have_are_written_as_tensorflow_serving_does():
    body = b'{"model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[3],"data":["NaN","-Infinity",1.5]}]}'
    assert tfserving.answer_of(body, -1, {"instances": []})[0] == b'{"predictions": [NaN, -Infinity, 1.5]}'
    assert asked({"inputs": [float("nan"), float("inf"), 1.5]}, ("x", "FP32"))["x"] == ("FP32", [3], ["NaN", "Infinity", 1.5])


@given(st.lists(st.one_of(st.text(), st.binary()), min_size=1, max_size=5))
def test_texts_and_bytes_arrive_to_the_byte_and_come_back(items):
    wish = [item if isinstance(item, str) else {"b64": base64.b64encode(item).decode()} for item in items]
    raw = [item.encode() if isinstance(item, str) else item for item in items]
    packed = b"".join(len(item).to_bytes(4, "little") + item for item in raw)
    assert asked({"instances": wish}, ("x", "BYTES"))["x"] == ("BYTES", [len(items)], packed)
    for name in ("text", "text_bytes"):
        head = json.dumps({"model_version": "1", "outputs": [
            {"name": name, "datatype": "BYTES", "shape": [len(items)], "parameters": {"binary_data_size": len(packed)}}]}).encode()
        got = json.loads(tfserving.answer_of(head + packed, len(head), {"instances": []})[0])["predictions"]
        assert [base64.b64decode(item["b64"]) if isinstance(item, dict) else item.encode() for item in got] == raw
        assert name == "text" or all(isinstance(item, dict) for item in got)


@pytest.mark.parametrize(("wish", "text"), [
    ({}, "either"), ({"instances": [1], "inputs": [1]}, "either"), ([1], "JSON object"), ({"instances": []}, "a row at least"), ({"instances": {}}, "a row at least"),
    ({"instances": [{"x": 1}, {"y": 1}]}, "same inputs"), ({"instances": [{"x": 1}, 2]}, "same inputs"), ({"inputs": {"q": 1}}, "no such input"),
    ({"inputs": [[1, 2], [3]]}, "not of one length"), ({"inputs": [[1], 2]}, "not of one length"), ({"inputs": [1, [2]]}, "side by side"),
    ({"inputs": ["a"]}, "number wanted"), ({"inputs": [1], "signature_name": "other"}, "signature_name"),
])  # fmt: skip
def test_what_is_wrong_is_told(wish, text):
    with pytest.raises(InvalidRequest, match=text):
        asked(wish, ("x", "FP32"))


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"inputs": ' + b"[" * 100_000, b"\xff", b'{"inputs": [1]} x'])
def test_what_is_no_json_is_refused(body):
    with pytest.raises(InvalidRequest, match="no JSON"):
        tfserving.read(body)


@pytest.mark.parametrize("item", [1, None, {"b64": "*"}, {"b64": 1}, {"x": "y"}, [{"b64": "YQ=="}, "a", 1]])
def test_bytes_are_strings_or_base64(item):
    with pytest.raises(InvalidRequest):
        asked({"inputs": {"x": [item]}}, ("x", "BYTES"))


def test_a_model_of_several_inputs_must_have_them_named():
    with pytest.raises(InvalidRequest, match=r"2 inputs: name them \(a, b\)"):
        asked({"instances": [1]}, ("a", "FP32"), ("b", "FP32"))


def test_outputs_without_a_row_for_each_instance_are_told_apart():
    with pytest.raises(InvalidRequest, match="ask with `inputs`"):
        told({"y": ("FP64", np.ones((2, 2))), "z": ("FP64", np.ones(3))}, True)
    with pytest.raises(InvalidRequest, match="ask with `inputs`"):
        told({"y": ("FP64", np.ones(()))}, True)
