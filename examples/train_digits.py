#!/usr/bin/env python3
"""Trains the two versions of the example model and writes the files beside this script, the same ones every time.

Version 1 is a multinomial logistic regression, version 2 a small perceptron; both read scikit-learn's 8x8 digits scaled
to 0..1. The data sets are split once: no picture in images/ or golden.npz was used in training.
Needs: numpy, onnx, onnxruntime, scikit-learn. Run it only to make the models anew; the made files are in the repository.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent
MODEL = HERE / "registry" / "digits"
IMAGES = HERE / "images"
OPSET = 17
IR_VERSION = 9  # read by every ONNX Runtime since 1.14
SEED = 7
GOLDEN_ROWS = 8

Layer = tuple[np.ndarray, np.ndarray]  # weights [inputs, outputs], bias [outputs]


def classifier(name: str, layers: list[Layer]) -> onnx.ModelProto:
    """image FP32 [-1,64] -> probabilities FP32 [-1,10], label INT64 [-1], through dense layers with ReLU between them."""
    nodes, weights, x = [], [], "image"
    for i, (matrix, bias) in enumerate(layers):
        weights += [numpy_helper.from_array(matrix.astype(np.float32), f"w{i}"), numpy_helper.from_array(bias.astype(np.float32), f"b{i}")]
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"z{i}"]))
        x = f"z{i}"
        if i < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [x], [f"a{i}"]))
            x = f"a{i}"
    nodes.append(helper.make_node("Softmax", [x], ["probabilities"], axis=1))
    nodes.append(helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0))
    graph = helper.make_graph(
        nodes, name, [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
         helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="train_digits")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def train(images: np.ndarray, labels: np.ndarray) -> dict[str, onnx.ModelProto]:
    """The models by version number."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    linear = LogisticRegression(max_iter=2000).fit(images, labels)
    perceptron = MLPClassifier((32,), max_iter=600, random_state=SEED).fit(images, labels)
    return {
        "1": classifier("digits", [(linear.coef_.T, linear.intercept_)]),
        "2": classifier("digits", list(zip(perceptron.coefs_, perceptron.intercepts_, strict=True))),
    }


def run(model: onnx.ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs by name, from ONNX Runtime alone."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": images}), strict=True))


def one_of_each(labels: np.ndarray) -> list[int]:
    """The index of the first picture of every digit, 0 to 9."""
    return [int(np.flatnonzero(labels == digit)[0]) for digit in range(10)]


def write_images(images: np.ndarray, labels: np.ndarray, models: dict[str, onnx.ModelProto]) -> None:
    """images/: ten pictures as arrays with what ONNX Runtime alone answers, and as JSON for curl."""
    IMAGES.mkdir(exist_ok=True)
    answers = {f"probabilities_{version}": run(model, images)["probabilities"] for version, model in models.items()}
    np.savez(IMAGES / "digits.npz", image=images, label=labels, **answers)
    np.save(IMAGES / "digits.npy", images)
    pictures = [{"label": int(label), "image": image.tolist()} for image, label in zip(images, labels, strict=True)]
    (IMAGES / "digits.json").write_text("[\n" + ",\n".join(json.dumps(picture) for picture in pictures) + "\n]\n")
    request = {"inputs": [{"name": "image", "datatype": "FP32", "shape": list(images.shape), "data": images.ravel().tolist()}]}
    (IMAGES / "request.json").write_text(json.dumps(request) + "\n")


def main() -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    scaled = (digits.data / 16).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(scaled, digits.target, test_size=0.25, random_state=SEED, stratify=digits.target)
    models = train(train_x, train_y)
    for version, model in models.items():
        (MODEL / version).mkdir(parents=True, exist_ok=True)
        onnx.save(model, MODEL / version / "model.onnx")
        right = float((run(model, test_x)["label"] == test_y).mean())
        print(f"version {version}: {right:.1%} of {len(test_y)} test pictures right, {model.ByteSize()} bytes")
    golden = test_x[-GOLDEN_ROWS:]
    np.savez(MODEL / "2" / "golden.npz", **{"in:image": golden}, **{f"out:{n}": v for n, v in run(models["2"], golden).items()})
    chosen = one_of_each(test_y)
    write_images(test_x[chosen], test_y[chosen], models)


if __name__ == "__main__":
    main()
