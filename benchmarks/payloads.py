"""Request bodies for load tools that know nothing of inference, written by hand from the v2 protocol."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

STREAM_MESSAGES = 500

DATATYPES = {"float32": "FP32", "int64": "INT64"}

# A response function makes wrk read headers and bodies, as a client would; without it wrk asks faster.
WRK_SCRIPT = """local file = assert(io.open("{path}", "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
{headers}
function response(status, headers, body) end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format("RESULT requests=%d duration_us=%d p50_us=%d p99_us=%d p999_us=%d non2xx=%d errors=%d\\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def grpc_message(model: str, tensors: dict[str, np.ndarray]) -> bytes:
    """ModelInferRequest: 1 model_name, 5 inputs {1 name, 2 datatype, 3 shape}, 7 raw_input_contents."""
    message = field(1, model.encode())
    for name, values in tensors.items():
        shape = b"".join(map(varint, values.shape))
        message += field(5, field(1, name.encode()) + field(2, DATATYPES[str(values.dtype)].encode()) + field(3, shape))
    return message + b"".join(field(7, values.tobytes()) for values in tensors.values())


def framed(message: bytes) -> bytes:
    """The message with gRPC's prefix: not compressed, length."""
    return struct.pack(">BI", 0, len(message)) + message


def rest_binary(name: str, rows: np.ndarray) -> tuple[bytes, int]:
    """The body and the bytes of JSON at its start."""
    head = json.dumps({
        "inputs": [{"name": name, "datatype": "FP32", "shape": list(rows.shape), "parameters": {"binary_data_size": rows.nbytes}}],
        "parameters": {"binary_data_output": True}}, separators=(",", ":")).encode()
    return head + rows.tobytes(), len(head)


def rest_json(name: str, rows: np.ndarray) -> bytes:
    tensor = {"name": name, "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def wrk_script(path: Path, body: bytes, headers: dict[str, str]) -> None:
    """path.lua, a script that posts the body (kept beside it)."""
    path.write_bytes(body)
    lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
    path.with_suffix(".lua").write_text(WRK_SCRIPT.format(path=path.resolve(), headers=lines))


def write(folder: Path, model: str, tensors: dict[str, np.ndarray]) -> None:
    """unary.grpc, stream.grpc (all messages of one stream), binary.lua and json.lua in the folder. REST: of the first tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = framed(grpc_message(model, tensors))
    (folder / "unary.grpc").write_bytes(frame)
    (folder / "stream.grpc").write_bytes(frame * STREAM_MESSAGES)
    name, rows = next(iter(tensors.items()))
    body, json_bytes = rest_binary(name, rows)
    wrk_script(folder / "binary.body", body,
               {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(json_bytes)})
    wrk_script(folder / "json.body", rest_json(name, rows), {"Content-Type": "application/json"})
