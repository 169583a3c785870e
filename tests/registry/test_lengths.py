"""What of a declared padding fits a model, and whether it is true of it."""

import numpy as np
import pytest
from onnx import helper

from batchmill import backends
from batchmill.backends import Padding
from batchmill.core import ort
from batchmill.errors import ModelError
from batchmill.registry.lengths import padding_of, prove_padding
from batchmill.registry.prove import Proof, Samples
from batchmill.registry.settings import DeclaredPadding, PaddedInput
from e2e import models
from reference.registry import first_pass

BOTH = (PaddedInput("ids"), PaddedInput("attention_mask"))
TOKENS = (("tokens", 1),)


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ort.initialise()


def loaded(path):
    return backends.find("onnxruntime").load(path, intra_op_threads=1, providers=["CPUExecutionProvider"])


def proved(path, declared, mode="auto", golden=None, *, batched=True):
    model = loaded(path)
    return prove_padding(backends.find("onnxruntime"), model, padding_of(declared, model), Proof(batched, "proved"), mode, golden)


def test_what_is_declared_comes_in_the_models_order(tmp_path):
    declared = DeclaredPadding((PaddedInput("attention_mask", 1, -3), PaddedInput("ids", 1, 5)), TOKENS, (16, 32))
    assert padding_of(declared, loaded(models.texts(tmp_path))) == Padding(((1, b"\5" + bytes(7)), (1, b"\xfd" + b"\xff" * 7)), (0, 1), (16, 32))


@pytest.mark.parametrize(("datatype", "value", "raw"), [
    ("BOOL", True, b"\1"), ("BOOL", 0, b"\0"), ("UINT8", 255, b"\xff"), ("INT8", -128, b"\x80"), ("INT16", 2.0, b"\2\0"), ("FP16", 1.5, b"\0\x3e"),
    ("BF16", -2, b"\0\xc0"), ("BF16", 1.005859375, b"\x81\x3f"), ("FP32", 1, b"\0\0\x80\x3f"), ("FP32", float("-inf"), b"\0\0\x80\xff"),
    ("BF16", float("nan"), b"\xc0\x7f"), ("FP64", 0, bytes(8)), ("UINT64", 2**64 - 1, b"\xff" * 8),
])
def test_a_value_is_one_element_of_the_inputs_datatype(tmp_path, datatype, value, raw):
    model = loaded(models.identity(tmp_path, datatype, ["n", "t"]))
    assert padding_of(DeclaredPadding((PaddedInput("x", 1, value),)), model).inputs == ((1, raw),)


@pytest.mark.parametrize(("datatype", "value"), [
    ("UINT8", 256), ("UINT8", -1), ("INT8", 1.5), ("INT64", 2**63), ("INT32", float("nan")), ("INT64", float("inf")), ("FP16", 1e6), ("FP32", 1e39), ("BOOL", 2),
])
def test_a_value_that_does_not_fit_is_refused(tmp_path, datatype, value):
    with pytest.raises(ModelError, match=rf"^model\.yaml: batching\.padding\.inputs\.x\.value: .* given, {datatype} wanted$"):
        padding_of(DeclaredPadding((PaddedInput("x", 1, value),)), loaded(models.identity(tmp_path, datatype, ["n", "t"])))


@pytest.mark.parametrize(("declared", "wanted"), [
    (DeclaredPadding((PaddedInput("idss"),)), "inputs.idss: the model has no such input; did you mean 'ids'?"),
    (DeclaredPadding((PaddedInput("x"),)), "inputs.x: the model has no such input; it has ids, attention_mask"),
    (DeclaredPadding(BOTH, (("token", 1),)), "outputs.token: the model has no such output; did you mean 'tokens'?"),
    (DeclaredPadding((PaddedInput("ids", 2),)), "inputs.ids: axis 2 given, one of 1, which are free, wanted: its shape is [-1, -1]"),
    (DeclaredPadding(BOTH, (("mean", 1),)), "outputs.mean: axis 1 given, a free axis, of which there is none, wanted: its shape is [-1, 4]"),
    (DeclaredPadding(BOTH, (("tokens", 2),)), "outputs.tokens: axis 2 given, one of 1, which are free, wanted: its shape is [-1, -1, 4]"),
])
def test_what_the_model_does_not_have_is_told_with_the_key(tmp_path, declared, wanted):
    with pytest.raises(ModelError) as caught:
        padding_of(declared, loaded(models.texts(tmp_path)))
    assert str(caught.value) == f"model.yaml: batching.padding.{wanted}"


def test_strings_are_not_padded(tmp_path):
    model = loaded(models.identity(tmp_path, "BYTES", ["n", "t"]))
    for declared in (DeclaredPadding((PaddedInput("x"),)), DeclaredPadding((), (("y", 1),))):
        with pytest.raises(ModelError, match="tensors of BYTES are not padded"):
            padding_of(declared, model)


# The proof.
@pytest.mark.parametrize(("edges", "to"), [
    ((), "the longest of a batch"), ((16,), "16"), ((1, 4, 9), "the next of 1, 4 and 9"), ((16, 65536), "the next of 16 and 65536"), ((4096,), "4096"),
])
def test_a_model_that_looks_at_its_mask_is_proved(tmp_path, edges, to):
    proof = proved(models.texts(tmp_path), DeclaredPadding(BOTH, TOKENS, edges))
    assert proof == Proof(True, f"proved; ids, attention_mask padded to {to}, proved too")


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_model_that_does_not_look_at_its_mask_is_refused(tmp_path, mode):
    with pytest.raises(ModelError, match=r'^model\.yaml: batching\.padding: padding changes output "mean" by \d\.\de[+-]\d\d, of a row of 5 padded to 8\. Does it look at a mask'):
        proved(models.texts(tmp_path, masked=False), DeclaredPadding(BOTH, TOKENS), mode)


def reduced(folder, operator, datatype):
    """y = the greatest, or least, over a free axis."""
    nodes = [helper.make_node(operator, ["x"], ["y"], axes=[1], keepdims=0)]
    return models.write(folder, operator.lower(), nodes, [models.value("x", datatype, ["n", "t"])], [models.value("y", datatype, ["n"])])


@pytest.mark.parametrize("datatype", ["FP32", "INT64"])
@pytest.mark.parametrize("operator", ["ReduceMax", "ReduceMin"])
def test_an_extreme_over_the_padding_is_seen(tmp_path, operator, datatype):
    with pytest.raises(ModelError, match='padding changes output "y"'):
        proved(reduced(tmp_path, operator, datatype), DeclaredPadding((PaddedInput("x"),)))


def test_a_padding_value_that_changes_nothing_is_proved(tmp_path):
    assert proved(reduced(tmp_path, "ReduceMax", "FP32"), DeclaredPadding((PaddedInput("x", 1, float("-inf")),))).batched


def test_an_output_that_is_not_cut_back_must_not_have_the_length(tmp_path):
    with pytest.raises(ModelError, match=r'padding changes output "tokens" from shape \[1, 5, 4\] to \[1, 8, 4\], of a row of 5 padded to 8; where it has the padded length'):
        proved(models.texts(tmp_path), DeclaredPadding(BOTH))


def test_an_output_that_is_cut_back_must_have_the_length(tmp_path):
    nodes = [helper.make_node("Concat", ["x", "x"], ["y"], axis=1)]
    path = models.write(tmp_path, "twice", nodes, [models.value("x", "FP32", ["n", "t"])], [models.value("y", "FP32", ["n", "u"])])
    with pytest.raises(ModelError, match=r'output "y" of rows padded to 8 does not have that length along axis 1: its shape is \[3, 16\]'):
        proved(path, DeclaredPadding((PaddedInput("x"),), (("y", 1),)))


def test_what_cannot_be_tried_is_taken_on_trust_where_it_is_declared_alone(tmp_path):
    """Its table has one word: of the samples none runs."""
    nodes = [helper.make_node("Gather", ["words", "x"], ["y"])]
    path = models.write(tmp_path, "one_word", nodes, [models.value("x", "INT64", ["n", "t"])], [models.value("y", "FP32", ["n", "t"])],
                        [models.numpy_helper.from_array(np.zeros(1, np.float32), "words")])  # fmt: skip
    declared = DeclaredPadding((PaddedInput("x"),), (("y", 1),))
    assert proved(path, declared, "on").reason == "proved; x padded to the longest of a batch, as declared"
    with pytest.raises(ModelError, match="batching.padding: not proved: no sample runs; where you know it to be right, declare `mode: on`: "):
        proved(path, declared)


def test_an_edge_beyond_what_the_model_takes_is_seen(tmp_path):
    """Of positions there are only 40."""
    nodes = [helper.make_node("Shape", ["x"], ["length"], start=1, end=2), helper.make_node("Slice", ["places", "zero", "length", "zero"], ["first"]),
             helper.make_node("Add", ["x", "first"], ["y"])]
    constants = [models.numpy_helper.from_array(np.arange(40, dtype=np.float32), "places"), models.numpy_helper.from_array(np.array([0]), "zero")]
    path = models.write(tmp_path, "places", nodes, [models.value("x", "FP32", ["n", "t"])], [models.value("y", "FP32", ["n", "t"])], constants)
    assert proved(path, DeclaredPadding((PaddedInput("x"),), (("y", 1),), (16, 40))).batched
    with pytest.raises(ModelError, match="rows of 17, 38 padded to 60 do not run together: "):
        proved(path, DeclaredPadding((PaddedInput("x"),), (("y", 1),), (16, 60)))


def golden_of(array):
    row = {"x": ("FP32", list(array.shape), array.tobytes())}
    return Samples([row] * 3, row, row, row)


def test_rows_of_golden_are_the_sample_where_there_are_some(tmp_path):
    """The least of positive numbers is changed by zeros, of negative ones it is not."""
    path, declared = reduced(tmp_path, "ReduceMin", "FP32"), DeclaredPadding((PaddedInput("x"),))
    assert proved(path, declared, golden=golden_of(-np.ones((1, 9), "f4"))).batched
    with pytest.raises(ModelError, match='changes output "y" by 1.0e\\+00, of a row of 8 padded to 9'):
        proved(path, declared, golden=golden_of(np.ones((1, 9), "f4")))


def test_a_version_that_is_not_batched_does_not_pad_and_says_so(tmp_path):
    assert proved(models.texts(tmp_path), DeclaredPadding(BOTH, TOKENS), "off", batched=False) == Proof(False, "proved; batching.padding has no effect so")


@pytest.mark.parametrize(("masked", "state", "told"), [
    (True, "READY", "; ids, attention_mask padded to the next of 16 and 32, proved too"),
    (False, "FAILED", 'padding changes output "mean" by '),
])
def test_a_version_serves_where_its_padding_is_true_and_fails_where_it_is_not(tmp_path, masked, state, told):
    models.texts(tmp_path, masked=masked)
    (tmp_path / "texts" / "model.yaml").write_text(
        "batching:\n  padding:\n    inputs: {ids: {}, attention_mask: {axis: 1, value: 0}}\n    edges: [16, 32]\n    outputs: {tokens: 1}\n")
    version = first_pass(tmp_path)["texts"].versions["1"]
    assert version.state == state
    assert told in version.batching + version.reason
