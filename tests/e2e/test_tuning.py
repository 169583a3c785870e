"""Batching and queueing are changed by calls while requests run: from the next batch on, and across restarts."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from . import models
from .server import ServerProcess
from .test_behaviour import post, tensor
from .test_hot import ROW, Hammer, wait_for

PATH = "/admin/models/linear/tuning"


@pytest.fixture
def server(registry):
    with ServerProcess(registry) as running:
        yield running


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """For calls that are refused: one server for all of them."""
    registry = tmp_path_factory.mktemp("unchanged") / "registry"
    models.linear(registry, factor=1.0)
    with ServerProcess(registry) as running:
        yield running


def tune(server, body, method="PATCH"):
    """What is in force then, value by key."""
    status, told = server.call(PATH, method, body)
    assert status == 200, told
    return {key: one["value"] for key, one in told["tuning"].items()}


def largest_batch(server, seconds=0.5):
    """Rows of the largest batch, as /metrics tells it, that began after this was called; requests of one row run meanwhile."""
    def counts():
        return {float(line.split('le="')[1].split('"')[0]): int(float(line.split()[-1])) for line in server.get("/metrics")[1].decode().splitlines()
                if line.startswith("batchmill_batch_rows_bucket") and 'model="linear"' in line}

    time.sleep(0.2)  # what was queued before is answered
    before = counts()
    time.sleep(seconds)
    new = {bound: count - before.get(bound, 0) for bound, count in counts().items()}
    assert new[float("inf")] > 0
    return min(bound for bound, count in new.items() if count == new[float("inf")])


def test_the_largest_batch_is_changed_under_load_and_stays_so_after_a_restart(registry):
    hammers = 12
    with ServerProcess(registry) as server:
        tune(server, {"batching": {"max_batch_size": 8, "max_queue_delay_us": 20_000}})
        crowd = [Hammer(server) for _ in range(hammers)]
        for hammer in crowd:
            hammer.__enter__()
        assert 4 < largest_batch(server) <= 8
        assert tune(server, {"batching": {"max_batch_size": 4}})["batching.max_queue_delay_us"] == 20_000
        assert 2 < largest_batch(server) <= 4
        for hammer in crowd:
            hammer.__exit__()
        assert not [failure for hammer in crowd for failure in hammer.failures]
        assert server.log_path.read_text().count('"version_ready"') == 1
        assert server.log_path.read_text().count('"model_tuned"') == 2
    with ServerProcess(registry) as server:
        assert json.loads(server.get("/v2/models/linear/config")[1])["max_batch_size"] == 4
        assert tune(server, None, "DELETE")["batching.max_batch_size"] == 64
    with ServerProcess(registry) as server:
        assert json.loads(server.get("/v2/models/linear/config")[1])["max_batch_size"] == 64


def test_who_waits_by_a_delay_that_is_lowered_waits_no_longer(server):
    tune(server, {"batching": {"max_queue_delay_us": 60_000_000}})
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        answer = pool.submit(post, server, "linear", ROW)
        wait_for(lambda: b'batchmill_queue_rows{model="linear",version="1"} 1' in server.get("/metrics")[1])
        tune(server, {"batching": {"max_queue_delay_us": None}})
        assert answer.result(20)[0] == 200
        assert time.monotonic() - started < 20


def test_who_waits_by_a_larger_batch_than_may_be_waits_no_longer(server):
    tune(server, {"batching": {"max_queue_delay_us": 60_000_000}})
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(post, server, "linear", ROW) for _ in range(2)]
        wait_for(lambda: b'batchmill_queue_rows{model="linear",version="1"} 2' in server.get("/metrics")[1])
        tune(server, {"batching": {"max_batch_size": 2}})
        assert {answer.result(20)[0] for answer in answers} == {200}


def test_it_is_there_where_nothing_is_loaded_by_call(registry):
    with ServerProcess(registry, "--model-control", "none") as server:
        assert tune(server, {"queue": {"max_rows": 5}})["queue.max_rows"] == 5
        assert server.call(PATH, "PATCH", {"queue": {"max_row": 5}})[0] == 400


def test_calls_from_all_sides_leave_what_one_of_them_set(server):
    """Each sets two keys to the same number."""
    def work(number):
        for _ in range(20):
            tune(server, {"queue": {"max_rows": number, "max_wait_ms": number}})

    threads = [threading.Thread(target=work, args=[number]) for number in range(101, 105)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = tune(server, None, "GET")
    assert found["queue.max_rows"] == found["queue.max_wait_ms"] in range(101, 105)
    assert post(server, "linear", [tensor("x", "FP32", [1, 8], [1.0] * 8)])[0] == 200


# The command.
def run(server, *arguments):
    done = server.command("tune", *arguments)
    return done.returncode, done.stdout, done.stderr


def test_the_command_shows_sets_and_clears(server):
    lines = {line.split()[0]: line.split()[1:] for line in run(server, "linear")[1].splitlines()}
    assert lines["batching.max_batch_size"] == ["64", "default"]
    assert lines["slo.latency_ms"] == ["-", "default"]
    code, told, _ = run(server, "linear", "batching.max_batch_size=32", "instances.count=auto", "slo.latency_ms=20", "--json")
    found = json.loads(told)["tuning"]
    assert (code, found["batching.max_batch_size"], found["instances.count"]) == (0, {"value": 32, "from": "call"}, {"value": "auto", "from": "call"})
    found = json.loads(run(server, "linear", "--clear", "batching.max_batch_size", "--json")[1])["tuning"]
    assert (found["batching.max_batch_size"]["from"], found["slo.latency_ms"]) == ("default", {"value": 20.0, "from": "call"})
    assert run(server, "linear", "--clear")[0] == 0
    assert {one["from"] for one in json.loads(run(server, "linear", "--json")[1])["tuning"].values()} == {"default"}


@pytest.mark.parametrize(("arguments", "code", "text"), [
    (["nobody"], 1, "404: Request for unknown model 'nobody'"),
    (["linear", "batching.max_batch_sise=3"], 1, "400: batching.max_batch_sise: unknown key; did you mean 'batching.max_batch_size'?"),
    (["linear", "batching.max_batch_size"], 2, "'batching.max_batch_size' given, KEY=VALUE wanted"),
    (["linear", "run_timeout_ms=1", "--clear"], 2, "no KEY=VALUE beside it"),
    (["linear", "run_timeout_ms=1", "--admin-key-file", "/nowhere"], 2, "--admin-key-file: /nowhere: No such file"),
])
def test_the_command_says_what_is_wrong(unchanged, arguments, code, text):
    found, _, told = run(unchanged, *arguments)
    assert found == code
    assert text in told
    assert told.count("\n") == 1


def test_the_command_has_the_key(registry, tmp_path):
    (tmp_path / "key").write_text("a key of sixteen or more characters\n")
    with ServerProcess(registry, "--admin-key-file", str(tmp_path / "key")) as server:
        assert run(server, "linear")[0] == 0
        code, _, told = run(server, "linear", "run_timeout_ms=5")
        assert (code, told.startswith("batchmill: 401: ")) == (1, True)
        assert run(server, "linear", "run_timeout_ms=5", "--admin-key-file", str(tmp_path / "key"))[0] == 0
