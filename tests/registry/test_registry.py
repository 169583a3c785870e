"""What of a registry is wanted, and whether it may be batched."""

import os

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from batchmill import backends
from batchmill.core import ort
from batchmill.errors import ModelError
from batchmill.registry import policy
from batchmill.registry.policy import VersionPolicy
from batchmill.registry.prove import Proof, prove
from e2e import models
from reference.registry import first_pass


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ort.initialise()


@pytest.mark.parametrize(("given", "wanted"), [
    (VersionPolicy(), [10]), (VersionPolicy("latest", 2), [3, 10]), (VersionPolicy("all"), [1, 3, 10]), (VersionPolicy("specific", numbers=(1, 7)), [1]),
])
def test_a_policy_picks_versions_by_number_not_by_name(given, wanted):
    assert policy.wanted([10, 1, 3], given) == wanted


def proof_of(path, mode="auto"):
    backend = backends.find("onnxruntime")
    return prove(backend, backend.load(path, intra_op_threads=1, providers=["CPUExecutionProvider"]), mode)


def test_independent_rows_are_proved_and_may_share_a_batch(tmp_path):
    assert proof_of(models.linear(tmp_path)).batched
    assert proof_of(models.lookup(tmp_path)).batched
    assert proof_of(models.identity(tmp_path, "BYTES")).batched


def test_rows_that_depend_on_each_other_are_never_batched(tmp_path):
    value = models.value
    mean = models.write(tmp_path, "mean", [helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1), helper.make_node("Sub", ["x", "m"], ["y"])],
                        [value("x", "FP32", ["n", 3])], [value("y", "FP32", ["n", 3])])
    total = models.write(tmp_path, "total", [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)],
                         [value("x", "FP32", ["n", 3])], [value("y", "FP32", [])])
    assert not proof_of(mean).batched
    assert not proof_of(total).batched
    assert not proof_of(models.identity(tmp_path, "FP32", [2, 2], "fixed")).batched
    assert not proof_of(models.linear(tmp_path, "off"), "off").batched


def test_a_dynamically_quantised_model_is_caught_by_its_large_neighbour(tmp_path):
    weights = np.arange(-6, 6, dtype=np.int8).reshape(4, 3)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["q", "w", "zero"], ["product"]),
        helper.make_node("Cast", ["product"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "scale"], ["y"]),
    ]
    path = models.write(tmp_path, "quantised", nodes, [models.value("x", "FP32", ["n", 4])], [models.value("y", "FP32", ["n", 3])],
                        [numpy_helper.from_array(weights, "w")])
    proof = proof_of(path)
    assert not proof.batched
    assert "row" in proof.reason


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("with_index", [False, True], ids=["floats", "floats and an index"])
def test_a_model_that_only_a_large_row_upsets_is_found(tmp_path, width, with_index):
    """As with dynamic quantisation, the largest value of the batch scales every row; up to 5 it does not."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Max", ["largest", "five"], ["scale"]),
        helper.make_node("Div", ["x", "scale"], ["scaled"]),
        helper.make_node("Gather", ["table", "i"], ["row"]) if with_index else helper.make_node("Identity", ["five"], ["row"]),
        helper.make_node("Add", ["scaled", "row"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.float32(5), "five"), numpy_helper.from_array(np.zeros((10, width), np.float32), "table")]
    inputs = [models.value("x", "FP32", ["n", width])] + [models.value("i", "INT64", ["n"])] * with_index
    proof = proof_of(models.write(tmp_path, "scaled", nodes, inputs, [models.value("y", "FP32", ["n", width])], constants))
    assert not proof.batched
    assert "beside a large row" in proof.reason


@pytest.mark.parametrize("datatype", ["FP32", "BF16"])
def test_a_row_of_nan_that_spreads_is_found(tmp_path, datatype):
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f", "axes"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "none"], ["nothing"]),  # 0, or NaN
        helper.make_node("Add", ["f", "nothing"], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.array([0]), "axes"), numpy_helper.from_array(np.zeros(1, np.float32), "none")]
    path = models.write(tmp_path, "spread", nodes, [models.value("x", datatype, ["n", 3])], [models.value("y", "FP32", ["n", 3])], constants)
    proof = proof_of(path)
    assert not proof.batched
    assert "NaN" in proof.reason


@pytest.mark.parametrize(("table_rows", "batched", "words"), [(10, False, "no run beside a large row"), (1000, True, "a row of NaN fails its run")])
def test_a_neighbour_that_does_not_run_is_told(tmp_path, table_rows, batched, words):
    nodes = [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64), helper.make_node("Gather", ["table", "i"], ["y"])]
    table = numpy_helper.from_array(np.arange(table_rows, dtype=np.float32), "table")
    path = models.write(tmp_path, "cast", nodes, [models.value("x", "FP32", ["n"])], [models.value("y", "FP32", ["n"])], [table])
    proof = proof_of(path)
    assert (proof.batched, words in proof.reason) == (batched, True), proof.reason


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_model_without_inputs_has_no_rows_to_batch(tmp_path, mode):
    nodes = [helper.make_node("RandomUniform", [], ["r"], shape=[9]), helper.make_node("NonZero", ["r"], ["i"]), helper.make_node("Transpose", ["i"], ["y"])]
    path = models.write(tmp_path, "free", nodes, [], [models.value("y", "INT64", ["n", 1])])
    assert proof_of(path, mode) == Proof(False, "the model has no inputs")     # a request is as many rows as its first input


def test_a_broken_version_fails_alone_and_says_why(tmp_path):
    models.linear(tmp_path, "m", "1")
    broken = models.linear(tmp_path, "m", "2")
    broken.write_bytes(broken.read_bytes()[:-40])
    (tmp_path / "m" / "model.yaml").write_text("versions: {policy: all}\n")
    status = next(iter(first_pass(tmp_path).values()))
    assert [(v.number, v.state) for v in status.versions.values()] == [("1", "READY"), ("2", "FAILED")]
    assert status.versions["2"].reason


def external(registry, **entries):
    """The path of a model whose one weight, 128 bytes, lies in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "m", [models.value("x", "FP32", ["n", 8])],
                              [models.value("y", "FP32", ["n", 4])], [tensor])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    path = registry / "m" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.parametrize("location", ["/etc/passwd", "/dev/zero", "../weights.bin", "a/../../weights.bin"])
def test_external_data_that_leads_out_is_refused(tmp_path, location):
    with pytest.raises(ModelError, match="outside"):
        backends.find("onnxruntime").check(external(tmp_path, location=location))


def whole(file, _):
    file.write_bytes(bytes(256))


def short(file, _):
    file.write_bytes(bytes(100))


def link(file, outside):
    file.symlink_to(outside)


def hard_link(file, outside):
    os.link(outside, file)


@pytest.mark.parametrize(("make", "entries", "state"), [
    (whole, {}, "READY"), (whole, {"offset": 128, "length": 128}, "READY"),
    (whole, {"offset": -128}, "FAILED"), (whole, {"offset": 200}, "FAILED"), (whole, {"offset": 2**63}, "FAILED"), (whole, {"length": 64}, "FAILED"),
    (short, {}, "FAILED"), (link, {}, "FAILED"), (hard_link, {}, "FAILED"), (whole, {"location": "*/_ORT_MEM_ADDR_/*", "offset": 4096, "length": 128}, "FAILED"),
    (whole, {"location": "*/_ORT_MEM_ADDR_/*", "offset": "0x10"}, "FAILED"),
])
def test_external_data_comes_from_a_file_of_the_version_and_from_nowhere_else(tmp_path, make, entries, state):
    """Some of it is the runtime's work: that it is done, also by an older or newer one, is seen here."""
    outside = tmp_path / "outside.bin"
    whole(outside, None)
    path = external(tmp_path / "registry", **{"location": "weights.bin", **entries})
    make(path.parent / "weights.bin", outside)
    (version,) = next(iter(first_pass(tmp_path / "registry").values())).versions.values()
    assert (version.state, bool(version.reason)) == (state, state == "FAILED")


def test_external_data_inside_of_the_version_works(tmp_path):
    import onnx

    path = models.linear(tmp_path)
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (path.parent / "weights.bin").exists()
    assert next(iter(first_pass(tmp_path).values())).pick() is not None
