"""ONNX Runtime through its C library, held against its Python package, which is another copy of it in the same process."""

from __future__ import annotations

import itertools
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from batchmill.core import ort

TYPES = {
    "BOOL": (TensorProto.BOOL, np.bool_), "UINT8": (TensorProto.UINT8, np.uint8), "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32), "UINT64": (TensorProto.UINT64, np.uint64), "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16), "INT32": (TensorProto.INT32, np.int32), "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16), "FP32": (TensorProto.FLOAT, np.float32), "FP64": (TensorProto.DOUBLE, np.float64),
    "BF16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
}
# A sanitizer keeps freed memory back for a while, so nothing can be told of growth there.
NOT_UNDER_TSAN = pytest.mark.skipif("tsan" in os.environ.get("LD_PRELOAD", ""), reason="ThreadSanitizer begins a thread of its own with the first one")
NOT_UNDER_SANITIZER = pytest.mark.skipif("san" in os.environ.get("LD_PRELOAD", ""), reason="memory is not given back under a sanitizer")


@pytest.fixture(scope="module", autouse=True)
def version() -> str:
    return ort.initialise()


def raw_strings(*elements: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def save(path: Path, nodes: list, inputs: list, outputs: list, initializers: list = (), opset: int = 17, **options) -> str:
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(initializers))
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", opset)])
    onnx.save(model, str(path), **options)
    return str(path)


def tensor(name: str, element: int, shape: list | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def identity(path: Path, element: int, shape: list | None) -> str:
    return save(path, [helper.make_node("Identity", ["x"], ["y"])], [tensor("x", element, shape)], [tensor("y", element, shape)])


def gather(path: Path) -> str:
    """y = one of 4 numbers for every index given: a run that fails by its data."""
    return save(path, [helper.make_node("Gather", ["table", "x"], ["y"])], [tensor("x", TensorProto.INT64, ["n"])],
                [tensor("y", TensorProto.FLOAT, ["n"])], [helper.make_tensor("table", TensorProto.FLOAT, [4], [1, 2, 3, 4])])


def mlp(path: Path) -> str:
    sizes, nodes, initializers, last = [64, 128, 64, 8], [], [], "x"
    for layer, (width, height) in enumerate(itertools.pairwise(sizes)):
        weights = np.random.default_rng(layer).standard_normal((width, height)).astype(np.float32) / 8
        initializers.append(onnx.numpy_helper.from_array(weights, f"w{layer}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"m{layer}"]))
        last = "y" if layer == 2 else f"h{layer}"
        nodes.append(helper.make_node("Relu", [f"m{layer}"], [last]))
    return save(path, nodes, [tensor("x", TensorProto.FLOAT, ["n", 64])], [tensor("y", TensorProto.FLOAT, ["n", 8])], initializers)


# --- signatures ---

def test_symbolic_dimensions_keep_their_names(tmp_path: Path) -> None:
    model = ort.Model(identity(tmp_path / "m.onnx", TensorProto.FLOAT, ["batch", 3, None, "width"]))
    assert model.inputs == [("x", "FP32", [-1, 3, -1, -1], ["batch", "", "", "width"])]
    assert model.outputs == [("y", "FP32", [-1, 3, -1, -1], ["batch", "", "", "width"])]


def test_a_sequence_output_is_refused_by_name(tmp_path: Path) -> None:
    sequence = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)
    nodes = [helper.make_node("SplitToSequence", ["x"], ["parts"])]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", TensorProto.FLOAT, [4])], [sequence])
    with pytest.raises(ValueError, match=r'output "parts" is a sequence'):
        ort.Model(path)


def test_an_optional_input_is_refused_by_name(tmp_path: Path) -> None:
    maybe = helper.make_value_info("maybe", helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2])))
    nodes = [helper.make_node("OptionalGetElement", ["maybe"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [maybe], [tensor("y", TensorProto.FLOAT, [2])], opset=18)
    with pytest.raises(ValueError, match=r'input "maybe" is an optional value'):
        ort.Model(path)


def test_an_element_type_without_a_datatype_is_refused_by_name(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT8E4M3FN)]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", TensorProto.FLOAT, [2])], [tensor("y", TensorProto.FLOAT8E4M3FN, [2])], opset=19)
    with pytest.raises(ValueError, match=r'output "y" has elements of type FLOAT8E4M3FN'):
        ort.Model(path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a\x12\xff\xff"])
def test_a_file_that_is_no_model_is_refused_and_prints_nothing(tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ValueError, match="cannot load the model: "):
        ort.Model(str(tmp_path / "m.onnx"))
    assert capfd.readouterr() == ("", "")


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    path = mlp(tmp_path / "m.onnx")
    Path(path).write_bytes(Path(path).read_bytes()[:-1000])
    with pytest.raises(ValueError, match="cannot load the model"):
        ort.Model(path)


@pytest.mark.parametrize("provider", onnxruntime.get_available_providers())
def test_every_provider_that_is_listed_can_be_asked_for(tmp_path: Path, provider: str) -> None:
    ort.Model(mlp(tmp_path / "m.onnx"), providers=(provider, "CPUExecutionProvider"))


def test_a_missing_file_and_an_unknown_provider_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot load the model"):
        ort.Model(str(tmp_path / "none.onnx"))
    with pytest.raises(ValueError, match="no execution provider 'TPU'"):
        ort.Model(mlp(tmp_path / "m.onnx"), providers=("TPU",))


# --- runs ---

@pytest.mark.parametrize("datatype", TYPES)
@pytest.mark.parametrize("shape", [[2, 3], [], [1], [0, 3], [7, 1, 5]], ids=str)
def test_every_datatype_passes_through_unchanged(tmp_path: Path, datatype: str, shape: list[int]) -> None:
    element, numpy_type = TYPES[datatype]
    model = ort.Model(identity(tmp_path / "m.onnx", element, [None] * len(shape)))
    size = int(np.prod(shape)) * np.dtype(numpy_type).itemsize
    raw = np.random.default_rng(1).integers(0, 2 if datatype == "BOOL" else 256, size, np.uint8).tobytes()
    assert model.run({"x": (datatype, shape, raw)}) == {"y": (datatype, shape, raw)}


@pytest.mark.parametrize("datatype", [d for d in TYPES if d not in ("BOOL", "BF16", "UINT8", "UINT16", "INT8", "INT16")])
def test_sums_equal_the_python_package_s(tmp_path: Path, datatype: str) -> None:
    element, numpy_type = TYPES[datatype]
    path = save(tmp_path / "m.onnx", [helper.make_node("Add", ["a", "b"], ["y"])],
                [tensor("a", element, ["n", 3]), tensor("b", element, ["n", 3])], [tensor("y", element, ["n", 3])])
    a, b = (np.random.default_rng(seed).integers(0, 50, (4, 3)).astype(numpy_type) for seed in (1, 2))
    wanted = onnxruntime.InferenceSession(path).run(None, {"a": a, "b": b})[0]
    given = {"b": (datatype, [4, 3], b.tobytes()), "a": (datatype, [4, 3], a.tobytes())}
    assert ort.Model(path).run(given) == {"y": (datatype, [4, 3], wanted.tobytes())}


def test_a_network_equals_the_python_package_s_with_one_thread_and_with_a_pool(tmp_path: Path) -> None:
    path = mlp(tmp_path / "m.onnx")
    x = np.random.default_rng(3).standard_normal((5, 64)).astype(np.float32)
    wanted = onnxruntime.InferenceSession(path).run(None, {"x": x})[0]
    for threads in (1, 2):
        datatype, shape, raw = ort.Model(path, intra_op_threads=threads).run({"x": ("FP32", [5, 64], x.tobytes())})["y"]
        assert (datatype, shape) == ("FP32", [5, 8])
        assert ort.close(raw, wanted.tobytes(), "FP32", 1e-5, 1e-6)


WIDE = """
import sys
from pathlib import Path
from batchmill.core import ort
count = lambda: sum((task / "comm").read_text() != "spawner\\n" for task in Path("/proc/self/task").iterdir())
own = count()
ort.initialise(wide_threads=int(sys.argv[2]))
pool = count() - own
x = bytes.fromhex(sys.stdin.read())
for name in sys.argv[3:]:
    model = ort.Model(sys.argv[1], intra_op_threads=int(name))
    print(pool, count() - own - pool, model.run({"x": ("FP32", [512, 64], x)})["y"][2].hex())
"""


def run_wide(path: str, wide_threads: int, x: np.ndarray, *intra_op_threads: int) -> subprocess.CompletedProcess:
    """In a process of its own: the pool is made, or not, when the library is opened."""
    arguments = [path, str(wide_threads), *map(str, intra_op_threads)]
    return subprocess.run([sys.executable, "-c", WIDE, *arguments], input=x.tobytes().hex(), capture_output=True, text=True, timeout=60)


@NOT_UNDER_TSAN
def test_a_wide_model_answers_as_a_narrow_one_and_adds_no_thread(tmp_path: Path) -> None:
    x = np.random.default_rng(3).standard_normal((512, 64)).astype(np.float32)
    told = run_wide(mlp(tmp_path / "m.onnx"), 3, x, 1, 0, 0).stdout.split()
    assert told[0::3] == ["2"] * 3
    assert told[1::3] == ["0"] * 3
    narrow, *wide = (bytes.fromhex(raw) for raw in told[2::3])
    assert len(narrow) == 512 * 8 * 4
    assert all(ort.close(raw, narrow, "FP32", 1e-5, 1e-6) for raw in wide)


@NOT_UNDER_TSAN
def test_without_a_pool_there_are_no_wide_models(tmp_path: Path) -> None:
    x = np.zeros((512, 64), np.float32)
    ended = run_wide(mlp(tmp_path / "m.onnx"), 1, x, 1, 0)
    assert ended.stdout.split()[:2] == ["0", "0"]
    assert "without a shared wide pool" in ended.stderr


NICE_LOADER = """
import os, sys, threading
from pathlib import Path
from batchmill.core import ort
ort.initialise()
nice = lambda: [os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in Path("/proc/self/task").iterdir() if (task / "comm").read_text() == "session\\n"]
os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
model = ort.Model(sys.argv[1], intra_op_threads=3)
during = nice()
del model
print(during, nice())
"""


@NOT_UNDER_TSAN
def test_the_threads_of_a_model_s_own_pool_have_the_priority_of_who_opened_the_library_and_end_with_it(tmp_path: Path) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    told = subprocess.run([sys.executable, "-c", NICE_LOADER, mlp(tmp_path / "m.onnx")], capture_output=True, text=True, timeout=60)
    assert told.stdout.strip() == f"{[own] * 2} []", told.stderr


@pytest.mark.parametrize(("shape", "elements"), [
    ([2, 2], [b"a\0b", b"", b"\xff\xfe", b"x" * 5000]), ([], [b"\0"]), ([0], []), ([3], [b"", b"", b""]), ([1, 0], [])], ids=str)
def test_strings_pass_through_byte_by_byte(tmp_path: Path, shape: list[int], elements: list[bytes]) -> None:
    model = ort.Model(identity(tmp_path / "m.onnx", TensorProto.STRING, [None] * len(shape)))
    raw = raw_strings(*elements)
    assert model.run({"x": ("BYTES", shape, raw)}) == {"y": ("BYTES", shape, raw)}


def test_two_string_outputs_do_not_disturb_each_other(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Concat", ["x"] * 9, ["z"], axis=0)]
    path = save(tmp_path / "m.onnx", nodes, [tensor("x", TensorProto.STRING, ["n"])],
                [tensor("y", TensorProto.STRING, ["n"]), tensor("z", TensorProto.STRING, None)])
    raw = raw_strings(*(b"\0%d" % i for i in range(200)))
    model = ort.Model(path)
    assert model.run({"x": ("BYTES", [200], raw)}) == {"y": ("BYTES", [200], raw), "z": ("BYTES", [1800], raw * 9)}
    assert model.run({"x": ("BYTES", [200], raw)}, ["z"]) == {"z": ("BYTES", [1800], raw * 9)}


def test_the_shape_of_an_output_is_the_one_it_has_not_the_one_declared(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("NonZero", ["x"], ["y"])], [tensor("x", TensorProto.FLOAT, [4])],
                [tensor("y", TensorProto.INT64, None)])
    x = np.array([0, 1, 0, 1], np.float32)
    assert ort.Model(path).run({"x": ("FP32", [4], x.tobytes())}) == {"y": ("INT64", [1, 2], np.array([1, 3], np.int64).tobytes())}


def test_external_data_is_found_beside_the_model(tmp_path: Path) -> None:
    weights = onnx.numpy_helper.from_array(np.arange(2000, dtype=np.float32), "w")
    path = save(tmp_path / "m.onnx", [helper.make_node("Add", ["x", "w"], ["y"])], [tensor("x", TensorProto.FLOAT, [2000])],
                [tensor("y", TensorProto.FLOAT, [2000])], [weights], save_as_external_data=True, location="w.bin")
    assert (tmp_path / "w.bin").exists()
    answer = ort.Model(path).run({"x": ("FP32", [2000], bytes(8000))})
    assert answer["y"][2] == np.arange(2000, dtype=np.float32).tobytes()


@pytest.mark.parametrize(("given", "message"), [
    ({"z": ("INT64", [1], bytes(8))}, "no input 'z'"), ({}, "input 'x' is missing"), ({"x": ("FP32", [1], bytes(4))}, "INT64 wanted"),
    ({"x": ("INT64", [2], bytes(8))}, "8 bytes given"), ({"x": ("INT64", [-1], bytes(8))}, "8 bytes given"),
    ({"x": ("INT64", [1, 1], bytes(8))}, "cannot run this input: Invalid rank"),
    ({"x": ("INT64", [1] * 17, bytes(8))}, "at most 16")])
def test_inputs_that_do_not_fit_are_refused(tmp_path: Path, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ort.Model(gather(tmp_path / "m.onnx")).run(given)


def test_bytes_elements_that_do_not_fill_the_shape_are_refused(tmp_path: Path) -> None:
    model = ort.Model(identity(tmp_path / "m.onnx", TensorProto.STRING, ["n"]))
    for raw in (raw_strings(b"a"), raw_strings(b"a", b"b")[:-1], raw_strings(b"a", b"b", b"c")):
        with pytest.raises(ValueError, match="not the elements of shape"):
            model.run({"x": ("BYTES", [2], raw)})


def test_data_that_a_node_refuses_is_the_caller_s_fault_and_names_no_source_file(
        tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = ort.Model(gather(tmp_path / "m.onnx"))
    ort.take_messages()
    with pytest.raises(ValueError, match=r"Gather node.*out of data bounds|Gather node.*out of bounds") as caught:
        model.run({"x": ("INT64", [1], struct.pack("<q", 9))})
    assert "/" not in str(caught.value)
    assert len(str(caught.value)) < 450
    assert capfd.readouterr() == ("", "")
    lines, dropped = ort.take_messages()
    assert any("Gather" in line for line in lines)
    assert not any("/" in line or "\n" in line for line in lines)
    assert dropped == 0


def test_the_runtime_s_messages_are_kept_up_to_a_bound_and_counted_beyond(tmp_path: Path) -> None:
    model = ort.Model(gather(tmp_path / "m.onnx"))
    ort.take_messages()
    for _ in range(50):
        with pytest.raises(ValueError, match="Gather"):
            model.run({"x": ("INT64", [1], struct.pack("<q", 9))})
    lines, dropped = ort.take_messages()
    assert len(lines) == 32
    assert len(lines) + dropped >= 50
    assert ort.take_messages() == ([], 0)


def test_a_kernel_that_throws_names_no_source_file(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("Reshape", ["x", "s"], ["y"])],
                [tensor("x", TensorProto.FLOAT, ["n"]), tensor("s", TensorProto.INT64, [1])], [tensor("y", TensorProto.FLOAT, ["m"])])
    with pytest.raises(ValueError, match="Reshape node") as caught:
        ort.Model(path).run({"x": ("FP32", [3], bytes(12)), "s": ("INT64", [1], struct.pack("<q", 4))})
    assert ".h:" not in str(caught.value)
    assert ".cc:" not in str(caught.value)
    assert "::" not in str(caught.value)


def test_a_mismatch_of_sizes_names_no_source_file(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("MatMul", ["a", "b"], ["y"])],
                [tensor("a", TensorProto.FLOAT, ["n", "k"]), tensor("b", TensorProto.FLOAT, ["j", "m"])],
                [tensor("y", TensorProto.FLOAT, ["n", "m"])])
    with pytest.raises(ValueError, match=r"MatMul node.*dimension mismatch") as caught:
        ort.Model(path).run({"a": ("FP32", [1, 3], bytes(12)), "b": ("FP32", [2, 1], bytes(8))})
    assert ".h:" not in str(caught.value)


@pytest.mark.skipif("san" in os.environ.get("LD_PRELOAD", ""), reason="a sanitizer ends the process on a huge allocation")
def test_a_run_that_needs_too_much_memory_is_the_server_s_failure(tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("ConstantOfShape", ["x"], ["y"])], [tensor("x", TensorProto.INT64, [1])],
                [tensor("y", TensorProto.FLOAT, ["n"])])
    with pytest.raises(RuntimeError, match="allocate memory"):
        ort.Model(path).run({"x": ("INT64", [1], struct.pack("<q", 1 << 45))})


def test_threads_run_one_model_at_once(tmp_path: Path) -> None:
    model = ort.Model(mlp(tmp_path / "m.onnx"))
    inputs = [np.random.default_rng(i).standard_normal((1 + i, 64)).astype(np.float32) for i in range(4)]
    wanted = [model.run({"x": ("FP32", list(x.shape), x.tobytes())}) for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(300):
            if model.run({"x": ("FP32", list(inputs[i].shape), inputs[i].tobytes())}) != wanted[i]:
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@NOT_UNDER_SANITIZER
def test_runs_good_and_bad_leave_nothing_behind(tmp_path: Path) -> None:
    models = [(ort.Model(mlp(tmp_path / "a.onnx")), "FP32", [3, 64], bytes(768)),
              (ort.Model(identity(tmp_path / "b.onnx", TensorProto.STRING, ["n"])), "BYTES", [2], raw_strings(b"x" * 500, b"\0" * 900)),
              (ort.Model(gather(tmp_path / "c.onnx")), "INT64", [1], struct.pack("<q", 9))]

    def rounds(count: int) -> None:
        for _ in range(count):
            for model, datatype, shape, raw in models:
                try:
                    model.run({"x": (datatype, shape, raw)})
                except ValueError:
                    assert datatype == "INT64"

    rounds(1000)
    before = resident_bytes()
    rounds(7000)
    assert resident_bytes() - before < 2 << 20


@NOT_UNDER_SANITIZER
def test_loading_and_ending_models_leaves_nothing_behind(tmp_path: Path) -> None:
    path = mlp(tmp_path / "m.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"bad")

    def rounds(count: int) -> None:
        for _ in range(count):
            ort.Model(path)
            with pytest.raises(ValueError, match="cannot load"):
                ort.Model(str(tmp_path / "bad.onnx"))

    rounds(30)
    before = resident_bytes()
    rounds(150)
    assert resident_bytes() - before < 8 << 20  # a session of this model is about 0.2 MiB
