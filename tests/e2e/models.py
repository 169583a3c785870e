"""Small ONNX models for the tests, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, load, numpy_helper, save

DATATYPES = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING, "BF16": TensorProto.BFLOAT16,
}


def write(registry: Path, name: str, nodes: list, inputs: list, outputs: list, weights: list | None = None, version: str = "1") -> Path:
    graph = helper.make_graph(nodes, name, inputs, outputs, weights or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path = registry / name / version / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(model, path)
    return path


def value(name: str, datatype: str, shape: list) -> object:
    return helper.make_tensor_value_info(name, DATATYPES[datatype], shape)


def identity(registry: Path, datatype: str, shape: list | None = None, name: str = "") -> Path:
    shape = ["n", 3] if shape is None else shape
    return write(registry, name or f"identity_{datatype.lower()}", [helper.make_node("Identity", ["x"], ["y"])],
                 [value("x", datatype, shape)], [value("y", datatype, shape)])


def linear(registry: Path, name: str = "linear", version: str = "1", factor: float = 2.0) -> Path:
    """y = x @ W with a fixed W scaled by factor: FP32 [-1,8] -> [-1,4]."""
    weights = (np.arange(32, dtype=np.float32).reshape(8, 4) / 10 * factor).astype(np.float32)
    return write(registry, name, [helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", "FP32", ["n", 8])],
                 [value("y", "FP32", ["n", 4])], [numpy_helper.from_array(weights, "w")], version)


def candidates(registry: Path) -> Path:
    """Of linear version 1, a version 2 that has the same weights, and a version 3 that has others; all are loaded."""
    for version, factor in (("1", 1.0), ("2", 1.0), ("3", 1.5)):
        linear(registry, "linear", version, factor)
    (registry / "linear" / "model.yaml").write_text("versions: {policy: all}\n")
    return registry


def lookup(registry: Path) -> Path:
    """y = table[i]: an index outside the table fails the run."""
    table = np.arange(10, dtype=np.float32).reshape(10, 1)
    return write(registry, "lookup", [helper.make_node("Gather", ["table", "i"], ["y"], axis=0)], [value("i", "INT64", ["n"])],
                 [value("y", "FP32", ["n", 1])], [numpy_helper.from_array(table, "table")])


def bounded(registry: Path, rows: int) -> Path:
    """y = x of FP32 [-1,8]: a run of more rows than that fails."""
    constants = {"numbers": np.zeros(rows, np.float32), "first": np.array([0], np.int64), "one": np.array([1], np.int64)}
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("Gather", ["shape", "first"], ["rows"]),
        helper.make_node("Sub", ["rows", "one"], ["last"]), helper.make_node("Gather", ["numbers", "last"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]  # fmt: skip
    return write(registry, "bounded", nodes, [value("x", "FP32", ["n", 8])], [value("y", "FP32", ["n", 8])],
                 [numpy_helper.from_array(array, name) for name, array in constants.items()])


def table(registry: Path, name: str, version: str, size: int, shape: list | None = None) -> Path:
    """y = i, looked up in a table of that size: an index outside of it fails the run."""
    numbers = numpy_helper.from_array(np.arange(size, dtype=np.float32).reshape(size, 1), "table")
    shape = shape or ["n"]
    return write(registry, name, [helper.make_node("Gather", ["table", "i"], ["y"], axis=0)], [value("i", "INT64", shape)],
                 [value("y", "FP32", [*shape, 1])], [numbers], version)


def texts(registry: Path, name: str = "texts", *, masked: bool = True) -> Path:
    """mean and tokens of an embedding of ids INT64 [-1,-1]: FP32 [-1,4], and FP32 [-1,-1,4], to which the mean is added; where the mask is 1,
    unless it is not looked at."""
    constants = {"words": np.sin(np.arange(400, dtype=np.float32).reshape(100, 4)), "one": np.array([1], np.int64), "two": np.array([2], np.int64)}
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["embedded"]), helper.make_node("Cast", ["attention_mask"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "two"], ["mask"]), helper.make_node("Mul", ["embedded", "mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "one"], ["sum"], keepdims=0), helper.make_node("ReduceSum", ["mask", "one"], ["count"], keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["mean"]) if masked else helper.make_node("ReduceMean", ["embedded"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["means"]), helper.make_node("Add", ["embedded", "means"], ["tokens"]),
    ]  # fmt: skip
    given = [value(one, "INT64", ["n", "t"]) for one in ("ids", "attention_mask")]
    return write(registry, name, nodes, given, [value("mean", "FP32", ["n", 4]), value("tokens", "FP32", ["n", "t", 4])],
                 [numpy_helper.from_array(array, key) for key, array in constants.items()])


def slow(registry: Path, rounds: int = 400) -> Path:
    """A run of some hundred milliseconds: repeated matrix products."""
    weights = np.eye(256, dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["x" if i == 0 else f"t{i}", "w"], [f"t{i + 1}" if i < rounds - 1 else "y"]) for i in range(rounds)]
    return write(registry, "slow", nodes, [value("x", "FP32", ["n", 256, 256])], [value("y", "FP32", ["n", 256, 256])],
                 [numpy_helper.from_array(weights, "w")])


def endless(registry: Path) -> Path:
    """y = x + n by counting: as slow as the caller wishes."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go_out"]), helper.make_node("Add", ["a", "one"], ["b"])], "count",
        [value("i", "INT64", []), value("go_in", "BOOL", []), value("a", "INT64", ["k"])],
        [value("go_out", "BOOL", []), value("b", "INT64", ["k"])],
    )  # fmt: skip
    return write(registry, "endless", [helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)], [value("n", "INT64", []), value("x", "INT64", ["k"])],
                 [value("y", "INT64", ["k"])], [numpy_helper.from_array(np.array([1], np.int64), "one")])


def endless_spare(registry: Path, name: str) -> Path:
    """The same sum at once."""
    given = [value("n", "INT64", []), value("x", "INT64", ["k"])]
    return write(registry, name, [helper.make_node("Add", ["x", "n"], ["y"])], given, [value("y", "INT64", ["k"])])


def external(registry: Path) -> Path:
    """y = x @ ones, whose 4 MB of weights lie in a file of their own: FP32 [-1,1024] -> [-1,1024]."""
    path = write(registry, "external", [helper.make_node("MatMul", ["x", "w"], ["y"])], [value("x", "FP32", ["n", 1024])],
                 [value("y", "FP32", ["n", 1024])], [numpy_helper.from_array(np.ones((1024, 1024), np.float32), "w")])
    save(load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def fatal(registry: Path, name: str = "fatal", version: str = "1") -> Path:
    """Ends the process that loads it: -2^31 / -1 has no answer in 32 bits, and x86 divides with a trap (SIGFPE)."""
    lowest, minus_one = numpy_helper.from_array(np.array([[-(2**31)]], np.int32), "lowest"), numpy_helper.from_array(np.array([[-1]], np.int32), "minus_one")
    nodes = [helper.make_node("Div", ["lowest", "minus_one"], ["q"]), helper.make_node("Add", ["x", "q"], ["y"])]
    return write(registry, name, nodes, [value("x", "INT32", ["n", 1])], [value("y", "INT32", ["n", 1])], [lowest, minus_one], version)


def divide(registry: Path, name: str = "divide", version: str = "1") -> Path:
    """q = a / b for INT32 [n, 1] each."""
    given = [value(one, "INT32", ["n", 1]) for one in "ab"]
    return write(registry, name, [helper.make_node("Div", ["a", "b"], ["q"])], given, [value("q", "INT32", ["n", 1])], [], version)
