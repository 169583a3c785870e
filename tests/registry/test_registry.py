"""What a registry directory holds, what of it is wanted, and whether it may be batched."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from batchmill import backends
from batchmill.core import ort
from batchmill.errors import ModelError, StartError
from batchmill.registry import layout, policy
from batchmill.registry.policy import VersionPolicy
from batchmill.registry.prove import prove
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


def test_only_version_folders_count_and_the_rest_is_noted(tmp_path):
    for version in ("1", "02", "latest", "3.tmp", "٣", "-1"):
        models.linear(tmp_path / "registry", "m", version)
    (tmp_path / "registry" / "m" / "5").mkdir()
    (tmp_path / "registry" / ".hidden" / "1").mkdir(parents=True)
    (tmp_path / "registry" / "half.tmp" / "1").mkdir(parents=True)
    outside = models.linear(tmp_path / "elsewhere")
    (tmp_path / "registry" / "m" / "7").symlink_to(outside.parent)
    (found,) = layout.scan(tmp_path / "registry")
    assert (found.name, list(found.versions)) == ("m", [1])
    assert len(found.notes) == 7
    assert any("outside" in note for note in found.notes)


def test_a_registry_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StartError, match="no such"):
        layout.scan(tmp_path / "nothing")


@pytest.mark.parametrize(("path", "name", "version"), [
    ("digits/7/model.onnx", "digits", 7), ("digits/07/model.onnx", "model", 1), ("digits/7/other.onnx", "other", 1), ("model.onnx", "model", 1),
])
def test_a_single_file_has_the_name_and_version_of_its_folders(tmp_path, monkeypatch, path, name, version):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    monkeypatch.chdir(file.parent)
    for given in (file, Path(file.name)):
        (found,) = layout.scan(given)
        assert (found.name, found.versions) == (name, {version: file})


@pytest.mark.parametrize(("files", "noted"), [(["config.pbtxt"], False), (["config.pbtxt", "model.yaml"], True), ([], False)])
def test_a_config_that_is_not_read_is_noted(tmp_path, files, noted):
    models.linear(tmp_path, "m")
    for file in files:
        (tmp_path / "m" / file).touch()
    (found,) = layout.scan(tmp_path)
    assert any("config.pbtxt is not read" in note for note in found.notes) == noted


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


def test_a_broken_version_fails_alone_and_says_why(tmp_path):
    models.linear(tmp_path, "m", "1")
    broken = models.linear(tmp_path, "m", "2")
    broken.write_bytes(broken.read_bytes()[:-40])
    (tmp_path / "m" / "model.yaml").write_text("versions: {policy: all}\n")
    status = next(iter(first_pass(tmp_path).values()))
    assert [(v.number, v.state) for v in status.versions.values()] == [("1", "READY"), ("2", "FAILED")]
    assert status.versions["2"].reason


@pytest.mark.parametrize("location", ["/etc/passwd", "../weights.bin", "a/../../weights.bin"])
def test_external_data_that_leads_out_is_refused(tmp_path, location):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "m", [models.value("x", "FP32", ["n", 8])],
                              [models.value("y", "FP32", ["n", 4])], [tensor])
    path = tmp_path / "m" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ModelError, match="outside"):
        backends.find("onnxruntime").check(path)


def test_external_data_inside_of_the_version_works(tmp_path):
    import onnx

    path = models.linear(tmp_path)
    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (path.parent / "weights.bin").exists()
    assert next(iter(first_pass(tmp_path).values())).pick() is not None
