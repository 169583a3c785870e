"""Triton's perf_analyzer measures this server as it would Triton, and its two sides agree (make metrics-test brings it)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import models
from .server import ServerProcess

pytestmark = pytest.mark.long
FOLDER = Path(sys.prefix) / "perf_analyzer"
THREADS = 4


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    registry = tmp_path_factory.mktemp("served") / "registry"
    models.linear(registry)
    with ServerProcess(registry) as process:
        yield process


def number(pattern, text):
    match = re.search(pattern, text)
    assert match, f"no {pattern!r} in: {text}"
    return float(match[1])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("protocol", [["-i", "grpc"], ["-i", "grpc", "--streaming"], ["-i", "http"]], ids=" ".join)
def test_client_and_server_tell_of_the_same_requests(mlp, protocol, batch):
    assert (FOLDER / "perf_analyzer").is_file(), "perf_analyzer is not there: make metrics-test"
    done = subprocess.run([FOLDER / "perf_analyzer", "-m", "linear", "-u", mlp.address, *protocol, "-b", str(batch), "-p", "1000", "-s", "50",
                           "--concurrency-range", str(THREADS)], env={**os.environ, "LD_LIBRARY_PATH": str(FOLDER)}, capture_output=True, text=True, timeout=120)
    client, server = done.stdout.split("  Server:")
    counted, answered = number(r"Request count: (\d+)", client), number(r"Successful request count: (\d+)", server)
    assert answered == pytest.approx(counted, rel=0.02)    # the server is asked a moment before the client's window and a moment after
    assert number(r"Inference count: (\d+)", server) == pytest.approx(batch * answered, abs=batch * THREADS)    # rows of runs: those being answered too
    assert answered / THREADS <= number(r"Execution count: (\d+)", server) <= answered
    assert 0 < number(r"Avg request latency: (\d+) usec", server) < number(r"Avg latency: (\d+) usec", client)
    assert done.returncode == 0, done.stdout + done.stderr
