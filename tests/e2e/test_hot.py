"""Models come, change and go while requests run: nothing is lost, and what is broken touches nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
import urllib.error

import numpy as np
import pytest

from . import models
from .server import ServerProcess
from .test_behaviour import post, slow_request, tensor

ROW = [tensor("x", "FP32", [1, 8], [1.0] * 8)]
FIRST = float(np.arange(0, 32, 4).sum() / 10)  # of the row above, times the version's factor
PAUSE_SECS = 0.003


class Hammer:
    """Asks all the time, with pauses that leave others some of the core; every answer must be well and be that of the version it names: the factor
    is the version's number."""

    def __init__(self, server):
        self.server, self.failures, self.versions, self.stopped = server, [], [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stopped.is_set():
            status, answer = post(self.server, "linear", ROW)
            if status != 200 or abs(answer["outputs"][0]["data"][0] - FIRST * float(answer["model_version"])) > 1e-3:
                self.failures.append((status, answer))
            else:
                self.versions.append(answer["model_version"])
            self.stopped.wait(PAUSE_SECS)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()


@pytest.fixture
def server(registry):
    with ServerProcess(registry) as running:
        yield running


def made(tmp_path, version):
    """The bytes of a version's file, not in the registry."""
    return models.linear(tmp_path / "made", "linear", version, float(version)).read_bytes()


def wait_for(wanted, seconds=20.0):
    """How long it took, s."""
    started = time.monotonic()
    while time.monotonic() < started + seconds:
        with contextlib.suppress(OSError):
            if wanted():
                return time.monotonic() - started
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s")


def serves(server, version):
    def look():
        status, answer = post(server, "linear", ROW)
        return status == 200 and answer["model_version"] == version

    return look


def index(server):
    return {(one["name"], one["version"]): one for one in server.call("/v2/repository/index", "POST")[1]}


def by_rename(content, folder):
    aside = folder.parent / f".{folder.name}.tmp"
    aside.mkdir()
    (aside / "model.onnx").write_bytes(content)
    aside.rename(folder)


def in_place(content, folder):
    folder.mkdir()
    (folder / "model.onnx").write_bytes(content)


def in_slow_pieces(content, folder):
    folder.mkdir()
    with (folder / "model.onnx").open("wb") as file:
        for at in range(0, len(content), len(content) // 8 or 1):
            file.write(content[at : at + (len(content) // 8 or 1)])
            file.flush()
            time.sleep(0.1)


def stalled(content, folder):
    folder.mkdir()
    with (folder / "model.onnx").open("wb") as file:
        file.write(content[:100])
        file.flush()
        time.sleep(1.5)
        file.write(content[100:])


def preallocated(content, folder):
    folder.mkdir()
    with (folder / "model.onnx").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, len(content))
        time.sleep(1.5)
        file.write(content)


@pytest.mark.alone
@pytest.mark.parametrize("publish", [by_rename, in_place, in_slow_pieces, stalled, preallocated])
def test_a_new_version_serves_soon_after_it_is_complete_and_never_half(server, registry, tmp_path, publish):
    content = made(tmp_path, "2")
    with Hammer(server) as hammer:
        publish(content, registry / "linear" / "2")
        took = wait_for(serves(server, "2"))
    assert not hammer.failures
    assert took < 2
    assert "FAILED" not in server.log_path.read_text()
    assert "version_failed" not in server.log_path.read_text()


@pytest.mark.alone
def test_a_new_version_by_rename_serves_within_a_second(server, registry, tmp_path):
    content = made(tmp_path, "2")
    by_rename(content, registry / "linear" / "2")
    assert wait_for(serves(server, "2")) < 1.5


@pytest.mark.parametrize("spoilt", [lambda whole: b"", lambda whole: b"random bytes", lambda whole: whole[:-30], lambda whole: whole.replace(b"MatMul", b"NatMul")],
                         ids=["empty", "random", "cut", "unknown operator"])
def test_a_broken_newest_version_leaves_the_old_one_and_is_repaired_in_place(server, registry, tmp_path, spoilt):
    whole = made(tmp_path, "2")
    with Hammer(server) as hammer:
        in_place(spoilt(whole), registry / "linear" / "2")
        wait_for(lambda: index(server).get(("linear", "2"), {}).get("state") == "UNAVAILABLE")
        assert index(server)["linear", "2"]["reason"]
        assert index(server)["linear", "1"]["state"] == "READY"
        (registry / "linear" / "2" / "model.onnx").write_bytes(whole)
        wait_for(serves(server, "2"))
    assert not hammer.failures
    assert server.log_path.read_text().count("version_failed") == 1


def test_a_served_file_may_be_overwritten_replaced_and_cut(server, registry, tmp_path):
    """Version 1 answers with its own factor until its folder holds another whole model, which is then loaded under its number."""
    file = registry / "linear" / "1" / "model.onnx"
    whole = file.read_bytes()
    with Hammer(server) as hammer:
        file.write_bytes(b"x" * len(whole))
        wait_for(lambda: "refused" in index(server)["linear", "1"]["reason"])
        assert index(server)["linear", "1"]["state"] == "READY"
        os.truncate(file, 10)
        time.sleep(1)
        file.write_bytes(whole)
        wait_for(lambda: not index(server)["linear", "1"]["reason"])
    assert not hammer.failures


@pytest.mark.parametrize("spoil", [lambda file: os.truncate(file, 0), lambda file: file.write_bytes(bytes(100)), lambda file: file.unlink()],
                         ids=["cut", "overwritten", "removed"])
def test_external_weights_of_a_served_version_may_be_spoiled(server, registry, spoil):
    weights = models.external(registry).parent / "weights.bin"
    row = [tensor("x", "FP32", [1, 1024], [1.0] * 1024)]
    wait_for(lambda: post(server, "external", row)[0] == 200)
    spoil(weights)
    wait_for(lambda: "refused" in index(server)["external", "1"]["reason"])
    assert post(server, "external", row)[1]["outputs"][0]["data"] == [1024.0] * 1024


def test_a_removed_version_ends_and_the_one_before_it_serves(server, registry, tmp_path):
    in_place(made(tmp_path, "2"), registry / "linear" / "2")
    wait_for(serves(server, "2"))
    shutil.rmtree(registry / "linear" / "2")
    wait_for(serves(server, "1"))
    assert ("linear", "2") not in index(server)


def test_a_version_folder_that_is_a_link_is_published_by_swapping_the_link(server, registry, tmp_path):
    """As Kubernetes and deployment scripts do."""
    store = registry / ".store"
    store.mkdir()
    for number in "23":
        in_place(made(tmp_path, number), store / number)
    (registry / "linear" / "2").symlink_to("../.store/2")
    wait_for(serves(server, "2"))
    factor = lambda: post(server, "linear", ROW)[1]["outputs"][0]["data"][0] / FIRST  # noqa: E731
    assert factor() == pytest.approx(2.0)
    (registry / "linear" / "new").symlink_to("../.store/3")
    (registry / "linear" / "new").rename(registry / "linear" / "2")
    wait_for(lambda: factor() == pytest.approx(3.0))


def test_requests_of_a_removed_version_are_answered_and_later_ones_are_not_found(server, registry):
    models.slow(registry, 8000)
    (registry / "slow" / "model.yaml").write_text("batching: {mode: 'off'}\n")
    wait_for(lambda: server.get("/v2/models/slow/ready")[0] == 200)
    answers = []
    asking = [threading.Thread(target=lambda: answers.append(slow_request(server))) for _ in range(2)]
    for thread in asking:
        thread.start()
    wait_for(lambda: 'batchmill_version_in_flight_requests{model="slow",version="1"} 2' in server.get("/metrics")[1].decode())
    shutil.rmtree(registry / "slow")
    wait_for(lambda: server.get("/v2/models/slow/ready")[0] == 404)
    assert not answers, "the requests ended before the version was removed"
    for thread in asking:
        thread.join()
    assert answers == [answers[0]] * 2
    with pytest.raises(urllib.error.HTTPError, match="404"):
        slow_request(server)


def test_a_model_comes_and_goes(server, registry):
    models.lookup(registry)
    wait_for(lambda: post(server, "lookup", [tensor("i", "INT64", [1], [3])])[0] == 200)
    shutil.rmtree(registry / "lookup")
    wait_for(lambda: post(server, "lookup", [tensor("i", "INT64", [1], [3])])[0] == 404)
    wait_for(lambda: server.get("/v2/models/lookup")[0] == 404, 2)  # the data plane knows first


def test_a_registry_that_vanishes_unloads_nothing(registry, tmp_path):
    with ServerProcess(registry, "--poll-secs", "0.5") as server:
        with Hammer(server) as hammer:
            registry.rename(tmp_path / "away")
            wait_for(lambda: "registry_vanished" in server.log_path.read_text())
            (tmp_path / "away").rename(registry)
            in_place(made(tmp_path, "2"), registry / "linear" / "2")
            wait_for(serves(server, "2"))
        assert not hammer.failures


def test_settings_that_change_take_effect(server, registry):
    (registry / "linear" / "model.yaml").write_text("batching: {max_batch_size: 3}\n")
    wait_for(lambda: json.loads(server.get("/v2/models/linear/config")[1])["max_batch_size"] == 3)
    (registry / "linear" / "model.yaml").write_text("batchin: {max_batch_size: 3}\n")
    wait_for(lambda: "did you mean 'batching'" in server.log_path.read_text())
    assert post(server, "linear", ROW)[0] == 200


def test_what_is_let_go_is_freed(server, registry, tmp_path):
    with Hammer(server) as hammer:
        for number in range(2, 6):
            in_place(made(tmp_path, str(number)), registry / "linear" / str(number))
            wait_for(serves(server, str(number)))
        wait_for(lambda: server.log_path.read_text().count("version_retired") == 4)
    assert not hammer.failures
    assert hammer.versions == sorted(hammer.versions), "an answer of a version that was no more"


def call(server, what, headers=()):
    """The status and body of a repository call."""
    status, _, body = server.ask(f"/v2/repository/models/{what}", "POST", b"", dict(headers))
    return status, body.decode()


def test_a_model_is_unloaded_and_loaded_by_call(server, registry, tmp_path):
    assert call(server, "linear/unload") == (200, "{}")
    assert post(server, "linear", ROW)[0] in (404, 503)
    assert index(server)["linear", ""]["reason"] == "unloaded by a call"
    assert call(server, "linear/load") == (200, "{}")
    assert post(server, "linear", ROW)[0] == 200
    call(server, "linear/unload")
    in_place(made(tmp_path, "2"), registry / "linear" / "2")  # a change in the folder ends it too
    wait_for(serves(server, "2"))


def test_a_load_call_says_why_it_failed_and_strangers_may_not_call(server, registry):
    in_place(b"random", registry / "linear" / "2")
    status, text = call(server, "linear/load")
    assert (status, "version 2" in text) == (400, True), text
    assert call(server, "nobody/load")[0] == 404
    assert call(server, "linear/unload", {"Origin": "http://evil.example"}.items())[0] == 403
    assert call(server, "linear/unload", {"Host": "evil.example"}.items())[0] == 403
    assert post(server, "linear", ROW)[0] == 200


def test_without_model_control_nothing_changes_after_the_start(registry, tmp_path):
    with ServerProcess(registry, "--model-control", "none", "--poll-secs", "0.1") as server:
        in_place(made(tmp_path, "2"), registry / "linear" / "2")
        for what in ("linear/load", "linear/unload"):
            status, text = call(server, what)
            assert (status, "--model-control none" in text) == (501, True)
        time.sleep(1)
        assert index(server).keys() == {("linear", "1")}


def test_by_call_alone_nothing_is_loaded_until_asked_for_and_the_server_is_ready_all_the_same(registry, tmp_path):
    models.lookup(registry)
    with ServerProcess(registry, "--model-control", "explicit", "--load-model", "linear", "--strict-readiness") as server:
        assert post(server, "linear", ROW)[0] == 200
        assert index(server)["lookup", ""]["reason"] == "not loaded: --model-control explicit waits for a load call"
        in_place(made(tmp_path, "2"), registry / "linear" / "2")
        assert call(server, "lookup/load") == (200, "{}")
        assert post(server, "lookup", [tensor("i", "INT64", [1], [3])])[0] == 200
        assert serves(server, "1")()
        assert call(server, "linear/load") == (200, "{}")
        assert serves(server, "2")()
