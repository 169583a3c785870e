"""Edits of model.yaml while requests run: what needs no loading counts from the next batch on; what is wrong changes nothing."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from . import models
from .server import ServerProcess
from .test_behaviour import post, tensor
from .test_hot import ROW, Hammer, index, wait_for


@pytest.fixture
def server(registry):
    with ServerProcess(registry) as running:
        yield running


def settings_read(server, model):
    lines = server.log_path.read_text().splitlines()
    return sum('"model_settings"' in line and f'"{model}"' in line for line in lines)


def edit(server, registry, text, model="linear"):
    """Returns when the edit has been read."""
    known = settings_read(server, model)
    (registry / model / "model.yaml").write_text(text)
    wait_for(lambda: settings_read(server, model) > known)


def seconds(ask):
    started = time.monotonic()
    assert ask()[0] == 200
    return time.monotonic() - started


def loads(server):
    return server.log_path.read_text().count('"version_ready"')


def batch_sizes(server):
    (stats,) = json.loads(server.get("/v2/models/linear/stats")[1])["model_stats"]
    return {one["batch_size"] for one in stats["batch_stats"]}, stats["inference_stats"]["success"]["count"]


def test_batching_queue_and_instances_change_without_loading_the_version_anew(server, registry):
    with Hammer(server) as hammer:
        edit(server, registry, "batching: {max_batch_size: 4, max_queue_delay_us: 300000}\n")
        assert seconds(lambda: post(server, "linear", [tensor("x", "FP32", [4, 8], [1.0] * 32)])) < 0.29, "a full batch waits for nobody"
        assert json.loads(server.get("/v2/models/linear/config")[1])["max_batch_size"] == 4
        before = len(hammer.versions)
        time.sleep(1)
        assert len(hammer.versions) - before < 6, "one row waits for company"
        edit(server, registry, "batching: {max_batch_size: 64}\ninstances: {count: 2}\nqueue: {max_rows: 100}\nrun_timeout_ms: 1000\n")
        before = len(hammer.versions)
        wait_for(lambda: len(hammer.versions) - before > 20)
    assert not hammer.failures
    assert loads(server) == 1
    assert batch_sizes(server)[1] > len(hammer.versions), "the version's counters go on"


def test_a_full_queue_refuses_by_the_bound_that_was_set_last(server, registry):
    edit(server, registry, "batching: {max_queue_delay_us: 500000}\nqueue: {max_rows: 1}\n")
    with ThreadPoolExecutor(4) as pool:
        statuses = [status for status, _ in pool.map(lambda _: post(server, "linear", ROW), range(4))]
    assert sorted(statuses) == [200, 429, 429, 429]
    edit(server, registry, "batching: {max_queue_delay_us: 500000}\n")
    with ThreadPoolExecutor(4) as pool:
        assert {status for status, _ in pool.map(lambda _: post(server, "linear", ROW), range(4))} == {200}
    assert loads(server) == 1


@pytest.mark.alone
def test_times_that_change_count_for_the_next_request_and_run(server, registry):
    models.endless(registry)

    def count_to(number):
        return post(server, "endless", [tensor("n", "INT64", [], [number]), tensor("x", "INT64", [1], [5])])

    wait_for(lambda: count_to(10)[0] == 200)
    edit(server, registry, "run_timeout_ms: 200\n", "endless")
    assert count_to(2**40)[0] == 504
    edit(server, registry, "batching: {max_queue_delay_us: 500000}\nqueue: {default_timeout_us: 100000}\n")
    before = time.monotonic()
    assert post(server, "linear", ROW)[0] == 200     # it is run before it is too late
    assert 0.09 < time.monotonic() - before < 0.4
    assert loads(server) == 2


@pytest.mark.parametrize("rows", [40, 1000, 1024])
def test_batches_are_counted_by_their_rows_whatever_the_largest_was_before(server, registry, rows):
    edit(server, registry, "batching: {max_batch_size: 2}\n")
    post(server, "linear", ROW)
    edit(server, registry, "batching: {max_batch_size: 2048}\n")
    for count in (rows, 1500):
        assert post(server, "linear", [tensor("x", "FP32", [count, 8], [1.0] * count * 8)])[0] == 200
    assert batch_sizes(server)[0] == {1, rows, 1024}


def test_what_needs_loading_is_loaded_anew_beside_what_serves(server, registry):
    with Hammer(server) as hammer:
        edit(server, registry, "batching: {mode: 'off'}\n")
        wait_for(lambda: json.loads(server.get("/v2/models/linear/config")[1])["max_batch_size"] == 0)
    assert not hammer.failures
    assert loads(server) == 2


def test_an_edit_that_is_wrong_keeps_the_settings_and_shows_its_problem(server, registry):
    edit(server, registry, "batching: {max_batch_size: 4}\n")
    with Hammer(server) as hammer:
        (registry / "linear" / "model.yaml").write_text("batching:\n  max_batch_siz: 8\n")
        wait_for(lambda: "did you mean 'max_batch_size'" in index(server)["linear", "1"]["reason"])
        assert "model.yaml:2" in index(server)["linear", "1"]["reason"]
        assert index(server)["linear", "1"]["state"] == "READY"
        assert json.loads(server.get("/v2/models/linear/config")[1])["max_batch_size"] == 4
        edit(server, registry, "batching:\n  max_batch_size: 8\n")
        wait_for(lambda: not index(server)["linear", "1"]["reason"])
        assert json.loads(server.get("/v2/models/linear/config")[1])["max_batch_size"] == 8
    assert not hammer.failures
    assert loads(server) == 1


def test_an_edit_while_a_version_loads_is_not_lost(registry):
    """The first load takes its time; the edit comes meanwhile."""
    models.slow(registry)
    with ServerProcess(registry) as server:
        for mode, wanted in (("off", 0), ("auto", 7)):
            (registry / "slow" / "model.yaml").write_text(f"batching: {{mode: '{mode}'}}\n")
            time.sleep(0.7)
            (registry / "slow" / "model.yaml").write_text(f"batching: {{mode: '{mode}', max_batch_size: 7}}\n")
            wait_for(lambda: json.loads(server.get("/v2/models/slow/config")[1])["max_batch_size"] == wanted, 20)  # noqa: B023


def test_tritons_config_is_followed_until_a_model_yaml_comes(server, registry):
    config = registry / "linear" / "config.pbtxt"

    def largest():
        return json.loads(server.get("/v2/models/linear/config")[1])["max_batch_size"]

    with Hammer(server) as hammer:
        config.write_text('name: "linear"\nmax_batch_size: 5\ndynamic_batchin { }\n')
        wait_for(lambda: largest() == 5)
        assert "config.pbtxt:3:1: dynamic_batchin: unknown field; did you mean 'dynamic_batching'?" in server.log_path.read_text()
        config.write_text('name: "other"\nmax_batch_size: 6\n')
        wait_for(lambda: "config.pbtxt:1:1: name: 'other' given, 'linear' wanted" in index(server)["linear", "1"]["reason"])
        assert largest() == 5
        edit(server, registry, "batching: {max_batch_size: 7}\n")
        assert largest() == 7
    assert not hammer.failures
    assert loads(server) == 1


def test_a_policy_that_names_no_version_that_is_there_leaves_the_one_in_service(server, registry):
    with Hammer(server) as hammer:
        edit(server, registry, "versions: {policy: [7]}\n")
        wait_for(lambda: "wants none of the versions that are there: 1; version 1 serves on" in index(server)["linear", "1"]["reason"])
        assert index(server)["linear", "1"]["state"] == "READY"
        models.linear(registry, "linear", "7", 7.0)
        wait_for(lambda: index(server).get(("linear", "7"), {}).get("state") == "READY" and ("linear", "1") not in index(server))
    assert not hammer.failures
    events = [json.loads(line) for line in server.log_path.read_text().splitlines()]
    told = {event["event"]: event for event in events}
    assert told["model_note"]["note"] == "versions.policy names 7, which is not there"
    assert told["model_failed"]["reason"].endswith("version 1 serves on")
    assert (told["version_swapped"]["before"], told["version_swapped"]["version"]) == ("1", "7")


def test_an_edit_that_is_refused_is_told_apart_from_a_model_that_does_not_serve(server, registry):
    (registry / "linear" / "model.yaml").write_text("batchin: 1\n")
    wait_for(lambda: "the edit was refused" in index(server)["linear", "1"]["reason"])
    assert index(server)["linear", "1"]["state"] == "READY"
    log = server.log_path.read_text()
    assert '"settings_refused"' in log
    assert '"model_failed"' not in log
