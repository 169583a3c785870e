#!/usr/bin/env python3
"""Time from start to the first answer, and memory, beside what importing a Python server's libraries alone takes.

One model of the example registry is served, as it is and with a model.yaml beside it, which takes a library to read. Medians of
--runs starts; the first one, which fills the disk cache, is not counted.
"""

from __future__ import annotations

import argparse
import http.client
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bounds
import numpy as np
import payloads
import report
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


def start_once(registry: Path, folder: Path) -> tuple[float, float]:
    """Seconds to the first answer, MiB a second later."""
    port = free_port()
    body, json_bytes = payloads.rest_binary("image", np.zeros((1, 64), np.float32))
    command = [sys.executable, "-m", "batchmill", "serve", str(registry), "--port", str(port), "--grpc-port", "0",
               "--state-dir", str(folder / "state"), "--lame-duck-secs", "0"]
    start = time.monotonic()
    with Started("batchmill", command, port, "", folder / "server.log") as server:
        first_answer(port, "digits", body, json_bytes)
        took = time.monotonic() - start
        time.sleep(1)
        return took, memory_mib(server.pid)


def import_once() -> float:
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.monotonic() - start


def registries(folder: Path) -> dict[str, Path]:
    """One version of one model each."""
    made = {}
    for name, text in (("graph alone", ""), ("with model.yaml", "batching: {max_batch_size: 32}\n")):
        model = folder / name.replace(" ", "-") / "digits"
        shutil.copytree(EXAMPLES / "digits" / "2", model / "2", ignore=shutil.ignore_patterns("golden*"))
        if text:
            (model / "model.yaml").write_text(text)
        made[name] = model.parent
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--markdown", action="store_true", help="print tables to paste")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a promise is broken")
    options = parser.parse_args()
    imports: list[float] = []
    with tempfile.TemporaryDirectory(prefix="batchmill-start-") as folder:
        served = registries(Path(folder))
        starts: dict[str, list[tuple[float, float]]] = {name: [] for name in served}
        for _ in range(options.runs + 1):
            imports.append(import_once())
            for name, registry in served.items():
                starts[name].append(start_once(registry, Path(folder)))
    limit = statistics.median(imports[1:])
    rows, medians = [["imports alone", f"{limit:.3f}", f"{min(imports[1:]):.3f}-{max(imports[1:]):.3f}", ""]], {}
    for name, runs in starts.items():
        took, mib = [one for one, _ in runs[1:]], [one for _, one in runs[1:]]
        medians[name] = statistics.median(took), statistics.median(mib)
        rows.append([name, f"{medians[name][0]:.3f}", f"{min(took):.3f}-{max(took):.3f}", f"{medians[name][1]:.0f}"])
    print(report.table(["first answer", "s", "range", "MiB"], rows, options.markdown) + "\n")
    promises = bounds.startup(*medians["graph alone"], limit)
    print(report.promises_table(promises, options.markdown))
    return int(options.check and not all(promise.kept for promise in promises))


if __name__ == "__main__":
    sys.exit(main())
