"""`batchmill infer`: one request to a running server, from files or generated, over REST with binary tensors."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from batchmill.errors import RemoteError, UsageError
from batchmill.remote import call

DTYPES = {"BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2", "INT32": "i4",
           "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8"}  # fmt: skip
_SHOWN = 8  # elements of an output that are printed
Array = np.ndarray[Any, Any]


def run(model: str, files: list[str], version: str, label: str, url: str, as_json: bool) -> int:
    """Asks and prints; the exit code."""
    if version and label:
        raise UsageError("--model-version or --label, not both")
    base = f"{url.rstrip('/')}/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")
    inputs = inputs_of(call(base), base)
    base += f"/labels/{quote(label, safe='')}" if label else ""
    given = read_files(files, [one["name"] for one in inputs])
    arrays = {one["name"]: shaped(one, given) for one in inputs}
    started = time.perf_counter()
    answer, raw = infer(base, inputs, arrays)
    took_ms = (time.perf_counter() - started) * 1000
    outputs = dict(decode(answer, raw))
    if as_json:
        print(json.dumps({"model": answer["model_name"], "version": answer["model_version"], "outputs": {n: a.tolist() for n, a in outputs.items()}}))
        return 0
    print(f"{answer['model_name']} version {answer['model_version']}, {took_ms:.1f} ms" + ("" if given else " (generated input)"))
    for name, array in outputs.items():
        flat = ", ".join(str(value) for value in array.ravel()[:_SHOWN].tolist())
        print(f"  {name} {array.dtype}{list(array.shape)}: {flat}{', ...' if array.size > _SHOWN else ''}")
    return 0


def inputs_of(metadata: bytes, url: str) -> list[dict[str, Any]]:
    try:
        return [{key: one[key] for key in ("name", "datatype", "shape")} for one in json.loads(metadata)["inputs"]]
    except (ValueError, KeyError, TypeError):
        raise RemoteError(f"what answers at {url} is no model server of the v2 protocol") from None


def read_files(files: list[str], names: list[str]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for text in files:
        name, _, path = text.rpartition("=")
        try:
            if path.endswith(".npz"):
                found.update(np.load(path))
            elif path.endswith(".npy"):
                found[name or names[0]] = np.load(path)
            else:
                content = json.loads(Path(path).read_text())
                found.update(from_json(content, name or names[0]))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        except KeyError as error:
            raise UsageError(f"{path}: an input without {error}") from None
        except UnicodeDecodeError:
            raise UsageError(f"{path}: .npy, .npz or JSON wanted") from None
        except (ValueError, TypeError) as error:
            raise UsageError(f"{path}: {'no JSON: ' if isinstance(error, json.JSONDecodeError) else ''}{error}") from None
    if unknown := set(found) - set(names):
        raise UsageError(f"the model has no input {sorted(unknown)[0]!r}; it has {', '.join(names)}")
    return found


def from_json(content: Any, name: str) -> dict[str, Array]:
    """A v2 request, a mapping of input names to values, or the values of one input."""
    if isinstance(content, dict) and isinstance(content.get("inputs"), list):
        return {one["name"]: np.asarray(one["data"]).reshape(one["shape"]) for one in content["inputs"]}
    if isinstance(content, dict):
        return {key: np.asarray(value) for key, value in content.items()}
    return {name: np.asarray(content)}


def shaped(spec: dict[str, Any], given: dict[str, Array]) -> Array:
    """The input as the model wants it; zeros of the smallest shape when it was not given."""
    if spec["datatype"] not in DTYPES and spec["datatype"] != "BYTES":
        raise UsageError(f"input {spec['name']!r}: {spec['datatype']} cannot be sent from here")
    dtype = object if spec["datatype"] == "BYTES" else np.dtype(DTYPES[spec["datatype"]])
    if spec["name"] in given:
        try:
            return given[spec["name"]].astype(dtype)
        except (ValueError, TypeError) as error:
            raise UsageError(f"input {spec['name']!r}: {spec['datatype']} wanted: {error}") from None
    shape = [size if size >= 0 else 1 for size in spec["shape"]]
    return np.full(shape, b"", object) if dtype is object else np.zeros(shape, dtype)


def raw_of(array: Array) -> bytes:
    if array.dtype != object:
        return array.tobytes()
    parts = [value if isinstance(value, bytes) else str(value).encode() for value in array.ravel()]
    return b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def infer(base: str, inputs: list[dict[str, Any]], arrays: dict[str, Array]) -> tuple[dict[str, Any], bytes]:
    parts = [raw_of(arrays[one["name"]]) for one in inputs]
    entries = [
        {"name": one["name"], "datatype": one["datatype"], "shape": arrays[one["name"]].shape, "parameters": {"binary_data_size": len(part)}}
        for one, part in zip(inputs, parts, strict=True)
    ]
    head = json.dumps({"inputs": entries, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    size, _, data = call(f"{base}/infer", head + b"".join(parts), headers).partition(b"\n")
    split = int(size) if size else len(data)
    return json.loads(data[:split]), data[split:]


def decode(answer: dict[str, Any], raw: bytes) -> list[tuple[str, Array]]:
    found = []
    for output in answer["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        part, raw = raw[:size], raw[size:]
        if output["datatype"] in DTYPES:
            array = np.frombuffer(part, DTYPES[output["datatype"]])
        elif output["datatype"] == "BF16":
            array = (np.frombuffer(part, "<u2").astype("<u4") << 16).view("<f4")
        else:
            array = np.array(list(elements(part)), object)
        found.append((output["name"], array.reshape(output["shape"])))
    return found


def elements(raw: bytes) -> list[str]:
    found, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        found.append(raw[at + 4 : at + 4 + size].decode(errors="replace"))
        at += 4 + size
    return found
