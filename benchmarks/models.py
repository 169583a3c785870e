#!/usr/bin/env python3
"""The models to measure with, made by onnx.helper with fixed seeds: nothing is downloaded, the same bytes every time.

    mlp      x FP32 [-1,64] -> probabilities FP32 [-1,8]; 64-128-64-8, ReLU, softmax: a run of some microseconds
    wide     as mlp, 64-3072-3072-8: some milliseconds
    encoder  input_ids, attention_mask INT64 [-1,-1] -> last_hidden_state FP32 [-1,-1,384]; 6 layers, 12 heads
    resnet   x FP32 [-1,3,224,224] -> logits FP32 [-1,1000]; 18 layers
    gbdt     x FP32 [-1,16] -> label INT64 [-1], probabilities FP32 [-1,2]; 100 trees of scikit-learn through skl2onnx: some microseconds
    encoder2 input_ids, attention_mask INT64 [-1,-1] -> embedding FP32 [-1,128], the mean over the tokens of the mask; 2 layers, 4 heads
    convnet  x FP32 [-1,3,32,32] -> logits FP32 [-1,10]; 5 convolutions: some milliseconds a row

models.py FOLDER [NAME...] writes FOLDER/<name>/1/model.onnx, a registry. Weights are random: only the cost is real.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 9
TOKENS = 32  # of a row for the encoders
ENCODER2_WORDS = 30522
GBDT_WIDTH = 16
FP32, INT64 = TensorProto.FLOAT, TensorProto.INT64


class Graph:
    """Collects nodes and weights; every method returns the name of a tensor."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, values: object, dtype: type = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def normal(self, *shape: int, scale: float) -> str:
        return self.constant(self.random.standard_normal(shape) * scale)

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def model(self, name: str, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model)
        return model


def tensor(name: str, datatype: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, datatype, shape)


def mlp(*hidden: int) -> onnx.ModelProto:
    g, x, widths = Graph(2), "x", (64, *(hidden or (128, 64)), 8)
    for i, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        x = g.add("Gemm", x, g.normal(wide, narrow, scale=wide**-0.5), g.normal(narrow, scale=0.1))
        if i < len(widths) - 2:
            x = g.add("Relu", x)
    g.add("Softmax", x, output="probabilities", axis=-1)
    return g.model("mlp", [tensor("x", FP32, "batch", 64)], [tensor("probabilities", FP32, "batch", 8)])


def attention(g: Graph, x: str, mask: str, hidden: int, heads: int) -> str:
    """Multi-head self-attention of x [batch, tokens, hidden]."""
    split, merge = g.constant([0, 0, heads, hidden // heads], np.int64), g.constant([0, 0, hidden], np.int64)
    query, key, value = (
        g.add("Transpose", g.add("Reshape", dense(g, x, hidden, hidden), split), perm=perm)
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
    scores = g.add("Div", g.add("MatMul", query, key), g.constant((hidden // heads) ** 0.5))
    mixed = g.add("MatMul", g.add("Softmax", g.add("Add", scores, mask), axis=-1), value)
    return dense(g, g.add("Reshape", g.add("Transpose", mixed, perm=[0, 2, 1, 3]), merge), hidden, hidden)


def dense(g: Graph, x: str, wide: int, narrow: int) -> str:
    return g.add("Add", g.add("MatMul", x, g.normal(wide, narrow, scale=0.02)), g.normal(narrow, scale=0.02))


def norm(g: Graph, x: str, hidden: int, output: str = "") -> str:
    return g.add("LayerNormalization", x, g.constant(np.ones(hidden)), g.constant(np.zeros(hidden)), output=output, axis=-1, epsilon=1e-12)


def gelu(g: Graph, x: str) -> str:
    bent = g.add("Add", g.add("Erf", g.add("Div", x, g.constant(2**0.5))), g.constant(1.0))
    return g.add("Mul", g.add("Mul", x, bent), g.constant(0.5))


def layers_of(g: Graph, layers: int, hidden: int, heads: int, words: int, positions: int, output: str = "") -> str:
    """A transformer's encoder over input_ids and attention_mask: [batch, tokens, hidden]."""
    length = g.add("Shape", "input_ids", start=1, end=2)
    places = g.add("Slice", g.normal(positions, hidden, scale=0.02), g.constant([0], np.int64), length, g.constant([0], np.int64))
    x = norm(g, g.add("Add", g.add("Gather", g.normal(words, hidden, scale=0.02), "input_ids"), places), hidden)
    mask = g.add("Unsqueeze", g.add("Cast", "attention_mask", to=FP32), g.constant([1, 2], np.int64))
    mask = g.add("Mul", g.add("Sub", g.constant(1.0), mask), g.constant(-10000.0))
    for i in range(layers):
        x = norm(g, g.add("Add", attention(g, x, mask, hidden, heads), x), hidden)
        inner = dense(g, gelu(g, dense(g, x, hidden, 4 * hidden)), 4 * hidden, hidden)
        x = norm(g, g.add("Add", inner, x), hidden, output=output if i == layers - 1 else "")
    return x


def ids() -> list[onnx.ValueInfoProto]:
    return [tensor(name, INT64, "batch", "tokens") for name in ("input_ids", "attention_mask")]


def encoder(hidden: int = 384) -> onnx.ModelProto:
    g = Graph(4)
    layers_of(g, 6, hidden, heads=12, words=30522, positions=512, output="last_hidden_state")
    return g.model("encoder", ids(), [tensor("last_hidden_state", FP32, "batch", "tokens", hidden)])


def encoder2(hidden: int = 128) -> onnx.ModelProto:
    g = Graph(5)
    x = layers_of(g, 2, hidden, heads=4, words=ENCODER2_WORDS, positions=512)
    mask = g.add("Unsqueeze", g.add("Cast", "attention_mask", to=FP32), g.constant([2], np.int64))
    total = g.add("ReduceSum", g.add("Mul", x, mask), g.constant([1], np.int64), keepdims=0)
    g.add("Div", total, g.add("ReduceSum", mask, g.constant([1], np.int64), keepdims=0), output="embedding")
    return g.model("encoder2", ids(), [tensor("embedding", FP32, "batch", hidden)])


def convolution(g: Graph, x: str, channels: tuple[int, int], size: int, stride: int) -> str:
    given, made = channels
    weights = g.normal(made, given, size, size, scale=(2 / (given * size * size)) ** 0.5)
    return g.add("Conv", x, weights, g.normal(made, scale=0.01), kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4)


def residual(g: Graph, x: str, channels: tuple[int, int], stride: int) -> str:
    """Two convolutions beside a shortcut."""
    given, made = channels
    y = convolution(g, g.add("Relu", convolution(g, x, channels, 3, stride)), (made, made), 3, 1)
    shortcut = x if given == made else convolution(g, x, channels, 1, stride)
    return g.add("Mul", g.add("Relu", g.add("Add", shortcut, y)), g.constant([0.7]))  # keeps random activations in a sane range


def resnet() -> onnx.ModelProto:
    g = Graph(3)
    x = g.add("Relu", convolution(g, "x", (3, 64), 7, 2))
    x = g.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    given = 64
    for made in (64, 128, 256, 512):
        x = residual(g, x, (given, made), 1 if given == made else 2)
        x = residual(g, x, (made, made), 1)
        given = made
    x = g.add("Flatten", g.add("GlobalAveragePool", x), axis=1)
    g.add("Gemm", x, g.normal(512, 1000, scale=512**-0.5), g.normal(1000, scale=0.01), output="logits")
    return g.model("resnet", [tensor("x", FP32, "batch", 3, 224, 224)], [tensor("logits", FP32, "batch", 1000)])


def convnet() -> onnx.ModelProto:
    g, x = Graph(6), "x"
    for channels, stride in (((3, 32), 1), ((32, 64), 1), ((64, 128), 2), ((128, 128), 1), ((128, 256), 2)):
        x = g.add("Relu", convolution(g, x, channels, 3, stride))
    x = g.add("Flatten", g.add("GlobalAveragePool", x), axis=1)
    g.add("Gemm", x, g.normal(256, 10, scale=256**-0.5), g.normal(10, scale=0.01), output="logits")
    return g.model("convnet", [tensor("x", FP32, "batch", 3, 32, 32)], [tensor("logits", FP32, "batch", 10)])


def gbdt() -> onnx.ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import HistGradientBoostingClassifier
    random = np.random.default_rng(8)
    x = random.standard_normal((4000, GBDT_WIDTH)).astype(np.float32)
    fitted = HistGradientBoostingClassifier(max_iter=100, max_leaf_nodes=31, early_stopping=False, random_state=8)
    fitted.fit(x, (x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2]) + random.standard_normal(len(x)) > 0).astype(np.int64))
    model: onnx.ModelProto = convert_sklearn(
        fitted, "gbdt", [("x", FloatTensorType([None, GBDT_WIDTH]))], options={"zipmap": False}, target_opset={"": OPSET, "ai.onnx.ml": 3})
    model.ir_version = IR_VERSION
    return model


MAKERS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": mlp, "wide": lambda: mlp(3072, 3072), "encoder": encoder, "resnet": resnet, "gbdt": gbdt, "encoder2": encoder2, "convnet": convnet}


def write(registry: Path, name: str) -> Path:
    """The path of the model's file, made when it is not there."""
    path = registry / name / "1" / "model.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(MAKERS[name](), path)
    return path


def row(name: str, tokens: int = TOKENS) -> dict[str, np.ndarray]:
    """One row of every input, the same every time. tokens: of the encoders."""
    random = np.random.default_rng(7)
    if name in ("mlp", "wide", "gbdt"):
        return {"x": random.standard_normal((1, GBDT_WIDTH if name == "gbdt" else 64)).astype(np.float32)}
    if name in ("resnet", "convnet"):
        return {"x": random.random((1, 3, 32, 32) if name == "convnet" else (1, 3, 224, 224), dtype=np.float32)}
    ids = random.integers(1000, 30000, (1, tokens), dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MAKERS)}; all when none is named")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - MAKERS.keys():
        parser.error(f"no model {', '.join(sorted(unknown))}")
    for name in arguments.names or MAKERS:
        print(write(arguments.folder, name))
