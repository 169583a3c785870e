"""The slow, obvious twin of the JSON codec: json and numpy."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

NUMPY = {"BOOL": "?", "INT8": "i1", "INT16": "i2", "INT32": "i4", "INT64": "i8", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4",
         "UINT64": "u8", "FP32": "f4", "FP64": "f8"}
WIDTHS = {name: np.dtype(code).itemsize for name, code in NUMPY.items()} | {"FP16": 2, "BF16": 2}
WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True)
class Number:
    """A number as it is written, so that nothing is lost before it is looked at."""

    text: str


class Object(list[tuple[str, Any]]):
    """Keys and values in their order, so that a key which comes twice is seen."""

    def get(self, key: str) -> Any:
        """The value of a key, or None where it is missing."""
        values = [value for name, value in self if name == key]
        require(len(values) <= 1 and values != [None], f"{key} twice, or null")
        return values[0] if values else None


def require(fine: bool, text: str) -> None:
    """Raises ValueError unless fine."""
    if not fine:
        raise ValueError(text)


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


def flat(data: list[Any], shape: list[int]) -> list[Any]:
    """Nested rows as a flat list; they must nest exactly like the shape."""
    require(type(data) is list and len(data) == shape[0], "nesting")
    return data if len(shape) == 1 else [v for row in data for v in flat(row, shape[1:])]


def element(datatype: str, value: Any) -> Any:
    """One element of data as numpy wants it."""
    if datatype == "BYTES":
        require(type(value) is str, "text")
        return value
    if datatype == "BOOL":
        require(type(value) is bool, "bool")
        return value
    if NUMPY[datatype][0] == "f":
        if type(value) is str:
            require(value in WORDS, "word")
            return WORDS[value]
        require(type(value) is Number, "number")
        number = float(value.text)
        with np.errstate(over="ignore"):
            require(bool(np.isfinite(np.dtype(NUMPY[datatype]).type(number))), "range")
        return number
    require(type(value) is Number and len(value.text) <= 25, "number")
    info = np.iinfo(NUMPY[datatype])
    integer = int(value.text)  # ValueError for 1.5 and 1e3
    require(int(info.min) <= integer <= int(info.max), "range")
    return integer


def size(value: Any) -> int:
    """An integer from 0 to 2^63 - 1."""
    require(type(value) is Number and len(value.text) <= 25, "number")
    integer = int(value.text)
    require(0 <= integer < 2**63, "range")
    return integer


def text(value: Any) -> bytes:
    """A string."""
    require(type(value) is str, "text")
    return str(value).encode()


def parameters(owner: Object, *, of_tensor: bool = False, **readers: Any) -> dict[str, Any]:
    """The interpreted ones of an object's parameters; those of shared memory are refused where they mean something."""
    found = owner.get("parameters")
    if found is None:
        return {}
    require(type(found) is Object, "parameters")
    require(not of_tensor or not any(key.startswith("shared_memory_") for key, _ in found), "shared memory")
    return {key: read(found.get(key)) for key, read in readers.items() if found.get(key) is not None}


def flag(value: Any) -> bool:
    """true or false."""
    require(type(value) is bool, "bool")
    return bool(value)


def no_number(name: str) -> None:
    """Refuses the literals NaN and Infinity, which are Python's and not JSON's."""
    raise ValueError(name)


def check_texts(value: Any) -> None:
    """Raises UnicodeEncodeError, a ValueError, for half a surrogate pair anywhere."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list | tuple):
        for part in value:
            check_texts(part)


def read_input(entry: Any, binary: bytes) -> tuple[tuple[bytes, str, list[int], bytes], bytes]:
    """One input, and the binary bytes it leaves."""
    require(type(entry) is Object, "input")
    name, datatype = text(entry.get("name")), text(entry.get("datatype")).decode()
    require(datatype in WIDTHS or datatype == "BYTES", "datatype")
    require(type(entry.get("shape")) is list and len(entry.get("shape")) <= 16, "shape")
    shape = [size(axis) for axis in entry.get("shape")]
    require(math.prod(axis for axis in shape if axis) < 2**63, "shape")
    count = math.prod(shape)
    wanted = parameters(entry, of_tensor=True, binary_data_size=size).get("binary_data_size")
    data = entry.get("data")
    require((data is None) != (wanted is None), "data or binary_data_size")
    if data is None:
        given, binary = binary[:wanted], binary[wanted:]
        require(len(given) == wanted, "size")
        if datatype == "BYTES":
            rest, seen = given, 0
            while rest:
                length = struct.unpack_from("<I", rest)[0] if len(rest) >= 4 else 2**32
                require(len(rest) >= 4 + length, "length")
                rest, seen = rest[4 + length:], seen + 1
            require(seen == count, "count")
        else:
            require(wanted == count * WIDTHS[datatype], "size")
        return (name, datatype, shape, given), binary
    require(type(data) is list and datatype in (*NUMPY, "BYTES"), "data")
    if len(shape) > 1 and data and type(data[0]) is list:
        data = flat(data, shape)
    require(len(data) == count, "count")
    return (name, datatype, shape, raw(datatype, [element(datatype, value) for value in data])), binary


def read_output(entry: Any) -> tuple[bytes, int, int]:
    """(name, binary_data or -1, classification) of a requested output."""
    require(type(entry) is Object, "output")
    wishes = parameters(entry, of_tensor=True, binary_data=flag, classification=size)
    return text(entry.get("name")), int(wishes.get("binary_data", -1)), wishes.get("classification", 0)


def decode(body: bytes, json_size: int = -1) -> dict[str, Any]:
    """What json_codec.decode() gives; ValueError where it must refuse. Not for json_size 0."""
    head, binary = (body, b"") if json_size < 0 else (body[:json_size], body[json_size:])
    request = json.loads(head.decode(), object_pairs_hook=Object, parse_int=Number, parse_float=Number, parse_constant=no_number)
    check_texts(request)
    require(type(request) is Object and type(request.get("inputs")) is list, "inputs")
    inputs = []
    for entry in request.get("inputs"):
        tensor, binary = read_input(entry, binary)
        inputs.append(tensor)
    require(binary == b"", "left over")
    outputs = request.get("outputs")
    require(outputs is None or type(outputs) is list, "outputs")
    wanted = [read_output(entry) for entry in outputs or []]
    for names in ([tensor[0] for tensor in inputs], [output[0] for output in wanted]):
        require(len(set(names)) == len(names), "twice")
    identity = request.get("id")
    settings = {"binary_data_output": False, "timeout": 0, "priority": 0, "label": b"", "route_key": b""}
    settings |= parameters(request, binary_data_output=flag, timeout=size, priority=size, label=text, route_key=text)
    return {"id": b"" if identity is None else text(identity), "inputs": inputs, "parameters": settings, "outputs": wanted}


def response(answer: dict[str, Any], binary: bytes) -> list[tuple[bytes, bytes, list[int], bytes]]:
    """The outputs of an answer that json has read, in raw form."""
    outputs = []
    for output in answer["outputs"]:
        datatype = output["datatype"]
        if "parameters" in output:
            count = output["parameters"]["binary_data_size"]
            given, binary = binary[:count], binary[count:]
        elif datatype in ("FP16", "BF16"):
            wide = np.array([WORDS.get(v, v) for v in output["data"]], np.float32)
            given = wide.astype(np.float16).tobytes() if datatype == "FP16" else (wide.view(np.uint32) >> 16).astype(np.uint16).tobytes()
        elif datatype in ("FP32", "FP64"):
            given = raw(datatype, [WORDS.get(v, v) if isinstance(v, str) else v for v in output["data"]])
        else:
            given = raw(datatype, output["data"])
        outputs.append((output["name"].encode(), datatype.encode(), output["shape"], given))
    require(binary == b"", "left over")
    return outputs


# Bodies for tests.
def one(data="[1]", datatype="FP32", shape="[1]", more=""):
    return f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}{more}}}]}}'.encode()


def binary_body(datatype, shape, size, payload):
    head = f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"parameters":{{"binary_data_size":{size}}}}}]}}'.encode()
    return head + payload, len(head)
