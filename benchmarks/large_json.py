#!/usr/bin/env python3
"""A JSON body of 100 MB: what the server holds for it, and how long small requests wait beside it.

Bound: memory by at most the body, the tensor and a tenth; p99 of small requests beside it below 10 ms.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import models
import numpy as np
import onnx
import report
from bounds import Promise
from onnx import TensorProto, helper
from processes import Server, batchmill, stand_back

MB = 1_000_000
PAUSE_SECS = 0.002
GRACE_SECS = 1.0  # imports of the server's Python are over


def write_sum(registry: Path) -> None:
    """y = the sum of x [n]: a large request with a small answer."""
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)
    graph = helper.make_graph([node], "sum", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    path = registry / "sum" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def body_of(size: int) -> tuple[bytes, int]:
    """A request of about so many bytes, and the bytes of its tensor."""
    numbers = np.random.default_rng(0).random(size // 9, dtype=np.float32)
    data = b",".join(b"%.6f" % number for number in numbers.tolist())
    head = json.dumps({"name": "x", "datatype": "FP32", "shape": [len(numbers)]}).encode()
    return b'{"inputs":[' + head[:-1] + b',"data":[' + data + b"]}]}", 4 * len(numbers)


def peak_bytes(server: Server) -> int:
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def ask_until(stop: threading.Event, port: int, body: bytes, took: list[float]) -> None:
    """Seconds of one small request after the other, with pauses."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    while not stop.is_set():
        began = time.perf_counter()
        client.request("POST", "/v2/models/mlp/infer", body)
        assert client.getresponse().read().startswith(b'{"model_name"')
        took.append(time.perf_counter() - began)
        time.sleep(PAUSE_SECS)


def p99_ms(server: Server, small: bytes, work: object = None, seconds: float = 0.0) -> float:
    """Of small requests while work() runs, or for so many seconds."""
    stop, took = threading.Event(), list[float]()
    asking = threading.Thread(target=ask_until, args=(stop, server.port, small, took))
    asking.start()
    if callable(work):
        work()
    time.sleep(seconds)
    stop.set()
    asking.join()
    return 1000 * sorted(took)[int(0.99 * len(took))]


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[Promise], list[list[str]]]:
    registry = folder / "registry"
    models.write(registry, "mlp")
    write_sum(registry)
    row = models.row("mlp")
    small = json.dumps({"inputs": [{"name": name, "datatype": "FP32", "shape": array.shape, "data": array.ravel().tolist()}
                                   for name, array in row.items()]}).encode()
    body, tensor_bytes = body_of(options.megabytes * MB)
    (folder / "large.json").write_bytes(body)
    with batchmill("large", registry, options.server_core, folder, flags=("--max-body-mib", str(2 * options.megabytes))) as server:
        url = f"http://127.0.0.1:{server.port}/v2/models/sum/infer"

        def send() -> None:
            for _ in range(options.rounds):
                answer = subprocess.run(["curl", "-s", url, "--data-binary", f"@{folder / 'large.json'}"], capture_output=True, check=True,
                                        preexec_fn=lambda: stand_back(options.client_core)).stdout
                assert b'"outputs"' in answer, answer[:200]

        time.sleep(GRACE_SECS)
        quiet = p99_ms(server, small, seconds=options.seconds)
        before = peak_bytes(server)
        beside = p99_ms(server, small, send)
        grown = peak_bytes(server) - before
    held = len(body) + tensor_bytes
    promises = [Promise("memory", "body + tensor + 10%, MB", grown / MB, 1.1 * held / MB), Promise("small requests", "p99 beside it, ms", beside, 10)]
    return promises, [["body", f"{len(body) / MB:.1f} MB"], ["tensor", f"{tensor_bytes / MB:.1f} MB"], ["p99 alone", f"{quiet:.2f} ms"]]


def main() -> int:
    parser = report.parser(__doc__, "large_json", rounds=3, seconds=2.0)
    parser.add_argument("--megabytes", type=int, default=100)
    options = parser.parse_args()
    report.require("taskset")
    with tempfile.TemporaryDirectory(prefix="batchmill-json-") as folder:
        promises, rows = measure(options, Path(folder))
    print(report.table(["", ""], rows, options.markdown))
    return report.finish(options, {}, promises)


if __name__ == "__main__":
    sys.exit(main())
