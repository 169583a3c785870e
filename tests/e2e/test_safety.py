"""Versions that end the process which loads them: the service goes on, and says what is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from reference.processes import busy_child_of, children_of, is_alive, wait_until

from . import models
from .server import ServerProcess
from .test_hot import Hammer, index, made, serves, wait_for


@pytest.fixture
def registry(tmp_path):
    models.linear(tmp_path / "registry", "linear", "1", 1.0)
    return tmp_path / "registry"


def publish(tmp_path, path):
    """Moves a model made elsewhere into the registry's linear as version 2."""
    os.rename(path.parent, tmp_path / "registry" / "linear" / "2")


def reason_of(server, version="2"):
    return index(server).get(("linear", version), {}).get("reason", "")


@pytest.mark.parametrize(("at", "stage"), [("load", "it created the session"), ("run", "it ran the model")])
def test_a_version_that_crashes_is_refused_while_not_one_request_fails(tmp_path, registry, at, stage):
    with ServerProcess(registry) as server, Hammer(server) as hammer:
        publish(tmp_path, models.fatal(tmp_path / "made", at=at))
        wait_for(lambda: reason_of(server) == f"probe: ended by SIGFPE while {stage}")
        assert json.loads(server.get("/v2/models/linear")[1])["versions"] == ["1"]
        (registry / "linear" / "2" / "model.onnx").write_bytes(made(tmp_path, "2"))
        wait_for(serves(server, "2"))
        assert server.process.poll() is None
    assert not hammer.failures


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_probe_that_is_killed_or_stopped_costs_its_version_alone(tmp_path, registry, number):
    slow = models.slow(tmp_path / "made", 8000)
    with ServerProcess(registry, "--probe-timeout-secs", "3") as server, Hammer(server) as hammer:
        publish(tmp_path, slow)
        child = busy_child_of(server.process.pid)
        os.kill(child, number)
        wait_for(lambda: reason_of(server).startswith("probe: ended by SIGKILL" if number == signal.SIGKILL else "probe: not done after 3 s"), 10)
        assert not children_of(server.process.pid)
        assert server.get("/v2/health/ready")[0] == 200
    assert not hammer.failures


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 0)])
def test_a_probe_ends_with_its_server(tmp_path, registry, number, code):
    slow = models.slow(tmp_path / "made", 8000)
    server = ServerProcess(registry)
    server.wait_ready()
    publish(tmp_path, slow)
    child = busy_child_of(server.process.pid)
    os.kill(child, signal.SIGSTOP)
    assert server.stop(number) == code
    wait_until(lambda: not is_alive(child), 2)
    assert "version_failed" not in server.log_path.read_text()


def test_a_single_file_that_is_replaced_by_one_that_crashes_serves_on(tmp_path):
    path = models.linear(tmp_path / "made", "linear", "1", 1.0)
    file = tmp_path / "linear.onnx"
    shutil.copyfile(path, file)
    with ServerProcess(file) as server:
        shutil.copyfile(models.fatal(tmp_path / "made"), file)
        wait_for(lambda: "ended by SIGFPE" in reason_of(server, "1"))
        assert serves(server, "1")()
