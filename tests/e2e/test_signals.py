"""SIGHUP, SIGQUIT, and a second signal of those that end the server."""

from __future__ import annotations

import json
import os
import pty
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from . import models
from .server import ServerProcess
from .test_behaviour import post, slow_request
from .test_hot import ROW, Hammer, call, in_place, index, made, serves, wait_for

KEYS = ("the first key, long enough", "the second key, long enough")


def hang_up(server, count=1):
    """Sends SIGHUP; returns when the settings have been read, or refused, that often."""
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.log_path.read_text().count('"event":"reload"') + server.log_path.read_text().count('"event":"reload_refused"') == count)


def events(server, name):
    return [line for line in map(json.loads, server.log_path.read_text().splitlines()) if line["event"] == name]


def test_sighup_looks_at_every_folder_and_not_one_request_fails(registry, tmp_path):
    models.linear(registry, "gone")
    with ServerProcess(registry, "--model-control", "explicit", "--load-model", "*") as server, Hammer(server) as hammer:
        in_place(made(tmp_path, "2"), registry / "linear" / "2")
        (registry / "gone").rename(tmp_path / "gone")
        models.lookup(registry)
        assert index(server).keys() == {("linear", "1"), ("gone", "1")}
        hang_up(server)
        wait_for(serves(server, "2"))
        wait_for(lambda: index(server).keys() == {("linear", "2"), ("lookup", "")})
        assert not hammer.failures


def test_sighup_tries_again_what_failed_and_leaves_what_was_unloaded(registry, tmp_path):
    (registry / "broken" / "1").mkdir(parents=True)
    (registry / "broken" / "1" / "model.onnx").write_bytes(b"random")
    models.lookup(registry)
    with ServerProcess(registry, "--poll-secs", "1000") as server:
        assert call(server, "lookup/unload")[0] == 200
        assert len(events(server, "version_failed")) == 1
        hang_up(server)
        wait_for(lambda: len(events(server, "version_failed")) == 2)
        assert index(server)["lookup", ""]["reason"] == "unloaded by a call"
        assert post(server, "linear", ROW)[0] == 200


def test_sighup_loads_nothing_where_nothing_is_to_change(registry, tmp_path):
    with ServerProcess(registry, "--model-control", "none") as server:
        in_place(made(tmp_path, "2"), registry / "linear" / "2")
        hang_up(server)
        time.sleep(1)
        assert index(server).keys() == {("linear", "1")}


def test_sighup_takes_another_key_and_the_settings_that_can_change_and_names_those_that_cannot(registry, tmp_path):
    key, file = tmp_path / "key", tmp_path / "server.yaml"
    key.write_text(KEYS[0])
    file.write_text(f"admin_key_file: {key}\nmax_body_mib: 8\n")

    def may(text):
        return call(server, "linear/load", {"Authorization": f"Bearer {text}"}.items())[0]

    with ServerProcess(registry, "--config", str(file)) as server:
        assert (may(KEYS[0]), may(KEYS[1])) == (200, 401)
        key.write_text(KEYS[1])
        hang_up(server)
        assert (may(KEYS[0]), may(KEYS[1])) == (401, 200)
        file.write_text(f"admin_key_file: {key}\nmax_body_mib: 9\nlog_level: debug\nallow_upload: true\n")
        hang_up(server, 2)
        assert events(server, "reload")[-1]["changed"] == ["allow_upload", "log_level"]
        assert events(server, "reload_needs_restart")[-1]["settings"] == ["max_body_mib"]
        in_place(made(tmp_path, "2"), registry / "linear" / "2")
        wait_for(lambda: events(server, "version_probed"))  # which is told at the level debug


@pytest.mark.parametrize("text", ["admin_key_file: /nowhere\n", "admin_open: maybe\n", "no_such_key: 1\n", "[", "max_body_mib: 0\n"])
def test_settings_that_are_wrong_change_nothing_and_the_log_says_why(registry, tmp_path, text):
    key, file = tmp_path / "key", tmp_path / "server.yaml"
    key.write_text(KEYS[0])
    file.write_text(f"admin_key_file: {key}\n")
    with ServerProcess(registry, "--config", str(file)) as server:
        file.write_text(text)
        hang_up(server)
        assert events(server, "reload_refused")[0]["reason"]
        assert call(server, "linear/load")[0] == 401
        assert call(server, "linear/load", {"Authorization": f"Bearer {KEYS[0]}"}.items())[0] == 200


def test_a_sighup_while_models_load_does_not_end_the_server(registry):
    models.slow(registry, 4000)
    (registry / "slow" / "model.yaml").write_text("batching: {mode: 'off'}\n")
    server = ServerProcess(registry)
    wait_for(lambda: "server_started" in server.log_path.read_text())
    server.process.send_signal(signal.SIGHUP)
    with server:
        wait_for(lambda: events(server, "reload"))
        assert index(server).keys() == {("linear", "1"), ("slow", "1")}


@pytest.mark.parametrize("closed", [True, False])
def test_a_terminal_that_closes_ends_the_server_and_a_sighup_of_somebody_does_not(registry, closed):
    primary, secondary = pty.openpty()
    with ServerProcess(registry, stdin=secondary) as server:
        os.close(secondary)
        if closed:
            os.close(primary)
        server.process.send_signal(signal.SIGHUP)
        if closed:
            assert server.process.wait(10) == 0
            return
        wait_for(lambda: '"event":"reload"' in server.log_path.read_text())
        os.close(primary)


def test_sigquit_ends_the_server_without_a_word(registry):
    with ServerProcess(registry) as server:
        server.process.send_signal(signal.SIGQUIT)
        assert server.process.wait(5) == -signal.SIGQUIT
        assert "server_draining" not in server.log_path.read_text()


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)])
def test_a_second_signal_ends_at_once_also_with_a_run_and_a_watch_under_way(registry, first, second):
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    models.slow(registry, 8000)
    (registry / "slow" / "model.yaml").write_text("batching: {mode: 'off'}\n")
    with ServerProcess(registry, "--lame-duck-secs", "60", "--exit-timeout-secs", "60") as server, ThreadPoolExecutor(1) as pool:
        channel = grpc.insecure_channel(server.address)
        next(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()))
        pool.submit(slow_request, server)
        wait_for(lambda: b"batchmill_in_flight_requests 1.0" in server.get("/metrics")[1])
        server.process.send_signal(first)
        wait_for(lambda: "server_draining" in server.log_path.read_text())
        started = time.monotonic()
        server.process.send_signal(second)
        assert server.process.wait(10) == 0
        assert time.monotonic() - started < 5
        channel.close()
