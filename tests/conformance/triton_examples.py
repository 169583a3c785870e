"""Runs the Python examples of triton-inference-server/client, as they are, against a server of their models, and tells what became of each.

    PYTHONPATH=tests python tests/conformance/triton_examples.py CHECKOUT [--write docs/triton-examples.md]

An example has passed when it exits with 0 and, where its code has a line that prints PASS, has printed it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from onnx import helper, numpy_helper

from e2e.models import DATATYPES, identity, value, write
from e2e.server import ServerProcess, free_port

SECONDS = 60    # some examples wait for ever for an answer that does not come
HTTP, GRPC = 8000, 8001     # written into memory_growth_test.py

SHARED_MEMORY = "shared memory: not offered"
CUDA = "CUDA shared memory: not offered, and needs a GPU"
SEQUENCE = "sequence batching, models that keep state from request to request: not offered"
CLASSIFICATION = "classification extension (answers as value:index:label): not offered"
OVERRIDE = "a load call that carries a configuration: only with `--allow-upload`, which is off here"
TLS = "TLS: not offered; put a proxy before the server"
# Why an example need not pass, by its name. When it passes all the same, that is what is told.
NOT_OFFERED = {
    "ensemble_image_client": "ensembles: not offered; nor is classification", "grpc_image_client": CLASSIFICATION, "image_client": CLASSIFICATION,
    "reuse_infer_objects_client": SHARED_MEMORY, "simple_grpc_shm_client": SHARED_MEMORY, "simple_grpc_shm_string_client": SHARED_MEMORY,
    "simple_http_shm_client": SHARED_MEMORY, "simple_http_shm_string_client": SHARED_MEMORY,
    "simple_grpc_cudashm_client": CUDA, "simple_http_cudashm_client": CUDA,
    "simple_grpc_aio_sequence_stream_infer_client": SEQUENCE, "simple_grpc_sequence_stream_infer_client": SEQUENCE,
    "simple_grpc_sequence_sync_infer_client": SEQUENCE, "simple_http_sequence_sync_infer_client": SEQUENCE,
    "simple_grpc_custom_repeat": "decoupled models, several answers to one request: not offered",
    "simple_grpc_model_control": OVERRIDE, "simple_http_model_control": OVERRIDE,
}
# What lies behind a failure, by its name, for the reader of the table.
COMPRESSED_HTTP = [["--request-compression-algorithm", algorithm, "--response-compression-algorithm", algorithm] for algorithm in ("gzip", "deflate")]
COMPRESSED_GRPC = [["-C", "gzip"], ["-C", "deflate"]]
# Flags to run an example with, beside once with none.
VARIANTS: dict[str, list[list[str]]] = {
    "simple_http_infer_client": [["-H", "test:1"], *COMPRESSED_HTTP, ["--ssl", "--insecure"]],
    "simple_http_aio_infer_client": [["-H", "test:1"], *COMPRESSED_HTTP, ["--ssl", "--insecure"]],
    "simple_grpc_infer_client": [["-t", "5"], *COMPRESSED_GRPC],
    "simple_grpc_aio_infer_client": [["-t", "5"], *COMPRESSED_GRPC],
    "simple_grpc_async_infer_client": [["-t", "5"]],
    "simple_grpc_keepalive_client": [["--grpc-keepalive-time", "10000", "--grpc-keepalive-permit-without-calls"]],
    "memory_growth_test": [["-i", "grpc"]],
    "reuse_infer_objects_client": [["-i", "grpc"]],
}
# What an example cannot be run without.
NEEDED = {"image_client": ["-m", "densenet_onnx", "image.jpg"], "grpc_image_client": ["-m", "densenet_onnx", "image.jpg"],
          "ensemble_image_client": ["image.jpg"]}
REPOSITORY_SIZES = {"simple_grpc_model_control": 8, "simple_http_model_control": 7}   # models that they count


@dataclass(frozen=True)
class Run:
    """What became of an example with some flags. outcome: passed, not offered, failed or not run."""

    name: str
    flags: list[str]
    outcome: str
    why: str = ""


def add_and_subtract(registry: Path, name: str, datatype: str, calculated: str) -> None:
    """OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1, of [n, 16] each."""
    nodes = [helper.make_node("Cast", [f"INPUT{at}"], [f"given{at}"], to=DATATYPES[calculated]) for at in range(2)]
    for at, operator in enumerate(("Add", "Sub")):
        nodes += [helper.make_node(operator, ["given0", "given1"], [f"made{at}"]), helper.make_node("Cast", [f"made{at}"], [f"OUTPUT{at}"], to=DATATYPES[datatype])]
    write(registry, name, nodes, [value(f"INPUT{at}", datatype, ["n", 16]) for at in range(2)], [value(f"OUTPUT{at}", datatype, ["n", 16]) for at in range(2)])


def same(registry: Path, name: str, datatype: str) -> None:
    write(registry, name, [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])], [value("INPUT0", datatype, ["n", "m"])],
          [value("OUTPUT0", datatype, ["n", "m"])])


def make_registry(folder: Path) -> Path:
    """The models that the examples ask for, as far as models of that kind can be served."""
    add_and_subtract(folder, "simple", "INT32", "INT32")
    add_and_subtract(folder, "simple_int8", "INT8", "INT32")
    add_and_subtract(folder, "simple_string", "BYTES", "INT32")
    same(folder, "simple_identity", "BYTES")
    same(folder, "custom_identity_int32", "INT32")
    weights = numpy_helper.from_array(np.ones((224, 1000), np.float32), "w")
    nodes = [helper.make_node("ReduceMean", ["data_0"], ["columns"], axes=[0, 1], keepdims=0), helper.make_node("MatMul", ["columns", "w"], ["fc6_1"])]
    write(folder, "densenet_onnx", nodes, [value("data_0", "FP32", [3, 224, 224])], [value("fc6_1", "FP32", [1000])], [weights])
    return folder


def make_counted_registry(folder: Path, size: int) -> Path:
    add_and_subtract(folder, "simple", "INT32", "INT32")
    for at in range(1, size):
        identity(folder, "FP32", name=f"other_{at}")
    return folder


def free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def run_example(script: Path, flags: list[str], ports: tuple[int, int]) -> Run:
    """ports: for REST, and for gRPC."""
    name, source = script.stem, script.read_text()
    if name == "memory_growth_test" and ports != (HTTP, GRPC):
        return Run(name, flags, "not run", f"its ports {HTTP} and {GRPC} are taken here")
    url = [] if '"--url"' not in source else ["-u", f"localhost:{ports['grpc' in name or 'grpc' in flags]}"]
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(script), *url, *flags, *NEEDED.get(name, [])]
    try:
        done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        code, said = 1, f"no end after {SECONDS} s"
    else:
        code, said = done.returncode, last_line(done.stdout + done.stderr)
        if code == 0 and re.search(r'print\("PASS', source) and not re.search("^PASS", done.stdout, re.MULTILINE):
            code, said = 1, f"did not print PASS; {said}"
    if code == 0:
        return Run(name, flags, "passed")
    excuse = TLS if "--ssl" in flags else NOT_OFFERED.get(name)
    return Run(name, flags, "not offered", excuse) if excuse else Run(name, flags, "failed", said)


def last_line(text: str) -> str:
    """The last one that names an error, or the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.search("Error|Exception|FAIL|failed", line)]
    return (errors or lines or ["no output"])[-1][:200]


def runs(examples: Path, work: Path) -> Iterator[Run]:
    with ExitStack() as stack:
        ports = (HTTP, GRPC) if free(HTTP) and free(GRPC) else (free_port(), free_port())
        registry = make_registry(work / "examples" / "registry")
        stack.enter_context(ServerProcess(registry, "--grpc-port", str(ports[1]), "--server-name", "triton", port=ports[0]))
        for script in sorted(examples.glob("*.py")):
            for flags in ([], *VARIANTS.get(script.stem, [])):
                if size := REPOSITORY_SIZES.get(script.stem):
                    with ServerProcess(make_counted_registry(work / script.stem / "registry", size), "--server-name", "triton") as own:
                        yield run_example(script, flags, (own.port, own.port))
                else:
                    yield run_example(script, flags, ports)


def find_examples(checkout: Path) -> Path:
    for folder in (checkout / "src" / "python" / "examples", checkout):
        if list(folder.glob("simple_*_client.py")):
            return folder
    raise SystemExit(f"{checkout}: no examples there; a checkout of triton-inference-server/client is wanted, or its folder src/python/examples")


def page(results: list[Run]) -> str:
    counted = {outcome: sum(run.outcome == outcome for run in results) for outcome in ("passed", "not offered", "failed", "not run")}
    lines = [
        "# Triton's Python examples", "",
        "The examples of triton-inference-server/client (`src/python/examples`), run as they are, with tritonclient "
        f"{version('tritonclient')}, against `batchmill serve --server-name triton` and models of their names.",
        "An example has passed when it exits with 0 and has printed the PASS that its code prints. Made by", "",
        "    make triton-examples EXAMPLES=<checkout> WRITE=docs/triton-examples.md", "",
        ", ".join(f"{count} {outcome}" for outcome, count in counted.items() if count) + ".", "",
        "| example | flags | result | why |", "|---|---|---|---|",
    ]
    lines += [f"| {run.name} | {' '.join(run.flags)} | {run.outcome} | {run.why.replace('|', '/')} |" for run in results]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs Triton's Python examples against this server.")
    parser.add_argument("checkout", type=Path, help="of triton-inference-server/client, or its folder src/python/examples")
    parser.add_argument("--write", type=Path, metavar="FILE", help="where the table goes, beside the terminal")
    options = parser.parse_args()
    examples = find_examples(options.checkout.resolve())
    work = Path(tempfile.mkdtemp(prefix="triton-examples-"))
    results: list[Run] = []
    try:
        for run in runs(examples, work):
            results.append(run)
            print(f"{run.outcome:12} {run.name} {' '.join(run.flags)}{': ' * bool(run.why)}{run.why}", flush=True)
    finally:
        shutil.rmtree(work)
    if options.write:
        options.write.write_text(page(results))
    return int(any(run.outcome == "failed" for run in results))


if __name__ == "__main__":
    raise SystemExit(main())
