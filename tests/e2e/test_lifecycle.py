"""Start and end: what answers while models load, and what the two signals do."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import time

import pytest

from reference.processes import threads_of

from . import models, wire
from .server import ServerProcess, free_port

STAYS = 0.5  # seconds; the lame-duck time of these tests is many times longer


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(tmp_path, number):
    models.linear(tmp_path / "registry")
    with ServerProcess(tmp_path / "registry", "--lame-duck-secs", "60") as server:
        server.process.send_signal(number)
        assert not ends_within(server, STAYS)
        server.process.send_signal(number)
        assert server.process.wait(5) == 0


@pytest.mark.parametrize(("number", "at_a_terminal", "skips"), [
    (signal.SIGINT, True, True), (signal.SIGINT, False, False), (signal.SIGTERM, True, False),
])
def test_only_ctrl_c_at_a_terminal_skips_the_lame_duck_time(tmp_path, number, at_a_terminal, skips):
    models.linear(tmp_path / "registry")
    primary, secondary = pty.openpty()
    with ServerProcess(tmp_path / "registry", "--lame-duck-secs", "60", stdin=secondary if at_a_terminal else subprocess.DEVNULL) as server:
        server.process.send_signal(number)
        assert ends_within(server, 10 if skips else STAYS) == skips
        server.process.kill()
    os.close(primary)
    os.close(secondary)


@pytest.fixture
def loading(tmp_path):
    """A server whose first model serves while its second still loads, for a long time."""
    models.linear(tmp_path / "registry", "a")
    models.slow(tmp_path / "registry", 8000)
    server = ServerProcess(tmp_path / "registry")
    try:
        server.wait_ready(path="/v2/models/a/ready")
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        server.log.close()


def test_cold_calls_are_answered_while_models_load(loading):
    assert loading.get("/metrics")[0] == 200
    assert json.loads(loading.get("/v2/models")[1])["models"][0] == "a"
    assert loading.get("/v2/models/a")[0] == 200
    assert loading.get("/v2/health/ready")[0] == 503  # still loading, or this proved nothing


def test_a_signal_while_a_model_loads_ends_cleanly(loading):
    assert loading.get("/v2/health/ready")[0] == 503
    assert loading.stop(signal.SIGTERM, 5) == 0


def test_a_run_that_does_not_end_in_time_does_not_hold_up_the_exit(tmp_path):
    models.endless(tmp_path / "registry")
    inputs = [{"name": "x", "datatype": "INT64", "shape": [1], "data": [0]}, {"name": "n", "datatype": "INT64", "shape": [], "data": [10**9]}]
    with ServerProcess(tmp_path / "registry", "--exit-timeout-secs", "0.1") as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(wire.post("/v2/models/endless/infer", json.dumps({"inputs": inputs}).encode()))
        assert any(b"batchmill_in_flight_requests 1.0" in server.get("/metrics")[1] for _ in range(1000))
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 5
        assert '"unanswered":1' in server.log_path.read_text()


def test_a_second_server_on_the_same_state_is_refused_and_the_first_serves_on(tmp_path):
    models.linear(tmp_path / "registry")
    with ServerProcess(tmp_path / "registry") as first:
        command = [*first.process.args]
        command[command.index("--port") + 1] = str(free_port())
        second = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert (second.returncode, second.stderr.count("\n")) == (1, 1)
        assert f"another server has this state directory (process {first.process.pid}, registry {tmp_path}/registry)" in second.stderr
        assert first.get("/v2/health/ready")[0] == 200


def test_a_server_whose_state_cannot_be_written_serves_and_says_so(tmp_path):
    models.linear(tmp_path / "registry")
    with ServerProcess(tmp_path / "registry", "--state-dir", "/proc/state") as server:
        assert server.get("/v2/models/linear/ready")[0] == 200
        assert server.log_path.read_text().count("state_not_kept") == 1


def test_python_gives_way_to_the_threads_that_serve(tmp_path):
    folder = models.linear(tmp_path / "registry")
    (folder.parents[1] / "model.yaml").write_text("instances: {intra_op_threads: 2}\n")
    with ServerProcess(tmp_path / "registry") as server:
        nice: dict[str, set[int]] = {}
        for number, name in threads_of(server.process.pid).items():
            name = "main" if number == server.process.pid else name.split("-")[0]
            nice.setdefault(name, set()).add(os.getpriority(os.PRIO_PROCESS, number))
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert nice["io"] == nice["executor"] == nice["session"] == {own}
    assert nice["main"] == {max(13, own)}


def ends_within(server, seconds):
    try:
        server.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
