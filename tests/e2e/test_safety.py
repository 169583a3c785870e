"""Versions that end the process which loads them: the service goes on, and says what is wrong with them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time

import pytest

from reference.processes import busy_child_of, children_of, is_alive, wait_until

from . import models
from .server import ServerProcess
from .test_hot import Hammer, call, index, made, serves, wait_for


def publish(tmp_path, path):
    """Moves a model made elsewhere into the registry's linear as version 2."""
    os.rename(path.parent, tmp_path / "registry" / "linear" / "2")


def reason_of(server, version="2"):
    return index(server).get(("linear", version), {}).get("reason", "")


def test_a_version_that_crashes_is_refused_while_not_one_request_fails(tmp_path, registry):
    with ServerProcess(registry) as server, Hammer(server) as hammer:
        publish(tmp_path, models.fatal(tmp_path / "made"))
        wait_for(lambda: reason_of(server) == "probe: ended by SIGFPE while it created the session")
        assert json.loads(server.get("/v2/models/linear")[1])["versions"] == ["1"]
        (registry / "linear" / "2" / "model.onnx").write_bytes(made(tmp_path, "2"))
        wait_for(serves(server, "2"))
        assert server.process.poll() is None
    assert not hammer.failures


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_probe_that_is_killed_or_stopped_costs_its_version_alone(tmp_path, registry, number):
    slow = models.slow(tmp_path / "made", 8000)
    with ServerProcess(registry, "--probe-timeout-secs", "8") as server, Hammer(server) as hammer:
        publish(tmp_path, slow)
        child = busy_child_of(server.process.pid)
        os.kill(child, number)
        wait_for(lambda: reason_of(server).startswith("probe: ended by SIGKILL" if number == signal.SIGKILL else "probe: not done after 8 s"))
        assert not children_of(server.process.pid)
        assert server.get("/v2/health/ready")[0] == 200
    assert not hammer.failures


def test_a_probe_that_is_stopped_and_continued_within_its_limit_goes_on(tmp_path, registry):
    models.slow(tmp_path / "made")
    with ServerProcess(registry) as server, Hammer(server) as hammer:
        os.rename(tmp_path / "made" / "slow", registry / "slow")
        child = busy_child_of(server.process.pid)
        os.kill(child, signal.SIGSTOP)
        time.sleep(1.5)
        assert is_alive(child)
        assert index(server).get(("slow", "1"), {}).get("state") == "LOADING"
        os.kill(child, signal.SIGCONT)
        wait_for(lambda: index(server)["slow", "1"]["state"] == "READY", 30)
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


def started(registry, *flags):
    """A server that is ready, or has ended."""
    server = ServerProcess(registry, *flags)
    wait_until(lambda: server.process.poll() is not None or is_ready(server), 30)
    return server


def is_ready(server):
    with contextlib.suppress(OSError):
        return server.get("/v2/health/ready")[0] == 200
    return False


def test_a_model_that_would_end_every_start_ends_one(tmp_path, registry):
    fatal = models.fatal(registry)
    first = started(registry)
    assert first.process.returncode == -signal.SIGFPE
    for words in ("and now a child did; probe: ended by SIGFPE", "2 times in a row"):
        server = started(registry)
        assert words in index(server)["fatal", "1"]["reason"]
        assert index(server)["linear", "1"]["state"] == "READY"
        assert server.stop() == 0
    with started(registry) as server:
        assert "probe: ended by SIGFPE" in call(server, "fatal/load")[1]
        fatal.write_bytes(made(tmp_path, "2"))
        wait_for(lambda: index(server)["fatal", "1"]["state"] == "READY")
    with started(registry) as server:
        assert index(server)["fatal", "1"]["state"] == "READY"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_model_during_whose_load_the_server_was_ended_is_tried_in_a_child_and_served(tmp_path, registry, number):
    models.slow(registry)
    first = ServerProcess(registry)
    journal = tmp_path / "state" / "loads"
    wait_until(lambda: journal.exists() and "/slow/1/model.onnx" in journal.read_text())
    assert first.stop(number) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    with ServerProcess(registry) as server:
        assert index(server)["slow", "1"]["state"] == "READY"
        interrupted = [line for line in server.log_path.read_text().splitlines() if "load_interrupted" in line and "/slow/" in line]
        assert len(interrupted) == (number == signal.SIGKILL)


def test_a_model_that_holds_up_the_start_is_quarantined_and_a_load_call_tries_it_again(tmp_path, registry):
    models.slow(registry, 8000)
    first = ServerProcess(registry)
    first.wait_ready(path="/v2/models/linear/ready")
    first.stop(signal.SIGKILL)
    with ServerProcess(registry, "--probe-timeout-secs", "1") as server:
        assert "probe: not done after 1 s" in index(server)["slow", "1"]["reason"]
        assert index(server)["slow", "1"]["reason"].startswith("quarantined")
        status, text = call(server, "slow/load")
        assert (status, json.loads(text)["error"]) == (400, "version 1: " + index(server)["slow", "1"]["reason"])
