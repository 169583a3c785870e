"""What is learned of a version outlives the server, and harms nobody when it is wrong."""

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from . import models
from .server import ServerProcess


@pytest.fixture
def registry(tmp_path):
    models.linear(tmp_path / "registry")
    return tmp_path / "registry"


def ask(server, rows, **headers):
    """The status of an inference of so many rows."""
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 8], "data": [1.0] * 8 * rows}]}
    return server.call("/v2/models/linear/infer", "POST", body, **headers)[0]


def predicted(server):
    """Of runs of the model's one width, by rows, in µs."""
    (width,) = json.loads(server.get("/v2/models/linear/latency")[1])["versions"][0]["predicted"]
    return width["run_us"]


def test_run_times_are_known_after_a_restart_and_the_first_of_them_by_the_warm_up(registry):
    with ServerProcess(registry) as server:
        assert list(predicted(server)) == ["1"]
        for _ in range(5):
            assert ask(server, 8) == 200
        before = predicted(server)
        assert "8" in before
    with ServerProcess(registry) as server:
        assert predicted(server) == pytest.approx(before, abs=0.015)     # both are rounded


def test_a_memory_that_is_wrong_refuses_nobody(registry):
    with ServerProcess(registry) as server:
        ask(server, 8)
    with sqlite3.connect(registry.parent / "state" / "state.db") as state:
        ((key, text),) = state.execute("SELECT key, value FROM kept WHERE kind = 'runs'").fetchall()
        slow = [[width, [10_000_000 * ns for ns in knots], spread] for width, knots, spread in json.loads(text)]
        state.execute("UPDATE kept SET value = ? WHERE key = ?", (json.dumps(slow), key))
    state.close()
    with ServerProcess(registry) as server, ThreadPoolExecutor(16) as callers:
        assert predicted(server)["8"] > 10e6
        assert {*callers.map(lambda rows: ask(server, rows, **{"x-request-timeout-ms": "5000"}), [1, 8] * 50)} == {200}
        assert predicted(server)["8"] < 1e6


def test_models_say_how_many_runs_go_on_at_once_and_why(registry):
    models.slow(registry, 100)
    with ServerProcess(registry, "--cpu-budget", "2", "--executor-threads", "2") as server:
        told = {row["model"]: row["runs"] for row in json.loads(server.get("/admin/models")[1])["models"]}
        assert told["linear"].startswith("2 instances x 1 thread: a run takes 0.")
        assert told["slow"].endswith((" wide", " narrow"))
    with ServerProcess(registry, "--cpu-budget", "2", "--executor-threads", "2") as server:
        assert {row["model"]: row["runs"] for row in json.loads(server.get("/admin/models")[1])["models"]}["slow"] == told["slow"]
    with ServerProcess(registry, "--cpu-budget", "1") as server:
        assert {row["runs"] for row in json.loads(server.get("/admin/models")[1])["models"]} == {"1 instance x 1 thread"}
