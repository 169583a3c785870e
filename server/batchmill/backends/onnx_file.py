"""What a .onnx file says about other files and of its inputs and outputs, read without the runtime and without loading its weights.

The file is protobuf: ModelProto.graph = 7, GraphProto.initializer = 5, .node = 1, NodeProto.attribute = 5, AttributeProto.t = 5,
.g = 6, .tensors = 10, .graphs = 11, TensorProto.external_data = 13 {key = 1, value = 2}; GraphProto.input = 11, .output = 12,
ValueInfoProto.name = 1, .type = 2, TypeProto.tensor_type = 1, .elem_type = 1. Only these fields are entered.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from batchmill.errors import ModelError

T = TypeVar("T")

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
# Element types that the runtime fails to load a model for without naming the input; it names those of others. onnx.TensorProto's numbers.
_UNLOADABLE = {14: "COMPLEX64", 15: "COMPLEX128", 23: "FLOAT4E2M1", 24: "FLOAT8E8M0"}
_MAX_BYTES = 2**31 - 1  # of a protobuf message
_MAX_DEPTH = 64  # graphs nest through control flow; no honest model comes near


def external_locations(path: Path) -> set[str]:
    """The `location` of every tensor whose data lies in another file. ModelError when the file is not readable as ONNX."""
    return _read(path, lambda data: {data[start:end].decode() for start, end in _locations(data, 0, len(data), "model", 0)})


def unloadable(path: Path) -> str:
    """The first input or output whose elements the runtime has no type for, in words. Empty: none. ModelError as above."""
    return _read(path, lambda data: next(_unloadable(data), ""))


def _read(path: Path, read: Callable[[mmap.mmap], T]) -> T:
    try:
        size = path.stat().st_size
        if size == 0:
            raise ModelError(f"{path}: the file is empty")
        if size > _MAX_BYTES:
            raise ModelError(f"{path}: {size} bytes, where protobuf ends at 2 GiB: weights of that size are kept as external data")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return read(data)
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


def _unloadable(data: mmap.mmap) -> Iterator[str]:
    for _, start, end in (field for field in _fields(data, 0, len(data)) if field[0] == 7):
        for number, begin, stop in _fields(data, start, end):
            if number in (11, 12):
                told = {field: (a, b) for field, a, b in _fields(data, begin, stop)}
                element = _element_type(data, *told[2]) if 2 in told else 0
                if element in _UNLOADABLE:
                    name = data[slice(*told.get(1, (0, 0)))].decode()
                    kind = "input" if number == 11 else "output"
                    yield f'{kind} "{name}" has elements of type {_UNLOADABLE[element]}, for which the v2 protocol has no datatype'


def _element_type(data: mmap.mmap, start: int, end: int) -> int:
    """Of a TypeProto; 0 when it is no tensor."""
    for number, begin, stop in _fields(data, start, end):
        if number == 1 and begin < stop and data[begin] == 1 << 3:  # elem_type is written first, as protobuf writes fields by number
            return _varint(data, begin + 1, stop)[0]
    return 0


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, begin, end) of every length-delimited field; others are skipped."""
    while at < end:
        tag, at = _varint(data, at, end)
        if tag < 8:
            raise ValueError("a field has the number 0")
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
