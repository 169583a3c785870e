"""TensorFlow Serving's REST (`/v1/models/...`): predict, status and metadata, so that its clients move without a change.

What is asked is put into the words of the v2 protocol, and the data plane checks and runs it. Source: tensorflow/serving, g3doc/api_rest.md.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

import orjson

from batchmill.errors import InvalidRequest, NotFound
from batchmill.registry.status import ModelStatus, VersionStatus

SIGNATURE = "serving_default"
DTYPES = {
    "BOOL": "DT_BOOL", "UINT8": "DT_UINT8", "UINT16": "DT_UINT16", "UINT32": "DT_UINT32", "UINT64": "DT_UINT64", "INT8": "DT_INT8",
    "INT16": "DT_INT16", "INT32": "DT_INT32", "INT64": "DT_INT64", "FP16": "DT_HALF", "FP32": "DT_FLOAT", "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING", "BF16": "DT_BFLOAT16",
}  # fmt: skip
SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
STATES = {"READY": "AVAILABLE", "LOADING": "LOADING", "FAILED": "END"}


# --- in ---
def read(body: bytes) -> dict[str, Any]:
    """The JSON object of a request; NaN, Infinity and -Infinity may stand in it, as TensorFlow Serving allows."""
    try:
        try:
            wish = orjson.loads(body)
        except orjson.JSONDecodeError:
            wish = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidRequest("the body is no JSON") from None
    if not isinstance(wish, dict):
        raise InvalidRequest("a JSON object with `instances` or `inputs` wanted")
    if wish.get("signature_name", "") not in ("", SIGNATURE):
        raise InvalidRequest(f"signature_name: {str(wish['signature_name'])[:200]!r} given, {SIGNATURE} is the only one")
    return wish


def columns(wish: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Each input's tensor as nested lists, of the row form (`instances`) or of the column form (`inputs`)."""
    rows = wish.get("instances")
    given = wish.get("inputs")
    if (rows is None) == (given is None):
        raise InvalidRequest("either `instances` or `inputs` wanted")
    if given is not None:
        return dict(given) if is_object(given) else {only(names): given}
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest("instances: a list with a row at least wanted")
    if not any(is_object(row) for row in rows):
        return {only(names): rows}
    if not all(is_object(row) and row.keys() == rows[0].keys() for row in rows):
        raise InvalidRequest("instances: every row must name the same inputs")
    return {name: [row[name] for row in rows] for name in rows[0]}


def is_object(value: Any) -> bool:
    """An object that names inputs, not bytes in base64."""
    return isinstance(value, dict) and value.keys() != {"b64"}


def only(names: list[str]) -> str:
    if len(names) != 1:
        raise InvalidRequest(f"the model has {len(names)} inputs: name them ({', '.join(names)[:200]})")
    return names[0]


def flattened(name: str, value: Any) -> tuple[list[int], list[Any]]:
    """Shape and values of nested lists, all of which must be as long as their neighbours."""
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        size = len(level[0])
        if not all(isinstance(part, list) and len(part) == size for part in level):
            raise InvalidRequest(f'input "{name[:200]}": its lists are not of one length')
        shape.append(size)
        level = [item for part in level for item in part]
    if any(isinstance(item, list) for item in level):
        raise InvalidRequest(f'input "{name[:200]}": lists and values stand side by side')
    return shape, level


def to_bytes(name: str, value: Any) -> bytes:
    try:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict) and value.keys() == {"b64"}:
            return base64.b64decode(value["b64"], validate=True)
    except (UnicodeEncodeError, binascii.Error, TypeError, ValueError):
        pass
    raise InvalidRequest(f'input "{name[:200]}": a string or {{"b64": ...}} wanted')


def request_of(given: bytes, version: VersionStatus) -> tuple[dict[str, Any], bytes, int]:
    """What was asked; the v2 request for it, its BYTES tensors as binary data; and how much of that is JSON."""
    wish = read(given)
    datatypes = {name: datatype for name, datatype, _, _ in version.inputs}
    inputs, tail = [], b""
    for name, value in columns(wish, list(datatypes)).items():
        datatype = datatypes.get(name)
        if datatype is None:
            raise InvalidRequest(f'input "{name[:200]}": no such input; the model has {", ".join(datatypes)[:200]}')
        shape, leaves = flattened(name, value)
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if datatype == "BYTES":
            raw = b"".join(len(item).to_bytes(4, "little") + item for item in (to_bytes(name, leaf) for leaf in leaves))
            tensor["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            tensor["data"] = [told(leaf) for leaf in leaves]
        inputs.append(tensor)
    outputs = [{"name": name, "parameters": {"binary_data": datatype == "BYTES"}} for name, datatype, _, _ in version.outputs]
    try:
        head = orjson.dumps({"inputs": inputs, "outputs": outputs})
    except (TypeError, ValueError):
        raise InvalidRequest("a text is no Unicode, or an integer is beyond 64 bits") from None
    return wish, head + tail, len(head)


def told(value: Any) -> Any:
    """NaN and infinities as v2 JSON has them."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):
        raise InvalidRequest(f"{value[:200]!r} given, a number wanted")
    return value


# --- out ---
def nested(values: list[Any], shape: list[int]) -> Any:
    """A flat list as lists in lists; a scalar for no axis."""
    if 0 in shape:
        return [nested(values, shape[1:]) for _ in range(shape[0])]
    for size in reversed(shape[1:]):
        values = [values[at : at + size] for at in range(0, len(values), size)]
    return values if shape else values[0]


def elements(name: str, raw: bytes) -> list[Any]:
    """Of a BYTES tensor: text, or base64 where the name ends with _bytes (TensorFlow Serving's rule) or the bytes are no text."""
    found: list[Any] = []
    at = 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        item = raw[at + 4 : at + 4 + size]
        at += 4 + size
        try:
            text = None if name.endswith("_bytes") else item.decode()
        except UnicodeDecodeError:
            text = None
        found.append({"b64": base64.b64encode(item).decode()} if text is None else text)
    return found


def answer_of(body: bytes, json_size: int, wish: Mapping[str, Any]) -> tuple[bytes, str]:
    """TensorFlow Serving's answer for a v2 answer; and which version gave it."""
    head = orjson.loads(body if json_size < 0 else body[:json_size])
    at, tensors, special = max(json_size, 0), {}, False
    for output in head["outputs"]:
        name, values = output["name"], output.get("data")
        if values is None:
            size = output["parameters"]["binary_data_size"]
            values = elements(name, body[at : at + size])
            at += size
        elif output["datatype"].startswith("FP") and any(isinstance(value, str) for value in values):
            values, special = [SPECIAL[value] if isinstance(value, str) else value for value in values], True
        tensors[name] = nested(values, output["shape"])
    told = {"predictions": rows_of(tensors)} if "instances" in wish else {"outputs": next(iter(tensors.values())) if len(tensors) == 1 else tensors}
    text = json.dumps(told).encode() if special else orjson.dumps(told)  # orjson would write null for NaN
    return text, head["model_version"]


def rows_of(tensors: dict[str, Any]) -> list[Any]:
    sizes = {len(value) if isinstance(value, list) else -1 for value in tensors.values()}
    if len(sizes) != 1 or -1 in sizes:
        raise InvalidRequest("the outputs have not one row for each instance: ask with `inputs`")
    if len(tensors) == 1:
        rows: list[Any] = next(iter(tensors.values()))
        return rows
    return [dict(zip(tensors, row, strict=True)) for row in zip(*tensors.values(), strict=True)]


# --- status and metadata ---
def number_of(model: ModelStatus, label: str) -> str:
    """The version that answers to a label."""
    try:
        return model.leads()[label]
    except KeyError:
        raise NotFound(f"model {model.name!r} has no label {label[:200]!r}") from None


def status_of(model: ModelStatus, number: str) -> dict[str, Any]:
    versions = [version for version in model.versions.values() if number in ("", version.number)]
    if not versions:
        raise NotFound(f"model {model.name!r} has no version {number[:200]!r}" if number else f"no version of model {model.name!r} is there")
    return {"model_version_status": [{
        "version": version.number, "state": STATES.get(version.state, "START"),
        "status": {"error_code": "UNKNOWN" if version.state == "FAILED" else "OK", "error_message": version.reason},
    } for version in reversed(versions)]}  # fmt: skip


def metadata_of(model: ModelStatus, version: VersionStatus) -> dict[str, Any]:
    def described(signature: Any) -> dict[str, Any]:
        return {name: {"dtype": DTYPES[datatype], "name": name, "tensor_shape": {
            "dim": [{"size": str(size), "name": ""} for size in shape], "unknown_rank": False,
        }} for name, datatype, shape, _ in signature}  # fmt: skip

    default = {"inputs": described(version.inputs), "outputs": described(version.outputs), "method_name": "tensorflow/serving/predict"}
    return {
        "model_spec": {"name": model.name, "signature_name": "", "version": version.number},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: default}}},
    }
