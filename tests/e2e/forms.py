"""Models of the forms that ONNX has beside the plain ones of matrix.py, with inputs for those that can be served."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from .models import value

WIDTH = 200     # inputs, and outputs
ML = helper.make_opsetid("ai.onnx.ml", 3)
# Elements that only weights may have: (opset, IR version) from which on ONNX has them.
NARROW = {"UINT4": (21, 10), "INT4": (21, 10), "FLOAT8E4M3FN": (19, 9), "FLOAT8E4M3FNUZ": (19, 9), "FLOAT8E5M2": (19, 9), "FLOAT8E5M2FNUZ": (19, 9)}
NUMBERS = np.arange(12, dtype=np.float32).reshape(3, 4) - 5


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: tuple[Any, ...] = (), opset: int = 17, ir: int = 8,
          domains: tuple[Any, ...] = ()) -> ModelProto:
    made = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, list(weights)), opset_imports=[helper.make_opsetid("", opset), *domains])
    made.ir_version = ir
    return made


def one(operator: str, inputs: list[Any], outputs: list[Any], weights: tuple[Any, ...] = (), **more: Any) -> ModelProto:
    """A model of one node; more: its attributes, and what model() takes."""
    made = {name: more.pop(name) for name in ("opset", "ir", "domains") if name in more}
    given = [entry.name for entry in inputs] + [entry.name for entry in weights if entry.name not in {known.name for known in inputs}]
    return model([helper.make_node(operator, given, [entry.name for entry in outputs], **more)], inputs, outputs, weights, **made)


def texts(*elements: str) -> np.ndarray:
    return np.array(elements, object)


def served() -> dict[str, tuple[ModelProto, list[dict[str, np.ndarray]]]]:
    """name -> (model, inputs)."""
    numbers = [value(f"x{at}", "INT64", ["n"]) for at in range(WIDTH)]
    factor = numpy_helper.from_array(np.float32(2), "k")
    a, b = (value(name, "FP32", ["n", "k"]) for name in "ab")
    return {
        "wide": (model([helper.make_node("Add", [f"x{at}", f"x{(at + 1) % WIDTH}"], [f"y{at}"]) for at in range(WIDTH)], numbers,
                       [value(f"y{at}", "INT64", ["n"]) for at in range(WIDTH)]),
                 [{f"x{at}": np.arange(rows) + at for at in range(WIDTH)} for rows in (1, 3)]),
        "no_inputs": (one("Identity", [], [value("y", "FP32", [3, 4])], (numpy_helper.from_array(NUMBERS, "w"),)), [{}]),
        "no_rows": (one("Relu", [value("x", "FP32", ["n", 4])], [value("y", "FP32", ["n", 4])]), [{"x": NUMBERS[:0]}, {"x": NUMBERS}]),
        "nothing_within": (one("ReduceSum", [value("x", "FP32", ["n", "m"])], [value("y", "FP32", None)], keepdims=0), [{"x": np.zeros((0, 0), np.float32)}]),
        "unshaped": (one("Relu", [value("x", "FP32", None)], [value("y", "FP32", None)]), [{"x": NUMBERS}, {"x": np.array(-2, np.float32)}, {"x": NUMBERS[:, :0, None]}]),
        "scalars": (one("Add", [value("a", "INT64", []), value("b", "INT64", [])], [value("y", "INT64", [])]), [{"a": np.array(2**62), "b": np.array(-7)}]),
        "left_out": (one("Mul", [value("x", "FP32", ["n", 4]), value("k", "FP32", [])], [value("y", "FP32", ["n", 4])], (factor,)), [{"x": NUMBERS}]),
        "tied": (one("Add", [a, b], [value("y", "FP32", ["n", "k"])]), [{"a": NUMBERS, "b": NUMBERS * 2}, {"a": NUMBERS[:, :1], "b": NUMBERS[:, 1:2]}]),
        "square": (one("Det", [value("x", "FP32", ["k", "k"])], [value("y", "FP32", [])]), [{"x": NUMBERS[:, :3]}, {"x": NUMBERS[:1, :1]}]),
        **{f"inner_{name.lower()}": (narrow(name), [{"x": NUMBERS}]) for name in NARROW},
        **of_strings(),
    }


def of_strings() -> dict[str, tuple[ModelProto, list[dict[str, np.ndarray]]]]:
    words, number = value("x", "BYTES", ["n"]), value("y", "INT64", ["n"])
    given = [{"x": texts("Zwölf", "", "a\x00b")}, {"x": texts("x" * 5000)}]
    return {
        "upper": (one("StringNormalizer", [words], [value("y", "BYTES", [None])], case_change_action="UPPER", locale="C.UTF-8"), given[1:]),
        "joined": (one("StringConcat", [words, value("z", "BYTES", ["n"])], [value("y", "BYTES", ["n"])], opset=20, ir=9),
                   [{"x": entry["x"], "z": entry["x"][::-1]} for entry in given]),
        "split": (one("StringSplit", [words], [value("y", "BYTES", ["n", None]), value("z", "INT64", ["n"])], delimiter=" ", opset=20, ir=9),
                  [{"x": texts("a b c", "", "ü")}]),
        "matched": (one("RegexFullMatch", [words], [value("y", "BOOL", ["n"])], pattern="[a-z]+", opset=20, ir=9), [{"x": texts("abc", "a1", "")}]),
        "numbered": (one("LabelEncoder", [words], [number], keys_strings=["a", "ü", ""], values_int64s=[1, 2, 3], default_int64=-1, domain="ai.onnx.ml", domains=(ML,)),
                     [{"x": texts("ü", "a", "nobody", "")}]),
        "named": (one("LabelEncoder", [value("x", "INT64", ["n"])], [value("y", "BYTES", ["n"])], keys_int64s=[1, 2], values_strings=["eins", "zwölf"],
                      default_string="?", domain="ai.onnx.ml", domains=(ML,)), [{"x": np.array([2, 1, 9])}]),
        "counted": (one("TfIdfVectorizer", [value("x", "BYTES", ["n", "m"])], [value("y", "FP32", ["n", 2])], mode="TF", min_gram_length=1, max_gram_length=1,
                        max_skip_count=0, ngram_counts=[0], ngram_indexes=[0, 1], pool_strings=["a", "b"]), [{"x": np.array([["a", "b", "a"]], object)}]),
    }


def narrow(name: str) -> ModelProto:
    """y = x @ dequantised w, whose elements are of that type."""
    opset, ir = NARROW[name]
    weights = helper.make_tensor("w", getattr(TensorProto, name), [4, 2], [1, 3, 0, 1, 2, 0, 1, 1])
    nodes = [helper.make_node("DequantizeLinear", ["w", "scale"], ["wide"]), helper.make_node("MatMul", ["x", "wide"], ["y"])]
    return model(nodes, [value("x", "FP32", ["n", 4])], [value("y", "FP32", ["n", 2])], (weights, numpy_helper.from_array(np.float32(0.5), "scale")), opset, ir)


def refused() -> dict[str, tuple[ModelProto, str]]:
    """name -> (model, how the reason names what of it cannot be served)."""
    x, y, tensor = value("x", "FP32", [2]), value("y", "FP32", None), helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    parts, mapping = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None), helper.make_map_type_proto(TensorProto.INT64, tensor)
    maybe = helper.make_value_info("maybe", helper.make_optional_type_proto(tensor))
    chart, charts = helper.make_value_info("chart", mapping), helper.make_value_info("charts", helper.make_sequence_type_proto(mapping))
    sparse = helper.make_value_info("sparse", helper.make_sparse_tensor_type_proto(TensorProto.FLOAT, ["n", 3]))
    contrib = (helper.make_opsetid("com.microsoft", 1),)
    return {
        "sequence_in": (one("ConcatFromSequence", [parts], [y], axis=0), 'input "parts" is a sequence'),
        "sequence_out": (one("SplitToSequence", [x], [parts]), 'output "parts" is a sequence'),
        "map_in": (one("DictVectorizer", [chart], [y], int64_vocabulary=[1, 2], domain="ai.onnx.ml", domains=(ML,)), 'input "chart" is a map'),
        "maps_out": (one("ZipMap", [value("x", "FP32", ["n", 2])], [charts], classlabels_int64s=[1, 2], domain="ai.onnx.ml", domains=(ML,)),
                     'output "charts" is a sequence'),
        "optional_in": (one("OptionalGetElement", [maybe], [y], opset=18), 'input "maybe" is an optional value'),
        "optional_out": (one("Optional", [x], [maybe], opset=18), 'output "maybe" is an optional value'),
        "sparse_in": (one("SparseToDenseMatMul", [sparse, value("b", "FP32", [3, 2])], [y], domain="com.microsoft", domains=contrib),
                      'input "sparse" is a sparse tensor'),
        **{f"{name.lower()}_{'in' if inward else 'out'}": of_elements(name, inward) for name in (*NARROW, "COMPLEX64", "COMPLEX128", "FLOAT4E2M1", "FLOAT8E8M0")
           for inward in (True, False)},
    }


def of_elements(name: str, inward: bool) -> tuple[ModelProto, str]:
    """A model that casts from or to elements of that type; the runtime has no such cast for those that NARROW lacks."""
    element = getattr(TensorProto, name)
    odd, plain = helper.make_tensor_value_info("odd", element, [2]), value("plain", "FP32", [2])
    opset, ir = NARROW.get(name, (24, 12))
    made = one("Cast", [odd], [plain], to=TensorProto.FLOAT, opset=opset, ir=ir) if inward else one("Cast", [plain], [odd], to=element, opset=opset, ir=ir)
    return made, f'{"input" if inward else "output"} "odd" has elements of type {name}, for which the v2 protocol has no datatype'
