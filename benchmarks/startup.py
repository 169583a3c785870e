#!/usr/bin/env python3
"""Time from start to the first answer, and memory, beside what importing a Python server's libraries alone takes.

startup.py [REGISTRY [MODEL INPUT WIDTH]], by default the example registry. Medians of --runs starts; the first one, which
fills the disk cache, is not counted.
"""

from __future__ import annotations

import argparse
import http.client
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import payloads
from processes import Server, family, free_port

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "registry"
IMPORTS = "import grpc, starlette.applications, onnxruntime"
FIRST_ANSWER_SECS = 30


def first_answer(port: int, model: str, body: bytes, json_bytes: int) -> None:
    """Asks again and again until the model answers."""
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(json_bytes)}
    end = time.monotonic() + FIRST_ANSWER_SECS
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", f"/v2/models/{model}/infer", body, headers)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.002)
    raise RuntimeError(f"no answer after {FIRST_ANSWER_SECS} s")


def memory_mib(pid: int, field: str = "Rss") -> float:
    """Resident memory of the process and its descendants (field Pss: shared pages by their share)."""
    total = 0
    for member in family(pid):
        total += int(re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{member}/smaps_rollup").read_text(), re.M)[1])  # type: ignore[index]
    return total / 1024


class Started(Server):
    """Does not wait for the port: the first answer is what is timed."""

    def wait_listening(self) -> None:
        pass


def start_once(options: argparse.Namespace, folder: Path) -> tuple[float, float]:
    """Seconds to the first answer, MiB a second later."""
    port = free_port()
    body, json_bytes = payloads.rest_binary(options.input, np.zeros((1, options.width), np.float32))
    command = [sys.executable, "-m", "batchmill", "serve", str(options.registry), "--port", str(port), "--grpc-port", "0",
               "--state-dir", str(folder / "state"), "--lame-duck-secs", "0"]
    start = time.monotonic()
    with Started("batchmill", command, port, "", folder / "server.log") as server:
        first_answer(port, options.model, body, json_bytes)
        took = time.monotonic() - start
        time.sleep(1)
        return took, memory_mib(server.pid)


def import_once() -> float:
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("registry", nargs="?", type=Path, default=EXAMPLES)
    parser.add_argument("model", nargs="?", default="digits")
    parser.add_argument("input", nargs="?", default="image")
    parser.add_argument("width", nargs="?", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    imports, starts = [], []
    with tempfile.TemporaryDirectory(prefix="batchmill-start-") as folder:
        for _ in range(options.runs + 1):
            imports.append(import_once())
            starts.append(start_once(options, Path(folder)))
    print(f"first answer   {statistics.median(took for took, _ in starts[1:]):.3f} s")
    print(f"imports alone  {statistics.median(imports[1:]):.3f} s   ({IMPORTS})")
    print(f"memory         {statistics.median(mib for _, mib in starts[1:]):.0f} MiB resident")


if __name__ == "__main__":
    main()
