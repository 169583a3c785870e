"""What a .onnx file says about other files, read without the runtime and without loading its weights.

The file is protobuf: ModelProto.graph = 7, GraphProto.initializer = 5, .node = 1, NodeProto.attribute = 5, AttributeProto.t = 5,
.g = 6, .tensors = 10, .graphs = 11, TensorProto.external_data = 13 {key = 1, value = 2}. Only these fields are entered.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from batchmill.errors import ModelError

# What a message of a kind holds that may lead to a tensor: field number -> kind of that message.
_NESTED = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "tensor": {13: "entry"},
}
_MAX_DEPTH = 64  # graphs nest through control flow; no honest model comes near


def external_locations(path: Path) -> set[str]:
    """The `location` of every tensor whose data lies in another file. ModelError when the file is not readable as ONNX."""
    try:
        if path.stat().st_size == 0:
            raise ModelError(f"{path}: the file is empty")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return {data[start:end].decode() for start, end in _locations(data, 0, len(data), "model", 0)}
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path}: not a readable ONNX file: {error}") from None
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from None


def _locations(data: mmap.mmap, start: int, end: int, kind: str, depth: int) -> Iterator[tuple[int, int]]:
    if depth > _MAX_DEPTH:
        raise ValueError("graphs are nested too deep")
    for field, begin, stop in _fields(data, start, end):
        nested = _NESTED[kind].get(field)
        if nested == "entry":
            entry = {number: (a, b) for number, a, b in _fields(data, begin, stop)}
            if 1 in entry and 2 in entry and data[slice(*entry[1])] == b"location":
                yield entry[2]
        elif nested:
            yield from _locations(data, begin, stop, nested, depth + 1)


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, begin, end) of every length-delimited field; others are skipped."""
    while at < end:
        tag, at = _varint(data, at, end)
        wire = tag & 7
        if wire == 2:
            size, at = _varint(data, at, end)
            if size > end - at:
                raise ValueError("a field is longer than the file")
            yield tag >> 3, at, at + size
            at += size
        elif wire == 0:
            _, at = _varint(data, at, end)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"unknown wire type {wire}")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number does not end")
