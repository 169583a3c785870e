"""golden.npz: what a version must reproduce before it may go live."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from onnx import helper, numpy_helper

from batchmill.backends import Tuning
from batchmill.core import ort
from batchmill.errors import GoldenFailed
from batchmill.registry import golden, model_config
from batchmill.registry.loader import load_version
from batchmill.registry.settings import ModelSettings
from e2e import models
from reference.registry import first_pass

X = np.arange(24, dtype=np.float32).reshape(3, 8)
W = np.arange(32, dtype=np.float32).reshape(8, 4) / 10
Y = X @ W


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ort.initialise()


def loaded(path, settings=ModelSettings(), **arrays):  # noqa: B008  (frozen)
    """The version, with those arrays in its golden.npz: in_x is in:x."""
    np.savez(path.parent / "golden.npz", **{key.replace("in_", "in:").replace("out_", "out:"): array for key, array in arrays.items()})
    return load_version("m", "1", path, settings, 1)


def linear(tmp_path):
    return models.linear(tmp_path, "m", factor=1.0)


def test_a_version_that_reproduces_its_outputs_is_ready(tmp_path):
    version = loaded(linear(tmp_path), in_x=X, out_y=Y)
    assert (version.state, version.batched) == ("READY", True), version.reason


def wrong(at, value):
    changed = Y.copy()
    changed[at] = value
    return changed


@pytest.mark.parametrize(("arrays", "reason"), [
    ({"in_x": X, "out_y": wrong((1, 2), Y[1, 2] + 0.5)}, 'output "y" max-abs 5.0e-01 > '),
    ({"in_x": X, "out_y": wrong((1, 2), np.nan)}, 'output "y": 164 at [1, 2], nan expected; 1 of 12 values are wrong'),
    ({"in_x": X, "out_y": wrong((0, 0), np.inf)}, 'output "y" max-abs inf > '),
    ({"in_x": X, "out_y": Y[:, :3]}, 'output "y": shape [3, 4] computed, [3, 3] expected'),
    ({"in_x": X, "out_y": Y[:2]}, 'array "in:x" has 3 rows, "out:y" has 2'),
    ({"in_x": X, "out_y": Y[:0]}, 'output "y": no values to compare'),
    ({"in_x": X[:, :5], "out_y": Y}, 'input "x": shape [3, 5] given, [-1, 8] wanted'),
    ({"in_x": X[0], "out_y": Y}, 'input "x": shape [8] given, [-1, 8] wanted'),
    ({"in_x": X.astype(np.float64), "out_y": Y}, 'input "x": float64 given, float32 wanted'),
    ({"in_x": X, "out_y": Y.astype(np.int64)}, 'output "y": int64 given, floats wanted'),
    ({"in_x": X}, "no output to reproduce: an array out:<output> is wanted"),
    ({"out_y": Y}, 'no array "in:x": every input is wanted'),
    ({"in_x": X, "out_yy": Y}, 'array "out:yy": the model has no such output; did you mean "out:y"?'),
    ({"in_xx": X, "out_y": Y}, 'array "in:xx": the model has no such input; did you mean "in:x"?'),
    ({"x": X, "out_y": Y}, "array 'x': a name like in:<input> or out:<output> wanted"),
    ({"in_x": np.array([[{}]], object), "out_y": Y}, "golden.npz is not readable: Object arrays cannot be loaded when allow_pickle=False"),
])
def test_a_version_that_does_not_is_failed_with_the_reason(tmp_path, arrays, reason):
    version = loaded(linear(tmp_path), **arrays)
    assert version.state == "FAILED"
    assert version.reason.startswith(f"golden: {reason}")


@pytest.mark.parametrize("spoil", [lambda raw: b"", lambda raw: b"random", lambda raw: raw[: len(raw) // 2], lambda raw: raw[:200] + b"x" * 40 + raw[240:]],
                         ids=["empty", "random", "cut", "overwritten"])
def test_a_file_that_is_not_readable_fails_the_version(tmp_path, spoil):
    path, packed = linear(tmp_path), io.BytesIO()
    np.savez(packed, **{"in:x": X, "out:y": Y})
    (path.parent / "golden.npz").write_bytes(spoil(packed.getvalue()))
    version = load_version("m", "1", path, ModelSettings(), 1)
    assert version.state == "FAILED"
    assert version.reason.startswith("golden: golden.npz is not readable: ")


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("nothing")], ids=["folder", "broken link"])
def test_what_is_no_file_fails_the_version(tmp_path, make):
    path = linear(tmp_path)
    make(path.parent / "golden.npz")
    assert load_version("m", "1", path, ModelSettings(), 1).reason == "golden: golden.npz is no file"


def test_a_file_that_unpacks_to_more_than_it_may_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(golden, "_MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "golden.npz", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("in:x.npy", bytes(2 << 20))
    with pytest.raises(GoldenFailed, match="holds more than 1 MiB"):
        golden.unpack(tmp_path / "golden.npz")


def test_a_declared_shape_that_no_memory_holds_is_refused(tmp_path):
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "golden.npz", "w") as packed:
        packed.writestr("in:x.npy", header)
    with pytest.raises(GoldenFailed, match="not readable"):
        golden.unpack(tmp_path / "golden.npz")


@pytest.mark.parametrize(("text", "state"), [
    ("golden: {rtol: 0.01}", "READY"), ("golden: {atol: 0.1}", "READY"), ("golden: {rtol: 0, atol: 0.04}", "FAILED"), ("", "FAILED"),
    ("golden: {rtol: 0.01, p99_ms: 10000}", "READY"), ("golden: {rtol: 0.01, p99_ms: 0.001}", "FAILED"),
])
def test_model_yaml_says_how_close_is_close_enough(tmp_path, text, state):
    path = linear(tmp_path)
    (path.parents[1] / "model.yaml").write_text(text)
    version = loaded(path, model_config.read(path.parents[1] / "model.yaml"), in_x=X, out_y=wrong((2, 3), Y[2, 3] + 0.05))
    assert version.state == state, version.reason


def test_a_slow_version_is_failed_with_the_time(tmp_path):
    version = loaded(linear(tmp_path), ModelSettings(golden_p99_ms=1e-6), in_x=X, out_y=Y)
    assert "of 100 runs > p99_ms 1e-06" in version.reason


@pytest.mark.parametrize(("values", "expected"), [([1.0], 1.0), (list(range(100)), 98), (list(range(1, 1001)), 990)])
def test_p99_is_the_nearest_rank(values, expected):
    assert golden.p99(values) == expected


VALUES = {
    "BOOL": [True, False], "UINT8": [0, 255], "INT64": [-(2**63), 2**63 - 1], "UINT64": [0, 2**64 - 1], "FP16": [0.5, -2.0], "FP32": [0.1, np.nan],
    "FP64": [1e300, -np.inf], "BF16": [1.0, -0.5], "BYTES": ["é", "b\nc"],
}


@pytest.mark.parametrize("datatype", VALUES)
def test_every_kind_of_datatype_is_held_against_itself(tmp_path, datatype):
    path = models.identity(tmp_path, datatype, ["n", 1])
    dtype = {"BF16": np.float32, "BYTES": np.str_}.get(datatype) or np.dtype(golden._NUMBERS[datatype])
    values = np.array(VALUES[datatype], dtype).reshape(2, 1)
    assert loaded(path, in_x=values, out_y=values).state == "READY"
    other = values[::-1]
    assert 'output "y"' in loaded(path, in_x=values, out_y=other).reason


def test_rows_of_a_model_with_a_fixed_first_axis_are_run_in_turns(tmp_path):
    path = models.write(tmp_path, "fixed", [helper.make_node("Neg", ["x"], ["y"])], [models.value("x", "FP32", [1, 2])], [models.value("y", "FP32", [1, 2])])
    rows = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert loaded(path, in_x=rows, out_y=-rows).state == "READY"
    assert "at [2, 1]" in loaded(path, in_x=rows, out_y=np.float32([[0, -1], [-2, -3], [-4, 9]])).reason


def test_a_batched_version_is_run_in_batches_as_large_as_it_serves(tmp_path):
    rows = np.random.default_rng(0).random((100, 8), dtype=np.float32)
    assert loaded(linear(tmp_path), ModelSettings(tuning=Tuning(max_batch_size=7)), in_x=rows, out_y=rows @ W).state == "READY"


def test_batching_is_proved_with_golden_rows_where_made_up_ones_do_not_run(tmp_path):
    """Indices from 0 to 4 fall outside of the table at -20 ..., which the golden rows do not."""
    table = helper.make_node("Gather", ["table", "shifted"], ["y"])
    shift = helper.make_node("Sub", ["i", "twenty"], ["shifted"])
    weights = [numpy_helper.from_array(np.arange(10, dtype=np.float32), "table"), numpy_helper.from_array(np.array(20), "twenty")]
    path = models.write(tmp_path, "m", [shift, table], [models.value("i", "INT64", ["n"])], [models.value("y", "FP32", ["n"])], weights)
    assert not load_version("m", "1", path, ModelSettings(), 1).batched
    version = loaded(path, in_i=np.array([20, 25, 29]), out_y=np.float32([0, 5, 9]))
    assert (version.state, version.batched) == ("READY", True), version.batching


def test_rows_that_depend_on_each_other_are_found_with_one_golden_row_too(tmp_path):
    nodes = [helper.make_node("ReduceMax", ["x"], ["m"], axes=[0], keepdims=1), helper.make_node("Sub", ["x", "m"], ["y"])]
    path = models.write(tmp_path, "m", nodes, [models.value("x", "FP32", ["n", 2])], [models.value("y", "FP32", ["n", 2])])
    version = loaded(path, in_x=np.float32([[1, 2]]), out_y=np.float32([[0, 0]]))
    assert (version.state, version.batched) == ("READY", False), version.reason


@given(npst.arrays(np.float32, 5, elements=st.floats(width=32)), st.sampled_from([0.0, 1e-4, 0.1]), st.sampled_from([0.0, 1e-6, 1.0]), st.data())
def test_close_is_what_numpy_calls_close(expected, rtol, atol, data):
    computed = data.draw(npst.arrays(np.float32, 5, elements=st.floats(width=32) | st.sampled_from([float(one) for one in expected])))
    limits = golden.Limits(rtol, atol)
    with np.errstate(invalid="ignore"):
        close = np.allclose(computed.astype(np.float64), expected.astype(np.float64), rtol, atol, equal_nan=True)
    try:
        golden.compare("y", computed, expected, limits)
        assert close
    except GoldenFailed:
        assert not close


def test_a_golden_file_that_only_a_label_needs_fails_its_version_alone(tmp_path):
    models.linear(tmp_path, "m", "1", 1.0)
    path = models.linear(tmp_path, "m", "2", 2.0)
    np.savez(path.parent / "golden.npz", **{"in:x": X, "out:y": Y})
    status = first_pass(tmp_path)["m"]
    assert (status.pick().number, status.versions["2"].state) == ("1", "FAILED")
