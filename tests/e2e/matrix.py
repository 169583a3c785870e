"""Some six hundred models of one node each, over datatypes, ranks, symbolic axes and operators, with inputs for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from .models import DATATYPES

FLOATS = ("FP16", "FP32", "FP64")
SIGNED = ("INT8", "INT16", "INT32", "INT64")
UNSIGNED = ("UINT8", "UINT16", "UINT32", "UINT64")
NUMBERS = (*FLOATS, *SIGNED, *UNSIGNED)
DTYPES = {"BOOL": np.bool_, "BYTES": np.object_, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
          **{name: np.dtype(name.lower()).type for name in (*SIGNED, *UNSIGNED)}}  # fmt: skip
SHAPES: tuple[list[Any], ...] = ([], [3], ["n"], ["n", 3], ["n", "m"], [2, "n", 3], ["a", 1, "b", 2], ["n", 0], [1, 2, 1, 2, "n"])
AXES = {"n": 2, "m": 3, "a": 1, "b": 4}


@dataclass(frozen=True, eq=False)
class Case:
    """operator and its attributes; inputs: (datatype, shape with names for symbolic axes), or the values themselves; outputs: datatypes."""

    name: str
    operator: str
    inputs: tuple[Any, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def model(self) -> ModelProto:
        given = [helper.make_tensor_value_info(f"x{at}", DATATYPES[datatype_of(one)], shape_of(one)) for at, one in enumerate(self.inputs)]
        made = [helper.make_tensor_value_info(f"y{at}", DATATYPES[datatype], None) for at, datatype in enumerate(self.outputs)]
        node = helper.make_node(self.operator, [one.name for one in given], [one.name for one in made], **self.attributes)
        model = helper.make_model(helper.make_graph([node], "g", given, made), opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        return model

    def feed(self) -> dict[str, np.ndarray]:
        random = np.random.default_rng(len(self.name))
        return {f"x{at}": one if isinstance(one, np.ndarray) else values(one[0], [AXES.get(axis, axis) for axis in one[1]], random)
                for at, one in enumerate(self.inputs)}  # fmt: skip


def datatype_of(given: Any) -> str:
    if isinstance(given, np.ndarray):
        return next(name for name, dtype in DTYPES.items() if given.dtype == dtype)
    return str(given[0])


def shape_of(given: Any) -> list[Any]:
    return [None] * given.ndim if isinstance(given, np.ndarray) else given[1]


def values(datatype: str, shape: list[int], random: np.random.Generator) -> np.ndarray:
    """Any of the datatype, its edges among them."""
    count = int(np.prod(shape))
    if datatype == "BYTES":
        texts = ["", "a", "zwölf", "\\\"\n\x00", "x" * 300]
        return np.array([texts[at % len(texts)] for at in range(count)], object).reshape(shape)
    dtype = DTYPES[datatype]
    if datatype == "BOOL":
        return np.array(random.random(shape) < 0.5)
    if datatype in FLOATS:
        edges = [0.0, -0.0, np.finfo(dtype).max, np.finfo(dtype).min, np.finfo(dtype).smallest_subnormal, 1 / 3]
        made = random.standard_normal(count).astype(dtype)
    else:
        edges = [np.iinfo(dtype).max, np.iinfo(dtype).min, 0]
        made = random.integers(0, 100, count).astype(dtype)
    made[1 : 1 + len(edges)] = np.array(edges, dtype)[: max(0, count - 1)]
    return made.reshape(shape)


def cases() -> Iterator[Case]:
    yield from of_one_input()
    yield from of_two_inputs()
    yield from of_other_shapes()


def of_one_input() -> Iterator[Case]:
    for datatype, (rank, shape) in itertools.product((*NUMBERS, "BOOL", "BYTES"), enumerate(SHAPES)):
        yield Case(f"identity_{datatype}_{rank}", "Identity", ((datatype, shape),), (datatype,))
    for given, wanted in itertools.product((*NUMBERS, "BOOL"), repeat=2):
        small = np.array([[0, 1], [2, 100]]).astype(DTYPES[given])  # in the range of all: what lies outside has no defined result
        yield Case(f"cast_{given}_{wanted}", "Cast", (small,), (wanted,), {"to": DATATYPES[wanted]})
    for operator, datatype in itertools.product(("Abs", "Neg", "Sign", "Relu"), NUMBERS):
        yield Case(f"{operator.lower()}_{datatype}", operator, ((datatype, ["n", 3]),), (datatype,))
    for operator, datatype in itertools.product(("Sigmoid", "Tanh", "Exp", "Sqrt", "Floor", "Ceil", "Round", "Softmax", "Erf", "Reciprocal"), FLOATS):
        yield Case(f"{operator.lower()}_{datatype}", operator, ((datatype, ["n", 4]),), (datatype,))
    for datatype in FLOATS:
        yield Case(f"isnan_{datatype}", "IsNaN", ((datatype, ["n", 4]),), ("BOOL",))


def of_two_inputs() -> Iterator[Case]:
    for operator, datatype in itertools.product(("Add", "Sub", "Mul", "Max", "Min"), NUMBERS):
        yield Case(f"{operator.lower()}_{datatype}", operator, ((datatype, ["n", 3]), (datatype, ["n", 3])), (datatype,))
    for operator, datatype in itertools.product(("Equal", "Less", "Greater", "LessOrEqual"), NUMBERS):
        yield Case(f"{operator.lower()}_{datatype}", operator, ((datatype, ["n", 3]), (datatype, [3])), ("BOOL",))
    for operator in ("And", "Or", "Xor"):
        yield Case(operator.lower(), operator, (("BOOL", ["n", 3]), ("BOOL", ["n", 1])), ("BOOL",))
    for datatype in FLOATS:
        yield Case(f"matmul_{datatype}", "MatMul", ((datatype, ["n", 3]), (datatype, [3, "m"])), (datatype,))
    for datatype in (*NUMBERS, "BOOL", "BYTES"):
        yield Case(f"where_{datatype}", "Where", (("BOOL", ["n", 1]), (datatype, ["n", 3]), (datatype, [])), (datatype,))
        yield Case(f"gather_{datatype}", "Gather", ((datatype, ["n", 3]), np.array([1, 0, -1])), (datatype,))
        yield Case(f"concat_{datatype}", "Concat", ((datatype, ["n", 3]), (datatype, ["m", 3])), (datatype,), {"axis": 0})


def of_other_shapes() -> Iterator[Case]:
    """What changes the rank, or gives several outputs, or some whose size the values decide."""
    for datatype in (*NUMBERS, "BOOL", "BYTES"):
        given = (datatype, ["n", 3])
        yield Case(f"transpose_{datatype}", "Transpose", (given,), (datatype,), {"perm": [1, 0]})
        yield Case(f"reshape_{datatype}", "Reshape", (given, np.array([3, 1, -1])), (datatype,))
        yield Case(f"unsqueeze_{datatype}", "Unsqueeze", (given, np.array([0])), (datatype,))
        yield Case(f"split_{datatype}", "Split", (given, np.array([1, 2])), (datatype, datatype), {"axis": 1})
        yield Case(f"slice_{datatype}", "Slice", (given, np.array([1]), np.array([1])), (datatype,))
        yield Case(f"expand_{datatype}", "Expand", ((datatype, []), np.array([2, 2])), (datatype,))
        yield Case(f"tile_{datatype}", "Tile", (given, np.array([2, 1])), (datatype,))
        yield Case(f"shape_{datatype}", "Shape", (given,), ("INT64",))
        yield Case(f"size_{datatype}", "Size", (given,), ("INT64",))
    for datatype in NUMBERS:
        yield Case(f"reducesum_{datatype}", "ReduceSum", ((datatype, ["n", 3]), np.array([1])), (datatype,))
        yield Case(f"argmax_{datatype}", "ArgMax", ((datatype, ["n", 3]),), ("INT64",), {"axis": 1, "keepdims": 0})
        yield Case(f"topk_{datatype}", "TopK", ((datatype, ["n", 3]), np.array([2])), (datatype, "INT64"))
        yield Case(f"nonzero_{datatype}", "NonZero", ((datatype, ["n", 3]),), ("INT64",))
        yield Case(f"range_{datatype}", "Range", tuple(np.array(one).astype(DTYPES[datatype]) for one in (1, 9, 3)), (datatype,))
        yield Case(f"constant_{datatype}", "ConstantOfShape", (np.array([2, 0, 3]),), (datatype,),
                   {"value": helper.make_tensor("v", DATATYPES[datatype], [1], [7])})  # fmt: skip
