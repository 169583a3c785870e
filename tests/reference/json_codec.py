"""The slow, obvious twin of the JSON codec: json and numpy."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

NUMPY = {"BOOL": "?", "INT8": "i1", "INT16": "i2", "INT32": "i4", "INT64": "i8", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4",
         "UINT64": "u8", "FP32": "f4", "FP64": "f8"}


def raw(datatype: str, values: list[Any]) -> bytes:
    """Raw form of a flat list of elements."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(v.encode())) + v.encode() for v in values)
    return np.array(values, NUMPY[datatype]).tobytes()


def nest(values: list[Any], shape: list[int]) -> list[Any]:
    """A flat list as nested rows."""
    if len(shape) <= 1:
        return values
    step = len(values) // shape[0] if shape[0] else 0
    return [nest(values[i * step:(i + 1) * step], shape[1:]) for i in range(shape[0])]
