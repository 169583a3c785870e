"""Triton's perf_analyzer measures this server as it would Triton, and its two sides agree (make metrics-test brings it)."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import helper

from . import models
from .server import ServerProcess

pytestmark = pytest.mark.long
FOLDER = Path(sys.prefix) / "perf_analyzer"
THREADS = 4


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    registry = tmp_path_factory.mktemp("served") / "registry"
    models.linear(registry)
    shape = ["n", 3, "height", "width"]
    models.write(registry, "images", [helper.make_node("Relu", ["x"], ["y"])], [models.value("x", "FP32", shape)], [models.value("y", "FP32", shape)])
    for datatype in ("BYTES", "BOOL", "FP16", "INT64"):
        models.identity(registry, datatype)
    with ServerProcess(registry, "--triton-metrics") as process:
        yield process


def measured(server, model, *flags):
    """What perf_analyzer has told, with exit code 0."""
    assert (FOLDER / "perf_analyzer").is_file(), "perf_analyzer is not there: make metrics-test"
    done = subprocess.run([FOLDER / "perf_analyzer", "-m", model, "-u", server.address, *flags], env={**os.environ, "LD_LIBRARY_PATH": str(FOLDER)},
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def number(pattern, text):
    match = re.search(pattern, text)
    assert match, f"no {pattern!r} in: {text}"
    return float(match[1])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("protocol", [["-i", "grpc"], ["-i", "grpc", "--streaming"], ["-i", "http"]], ids=" ".join)
def test_client_and_server_tell_of_the_same_requests(mlp, protocol, batch):
    told = measured(mlp, "linear", *protocol, "-b", str(batch), "-p", "1000", "-s", "50", "--concurrency-range", str(THREADS))
    client, server = told.split("  Server:")
    counted, answered = number(r"Request count: (\d+)", client), number(r"Successful request count: (\d+)", server)
    assert answered == pytest.approx(counted, rel=0.02)    # the server is asked a moment before the client's window and a moment after
    assert number(r"Inference count: (\d+)", server) == pytest.approx(batch * answered, abs=batch * THREADS)    # rows of runs: those being answered too
    assert answered / THREADS <= number(r"Execution count: (\d+)", server) <= answered
    assert 0 < number(r"Avg request latency: (\d+) usec", server) < number(r"Avg latency: (\d+) usec", client)


GRPC, STREAM, HTTP = ["-i", "grpc"], ["-i", "grpc", "--streaming", "-a"], ["-i", "http"]
JSON = ["-i", "http", "--input-tensor-format", "json", "--output-tensor-format", "json"]
IMAGE, WORDS = ["--shape", "x:3,16,24"], ["--string-data", 'zwölf "Boxkämpfer" \\']
MODES = [
    ("linear", [*GRPC, "-a"]), ("linear", [*HTTP, "-a"]), ("linear", STREAM), ("linear", [*JSON, "-a", "-b", "3"]),
    ("linear", [*HTTP, "--input-tensor-format", "json"]), ("linear", [*HTTP, "--output-tensor-format", "json"]),
    *[("linear", [*protocol, "--request-rate-range", "200", "--request-distribution", "poisson"]) for protocol in (GRPC, STREAM, HTTP, JSON)],
    *[("images", [*protocol, *IMAGE]) for protocol in (GRPC, STREAM, HTTP)], ("images", [*GRPC, *IMAGE, "-b", "2"]),
    ("images", [*JSON, *IMAGE, "--input-data", "zero"]),    # its random bits hold NaN, which it writes as such: that is no JSON
    *[("identity_bytes", [*protocol, *WORDS]) for protocol in (GRPC, STREAM, HTTP, JSON)], ("identity_bytes", [*HTTP, "--string-length", "3000", "-b", "2"]),
    *[("identity_bool", protocol) for protocol in (GRPC, HTTP)], *[("identity_fp16", protocol) for protocol in (GRPC, HTTP)],    # its JSON has neither
    *[("identity_int64", protocol) for protocol in (GRPC, HTTP, JSON)],
    ("linear", [*GRPC, "--percentile", "95"]), ("linear", [*HTTP, "--input-data", "zero", "-x", "1"]),
    ("linear", [*GRPC, "--collect-metrics", "--metrics-url", "METRICS"]),
]


@pytest.mark.parametrize(("model", "flags"), MODES, ids=lambda one: one if isinstance(one, str) else " ".join(one))
def test_it_runs_in_every_mode_and_no_request_fails(mlp, model, flags):
    def counted():
        (told,) = json.loads(mlp.get(f"/v2/models/{model}/stats")[1])["model_stats"]
        return [told["inference_stats"][outcome]["count"] for outcome in ("success", "fail")]

    before = counted()
    flags = [flag.replace("METRICS", f"{mlp.address}/metrics") for flag in flags]
    # Three short windows are enough, however unstable: nothing is measured here.
    told = measured(mlp, model, *flags, "-p", "200", "-s", "999999", "-r", "20")
    succeeded, failed = (after - earlier for after, earlier in zip(counted(), before, strict=True))
    assert succeeded >= number(r"Request count: (\d+)", told) > 0
    assert failed == 0
