"""What a version takes and answers, as JSON Schema of its inputs and outputs; and a request that fits."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import orjson

from batchmill.backends import Signature
from batchmill.endpoints.calls import ref

BINARY_ONLY = {"FP16", "BF16"}  # JSON has no such numbers
MAX_EXAMPLE_ELEMENTS = 16 << 20  # of all inputs; a larger request would be over most servers' limit of a body
INLINE_ELEMENTS = 256  # of all inputs: so much of an example stands in the document itself
_DATA = {"BOOL": "Booleans", "BYTES": "Texts", "FP32": "Numbers", "FP64": "Numbers"}
# One, wherever there is one: it is an index of most tables, a divisor, and a number when it is a text.
_VALUES = {"BOOL": b"true", "BYTES": b'"1"', "FP32": b"1.0", "FP64": b"1.0"}
_RAW = {"FP16": struct.pack("<e", 1.0), "BF16": struct.pack("<f", 1.0)[2:]}


@dataclass(frozen=True, slots=True)
class Example:
    """body: JSON, or JSON and then tensors when json_bytes is not its whole size."""

    body: bytes
    json_bytes: int

    @property
    def is_binary(self) -> bool:
        return self.json_bytes != len(self.body)


def request_schema(inputs: Signature, outputs: Signature) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": ref("RequestParameters"),
            "inputs": {"type": "array", "minItems": len(inputs), "maxItems": len(inputs), **one_of(inputs)},
            "outputs": {
                "type": "array",
                "items": {"allOf": [ref("RequestedOutput"), {"properties": {"name": {"enum": [name for name, *_ in outputs]}}}]},
            },
        },
    }


def response_schema(name: str, number: str, outputs: Signature) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "model_name": {"const": name},
            "model_version": {"const": number},
            "outputs": {"type": "array", "maxItems": len(outputs), **one_of(outputs)},
        },
    }


def one_of(tensors: Signature) -> dict[str, Any]:
    return {"items": {"anyOf": [tensor_schema(*tensor) for tensor in tensors]}} if tensors else {}


def tensor_schema(name: str, datatype: str, shape: list[int], axes: list[str]) -> dict[str, Any]:
    data = {} if datatype in BINARY_ONLY else {"data": ref(_DATA.get(datatype, "Integers"))}
    return {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"const": name},
            "datatype": {"const": datatype},
            "shape": shape_schema(shape, axes),
            **data,
            "parameters": ref("TensorParameters"),
        },
    }


def shape_schema(shape: list[int], axes: list[str]) -> dict[str, Any]:
    """Without axes any shape fits: a model may leave its shape open."""
    if not shape:
        return {"type": "array", "items": {"type": "integer", "minimum": 0}}
    sizes = [{"const": size} if size >= 0 else free_axis(axes[at] if at < len(axes) else "") for at, size in enumerate(shape)]
    return {"type": "array", "prefixItems": sizes, "minItems": len(shape), "maxItems": len(shape)}


def free_axis(name: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": 0, **({"description": name} if name else {})}


def example_shape(shape: list[int]) -> list[int]:
    return [size if size >= 0 else 1 for size in shape]


def elements(inputs: Signature) -> int:
    return sum(math.prod(example_shape(shape)) for _, _, shape, _ in inputs)


def is_inline(inputs: Signature) -> bool:
    """Whether an example is small, and JSON."""
    return elements(inputs) <= INLINE_ELEMENTS and not any(datatype in BINARY_ONLY for _, datatype, _, _ in inputs)


def example(inputs: Signature, outputs: Signature) -> Example:
    """A request of ones, each free axis of one: 1 row. Made of bytes, for a large one has millions of them."""
    heads, tail = [], b""
    for name, datatype, shape, _ in inputs:
        sizes = example_shape(shape)
        count = math.prod(sizes)
        head = orjson.dumps({"name": name, "datatype": datatype, "shape": sizes})[:-1]
        if datatype in BINARY_ONLY:
            tail += _RAW[datatype] * count
            heads.append(b'%s,"parameters":{"binary_data_size":%d}}' % (head, 2 * count))
        else:
            value = _VALUES.get(datatype, b"1")
            heads.append(b'%s,"data":[%s]}' % (head, (value + b",") * (count - 1) + value if count else b""))
    binary_output = any(datatype in BINARY_ONLY for _, datatype, _, _ in outputs)
    body = b'{"inputs":[%s]%s}' % (b",".join(heads), b',"parameters":{"binary_data_output":true}' if binary_output else b"")
    return Example(body + tail, len(body))
