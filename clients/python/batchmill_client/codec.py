"""numpy arrays <-> bodies of the v2 protocol with its binary tensor extension. Pure functions."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmill_client.errors import BadAnswer

Arrays = dict[str, NDArray[Any]]

DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}
DTYPES = {datatype: np.dtype(name).newbyteorder("<") for name, datatype in DATATYPES.items()}


def datatype_of(array: NDArray[Any]) -> str:
    """The protocol's word for an array's dtype; arrays of str, bytes or objects are BYTES. TypeError for others."""
    if array.dtype.kind in "OSU":
        return "BYTES"
    try:
        return DATATYPES[array.dtype.name]
    except KeyError:
        raise TypeError(f"dtype {array.dtype} has no datatype in the v2 protocol") from None


def pack(array: NDArray[Any]) -> bytes:
    """Row-major little-endian bytes; BYTES elements have their length (uint32) before them."""
    if array.dtype.kind in "OSU":
        elements = (e.encode() if isinstance(e, str) else bytes(e) for e in array.ravel().tolist())
        return b"".join(struct.pack("<I", len(e)) + e for e in elements)
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def unpack(data: bytes, datatype: str, shape: list[int]) -> NDArray[Any]:
    """The array of some tensor bytes; BYTES become an object array of bytes. ValueError when size and shape do not fit."""
    if datatype == "BYTES":
        elements, at = [], 0
        while at < len(data):
            size = int.from_bytes(data[at:at + 4], "little")
            if at + 4 + size > len(data):
                raise ValueError(f"a BYTES element of {size} bytes passes the end of its tensor")
            elements.append(data[at + 4:at + 4 + size])
            at += 4 + size
        flat = np.empty(len(elements), object)
        flat[:] = elements
        return flat.reshape(shape)
    return np.frombuffer(data, DTYPES[datatype]).reshape(shape)


def encode(inputs: Mapping[str, NDArray[Any]], parameters: Mapping[str, object]) -> tuple[bytes, int]:
    """The body of an infer request and the bytes of JSON at its start."""
    packed = {name: pack(array) for name, array in inputs.items()}
    head = json.dumps({
        "inputs": [{"name": name, "datatype": datatype_of(array), "shape": list(array.shape),
                    "parameters": {"binary_data_size": len(packed[name])}} for name, array in inputs.items()],
        "parameters": {**parameters, "binary_data_output": True},
    }).encode()
    return head + b"".join(packed.values()), len(head)


def decode(body: bytes, json_bytes: int) -> Arrays:
    """The outputs by name of an infer answer whose first json_bytes are JSON. BadAnswer when it is malformed."""
    try:
        return _decode(body, json_bytes)
    except (ValueError, KeyError, TypeError) as error:
        raise BadAnswer(f"the answer cannot be read: {error!r}") from error


def _decode(body: bytes, json_bytes: int) -> Arrays:
    outputs: Arrays = {}
    at = json_bytes
    for output in json.loads(body[:json_bytes])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            dtype = object if output["datatype"] == "BYTES" else DTYPES[output["datatype"]]
            outputs[output["name"]] = np.array(output["data"], dtype).reshape(output["shape"])
            continue
        if at + size > len(body):
            raise ValueError(f"output {output['name']!r} needs {size} bytes, {len(body) - at} are left")
        outputs[output["name"]] = unpack(body[at:at + size], output["datatype"], output["shape"])
        at += size
    return outputs
