"""The calls of the table, what a client has to get for each, and what they ask about."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

CALLS = {
    "live": "the server is live",
    "ready": "the server is ready",
    "model-ready": "a version of a model is ready",
    "server-metadata": "name and version of the server",
    "model-metadata": "inputs, datatypes, shapes and versions of a model",
    "model-config": "Triton's configuration of a model",
    "statistics": "statistics of one version",
    "repository-index": "the versions that are ready",
    "load-unload": "a model is not ready after unload, and ready after load",
    "infer-raw": "three pictures as bytes: the right labels",
    "infer-typed": "a picture as numbers (REST: JSON): the right label, as a number",
    "version": "a version by its number answers, and says so",
    "bytes": "BYTES elements, an empty one and one that is no text: the same bytes",
    "fp16": "FP16 elements: the same bits",
    "id-parameters": "the id comes back; parameters, the server's and others, are taken",
    "outputs": "the one output that was asked for, alone",
    "metadata": "a request id in the headers of the answer; version and times in its trailers (REST: headers)",
    "compressed-request": "a request of 250 KB and more that travels as less than 20 KB",
    "compressed-response": "an answer of 48 KB and more that travels as less than 20 KB",
    "unknown-model": "NOT_FOUND (404), and the text names the model",
    "bad-shape": "INVALID_ARGUMENT (400), and the text says which shape was given and which wanted",
    "deadline": "DEADLINE_EXCEEDED (504) after 100 ms for a run of a second",
    "cancel": "the call is given up at once; the server forgets it",
    "stream": "five messages, the third of them wrong: four answers and an error in its place",
    "health-check": "grpc.health.v1: the server and a model are SERVING, an unknown one is NOT_FOUND",
    "health-watch": "grpc.health.v1: the status comes at once, and the watch can be left",
    "reflection": "the service is listed",
    "tfs-predict": "TensorFlow Serving's REST, by rows and by columns, of the version in service and of one by its number: the right labels",
    "tfs-status": "TensorFlow Serving's REST: both versions are AVAILABLE",
    "tfs-metadata": "TensorFlow Serving's REST: name, datatype and shape of the input",
}
REST_ONLY = {"tfs-predict", "tfs-status", "tfs-metadata"}
COMPRESSED = {"compressed-request": 0, "compressed-response": 1}  # which way is counted: to the server, from it
COMPRESSED_MAX = 20_000  # bytes; the request has 256,000 at least, the answer 48,000

NINE = np.array([
    0, 0, 2, 10, 16, 11, 1, 0, 0, 0, 13, 13, 10, 16, 8, 0, 0, 4, 14, 1, 8, 14, 1, 0, 0, 4, 15, 12, 15, 8, 0, 0,
    0, 0, 6, 7, 14, 5, 0, 0, 0, 1, 2, 0, 12, 5, 0, 0, 0, 8, 15, 6, 13, 4, 0, 0, 0, 0, 5, 11, 16, 3, 0, 0,
], np.float32).reshape(1, 64) / 16  # version 1 of "digits" takes it for an eight
ELEMENTS = [b"nine", b"", b"\x00\xff"]
BYTES = b"".join(struct.pack("<I", len(element)) + element for element in ELEMENTS)
HALVES = np.array([[1, -2, np.inf]], np.float16)
SLOW = np.zeros((1, 256, 256), np.float32)
TOLD_OF_SHAPE = "[1,63] given, [-1,64] wanted"


class Wrong(Exception):
    """An answer that is not the one wanted."""


def want(condition: object, got: object) -> None:
    if not condition:
        raise Wrong(f"got {got}")


def want_labels(labels: Any, digit: int, count: int) -> None:
    want(np.array_equal(np.asarray(labels).astype(np.int64), np.full(count, digit)), labels)


def want_refusal(call: Callable[[], object], error: type[Exception], status: str, text: str = "") -> None:
    """status: a part of what str() says of the error, as text is."""
    try:
        answer = call()
    except error as refused:
        want(status in str(refused) and text in str(refused), refused)
    else:
        raise Wrong(f"got an answer: {answer}")


class Column:
    """A client. A call is a method of its name with _ for -; what the client does not have is no method."""

    def outcome(self, call: str) -> str:
        """ok, – (no such call) or failed: why."""
        method = getattr(self, call.replace("-", "_"), None)
        if method is None:
            return "–"
        try:
            method()
        except Exception as error:
            return f"failed: {' '.join(f'{type(error).__name__} {error}'.split())[:300]}"
        return "ok"

    def close(self) -> None:
        pass


def json_request(count: int = 1, **more: object) -> dict[str, Any]:
    pictures = np.repeat(NINE, count, 0)
    return {"inputs": [{"name": "image", "datatype": "FP32", "shape": [count, 64], "data": pictures.ravel().tolist()}], **more}


def binary_request(name: str, datatype: str, shape: list[int], raw: bytes) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an inference whose tensors are binary both ways."""
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + raw, {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"}


def gzipped(body: dict[str, Any]) -> bytes:
    return gzip.compress(json.dumps(body).encode())


def told(calls: Iterable[str], done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The outcomes that a client printed, a line `call<TAB>outcome` each."""
    lines = dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)
    silent = f"failed: nothing was said of it: {' '.join(done.stderr.split())[-200:]}"
    return {call: lines.get(call, silent) for call in calls}
