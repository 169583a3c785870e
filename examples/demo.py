#!/usr/bin/env python3
"""Asks a running server about handwritten digits: both versions, over gRPC, REST with JSON and REST with binary tensors.

demo.py [HTTP_ADDRESS [GRPC_ADDRESS]], by default localhost:8000 and localhost:8001. Exit code 1 when an answer is not what
ONNX Runtime alone gives for the same picture. Needs: numpy, grpcio and batchmill's generated stubs.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np

from batchmill.proto import inference_pb2, inference_pb2_grpc

IMAGES = Path(__file__).resolve().parent / "images" / "digits.npz"
VERSIONS = ("1", "2")
ROUNDS = 20  # the shortest of so many calls is shown: the first ones open connections and warm caches
TOLERANCE = 1e-4  # processors round sums in different orders
SHADES = " ░▒▓█"

Ask = Callable[[np.ndarray, str], np.ndarray]  # (images [rows, 64], version) -> probabilities [rows, 10]


def over_grpc(stub: inference_pb2_grpc.GRPCInferenceServiceStub) -> Ask:
    def ask(images: np.ndarray, version: str) -> np.ndarray:
        request = inference_pb2.ModelInferRequest(model_name="digits", model_version=version)
        request.inputs.add(name="image", datatype="FP32", shape=images.shape)
        request.raw_input_contents.append(images.tobytes())
        answer = stub.ModelInfer(request, timeout=10)
        place = [output.name for output in answer.outputs].index("probabilities")
        return np.frombuffer(answer.raw_output_contents[place], np.float32).reshape(answer.outputs[place].shape)

    return ask


def post(connection: http.client.HTTPConnection, version: str, body: bytes, headers: dict[str, str]) -> tuple[bytes, int]:
    """The answer's body and the bytes of JSON at its start."""
    connection.request("POST", f"/v2/models/digits/versions/{version}/infer", body, headers)
    answer = connection.getresponse()
    data = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"status {answer.status}: {data[:500].decode(errors='replace')}")
    return data, int(answer.headers.get("Inference-Header-Content-Length", len(data)))


def over_json(connection: http.client.HTTPConnection) -> Ask:
    def ask(images: np.ndarray, version: str) -> np.ndarray:
        body = {"inputs": [{"name": "image", "datatype": "FP32", "shape": images.shape, "data": images.ravel().tolist()}]}
        data, _ = post(connection, version, json.dumps(body).encode(), {"Content-Type": "application/json"})
        output = next(o for o in json.loads(data)["outputs"] if o["name"] == "probabilities")
        return np.array(output["data"], np.float32).reshape(output["shape"])

    return ask


def over_binary(connection: http.client.HTTPConnection) -> Ask:
    def ask(images: np.ndarray, version: str) -> np.ndarray:
        head = json.dumps({
            "inputs": [{"name": "image", "datatype": "FP32", "shape": images.shape, "parameters": {"binary_data_size": images.nbytes}}],
            "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}).encode()
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        data, json_bytes = post(connection, version, head + images.tobytes(), headers)
        return np.frombuffer(data[json_bytes:], np.float32).reshape(json.loads(data[:json_bytes])["outputs"][0]["shape"])

    return ask


def picture(image: np.ndarray) -> list[str]:
    """Eight lines of sixteen characters."""
    shades = np.minimum((image.reshape(8, 8) * len(SHADES)).astype(int), len(SHADES) - 1)
    return ["".join(SHADES[shade] * 2 for shade in row) for row in shades]


def predictions(probabilities: dict[str, np.ndarray]) -> list[str]:
    """A line a version: what it takes the picture for."""
    return [f"version {v}:  {p.argmax()}  ({p.max():.0%} sure)" for v, p in probabilities.items()]


def show(image: np.ndarray, label: int, probabilities: dict[str, np.ndarray]) -> None:
    beside = ["", f"label:      {label}", *predictions(probabilities)]
    beside += [""] * (8 - len(beside))
    print()
    for line, text in zip(picture(image), beside, strict=True):
        print(f"   {line}   {text}".rstrip())


def fastest_us(ask: Ask, image: np.ndarray, version: str) -> float:
    """Microseconds of the fastest of some calls with one picture, client included."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        ask(image, version)
        times.append(time.perf_counter_ns() - start)
    return min(times) / 1000


def check(ask: Ask, images: np.ndarray, wanted: np.ndarray, version: str) -> bool:
    """Whether ten pictures in one request, and each alone, get the probabilities that ONNX Runtime alone gives."""
    together = ask(images, version)
    alone = np.concatenate([ask(image, version) for image in images[:, None]])
    return together.shape == wanted.shape and np.allclose(together, wanted, atol=TOLERANCE) and np.allclose(alone, wanted, atol=TOLERANCE)


def compare(protocols: dict[str, Ask], data: dict[str, np.ndarray]) -> int:
    """Prints a line for each protocol and version; how many were wrong."""
    wrong = 0
    print("\n   protocol      version  one picture (client included)  answers")
    for name, ask in protocols.items():
        for version in VERSIONS:
            good = check(ask, data["image"], data[f"probabilities_{version}"], version)
            wrong += not good
            verdict = "equal to ONNX Runtime's own" if good else "WRONG"
            print(f"   {name:12s}  {version:7s}  {fastest_us(ask, data['image'][:1], version):7.0f} µs{'':20s}  {verdict}")
    return wrong


def main(arguments: list[str]) -> int:
    http_address, grpc_address = (*arguments, *("localhost:8000", "localhost:8001")[len(arguments):])
    with np.load(IMAGES) as file:
        data = dict(file)
    connection = http.client.HTTPConnection(http_address, timeout=10)
    with grpc.insecure_channel(grpc_address) as channel:
        protocols = {"gRPC": over_grpc(inference_pb2_grpc.GRPCInferenceServiceStub(channel)),
                     "REST binary": over_binary(connection), "REST JSON": over_json(connection)}
        try:
            answers = {version: protocols["gRPC"](data["image"], version) for version in VERSIONS}
            for row in (3, 9):
                show(data["image"][row], data["label"][row], {v: p[row] for v, p in answers.items()})
            wrong = compare(protocols, data)
        except (grpc.RpcError, RuntimeError, OSError) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
    connection.close()
    for version, probabilities in answers.items():
        print(f"   version {version} reads {(probabilities.argmax(1) == data['label']).sum()} of 10 pictures rightly")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
