"""What is done to a running server is in its audit trail, after a restart too; what is done to the trail is found."""

from __future__ import annotations

import hashlib
import json
import signal
import sqlite3
import subprocess
import sys

import pytest

from batchmill.chain import Head, last_line, verified_export

from . import models
from .server import ServerProcess
from .test_hot import call, serves, wait_for
from .test_tuning import tune


@pytest.fixture
def registry(tmp_path):
    models.linear(tmp_path / "registry", "linear", "1", 1.0)
    (tmp_path / "registry" / "linear" / "model.yaml").write_text("lineage: {git_commit: 4f2a, note: first}\n")
    return tmp_path / "registry"


def trail(server, query=""):
    """Oldest first."""
    return json.loads(server.get(f"/admin/audit?limit=1000{query}")[1])["entries"][::-1]


def told(entries):
    return [(one["action"], one["version"], one["actor"].partition(":")[0], one["outcome"]) for one in entries]


def verdict(server, query=""):
    return json.loads(server.get(f"/admin/audit/verify{query}")[1])


def ready(server, count=1):
    """Once the files of so many loads have been hashed."""
    wait_for(lambda: len(trail(server, "&action=version.ready")) >= count)


def batchmill(*arguments):
    return subprocess.run([sys.executable, "-m", "batchmill", "audit", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_happens_to_models_is_recorded_and_is_there_after_a_restart(registry):
    with ServerProcess(registry) as server:
        ready(server)
        tune(server, {"batching": {"max_batch_size": 8}})
        assert call(server, "linear/unload")[0] == 200
        assert call(server, "linear/load")[0] == 200
        ready(server, 2)
        models.linear(registry, "linear", "2", 2.0)
        wait_for(serves(server, "2"))
        ready(server, 3)
        (registry / "linear" / "3").mkdir()
        (registry / "linear" / "3" / "model.onnx").write_bytes(b"no model")
        wait_for(lambda: trail(server, "&action=version.failed"))
        first = trail(server)
        head = verdict(server)["head"]
    assert sorted(told(first)) == sorted([
        ("audit.began", "", "start", "ok"), ("server.started", "", "start", "ok"), ("version.ready", "1", "start", "ok"), ("traffic.moved", "1", "start", "ok"),
        ("tuning.set", "", "ipv4", "ok"),
        ("model.unload", "", "ipv4", "ok"), ("traffic.moved", "", "registry", "ok"), ("version.unloaded", "1", "registry", "ok"),
        ("model.load", "", "ipv4", "ok"), ("version.ready", "1", "registry", "ok"), ("traffic.moved", "1", "registry", "ok"),
        ("version.ready", "2", "registry", "ok"), ("traffic.moved", "2", "registry", "ok"), ("version.unloaded", "1", "registry", "ok"),
        ("version.failed", "3", "registry", "failed"),
    ])
    found = {(one["action"], one["version"]): one for one in first}
    assert found["tuning.set", ""]["after"] == {"batching.max_batch_size": 8}
    assert found["version.ready", "2"]["files"] == {"2/model.onnx": digest(registry / "linear" / "2" / "model.onnx")}
    assert found["version.ready", "2"]["after"]["lineage"] == {"git_commit": "4f2a", "note": "first"}
    assert found["traffic.moved", "2"]["before"] == {"version": "1"}
    assert found["version.failed", "3"]["reason"]
    with ServerProcess(registry) as server:
        ready(server, 4)
        assert trail(server)[: len(first) + 2] == [*first, *trail(server, f"&before={len(first) + 3}")[-2:]]
        assert told(trail(server))[len(first) : len(first) + 2] == [("server.stopped", "", "signal", "ok"), ("server.started", "", "start", "ok")]
        answer = verdict(server, f"?head={head['seq']}:{head['hash']}")
        assert answer["broken"] is None
        assert answer["head"]["seq"] > head["seq"]
        rows = json.loads(server.get("/admin/models")[1])["models"]
        assert {row["version"]: row["lineage"] for row in rows}["2"] == {"git_commit": "4f2a", "note": "first"}


def test_calls_that_are_not_let_in_are_recorded_without_the_key(registry, tmp_path):
    key = "a secret of some length"
    (tmp_path / "key").write_text(key)
    with ServerProcess(registry, "--admin-key-file", str(tmp_path / "key")) as server:
        assert call(server, "linear/unload")[0] == 401
        assert call(server, "linear/unload", [("Authorization", f"Bearer {key}x")])[0] == 401
        assert call(server, "linear/unload", [("Authorization", f"Bearer {key}")])[0] == 200
        found = trail(server, "&action=model.unload")
        assert [(one["outcome"], one["key"]) for one in found] == [("refused", False), ("refused", False), ("ok", True)]
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: trail(server, "&action=server.reloaded"))
        assert key not in json.dumps(trail(server))


def test_a_server_that_is_killed_leaves_a_trail_with_all_that_was_answered(registry):
    answered = []
    for number in range(4):
        with ServerProcess(registry) as server:
            ready(server)
            for size in (8, 16, 32):
                tune(server, {"batching": {"max_batch_size": size + number}})
                answered.append(size + number)
            server.stop(signal.SIGKILL)
    with ServerProcess(registry) as server:
        sizes = [one["after"]["batching.max_batch_size"] for one in trail(server, "&action=tuning.set")]
        assert sizes == answered
        assert verdict(server)["broken"] is None
        assert [one["action"] for one in trail(server, "&action=server")] == ["server.started"] * 5


def test_a_trail_that_is_tampered_with_is_found_at_the_start_and_by_who_asks(registry, tmp_path):
    with ServerProcess(registry) as server:
        ready(server)
        tune(server, {"batching": {"max_batch_size": 8}})
        (seq,) = (one["seq"] for one in trail(server, "&action=tuning.set"))
        assert batchmill("--url", server.url, "--verify").stdout.startswith("whole: ")
    with sqlite3.connect(tmp_path / "state" / "state.db") as file:
        file.executescript(f"DROP TRIGGER audit_update; UPDATE audit SET actor = 'ipv4:6.6.6.6:6' WHERE seq = {seq}")
    file.close()
    with ServerProcess(registry) as server:
        wait_for(lambda: '"audit_broken"' in server.log_path.read_text())
        done = batchmill("--url", server.url, "--verify")
        assert done.returncode == 1
        assert f"broken at entry {seq}: " in done.stdout
        assert f"entry {seq} is not as it was written" in batchmill("--url", server.url).stderr
        assert json.loads(batchmill("--url", server.url, "--verify", "--json").stdout)["broken"] == seq
        assert serves(server, "1")()


def test_the_command_shows_filters_exports_and_verifies(registry, tmp_path):
    with ServerProcess(registry) as server:
        ready(server)
        for size in (8, 16):
            tune(server, {"batching": {"max_batch_size": size}})
        lines = batchmill("--url", server.url, "--model", "linear", "--action", "tuning", "--since", "1h").stdout.splitlines()
        assert lines[0].split() == ["SEQ", "AT", "ACTOR", "ACTION", "MODEL", "VERSION", "OUTCOME", "CHANGE", "REASON"]
        assert [line.split()[3:5] for line in lines[1:]] == [["tuning.set", "linear"]] * 2
        assert lines[2].endswith(" batching.max_batch_size: 8 -> 16")
        assert json.loads(batchmill("--url", server.url, "--limit", 1, "--json").stdout)["entries"][0]["action"] == "tuning.set"
        copy = tmp_path / "audit.jsonl"
        done = batchmill("--url", server.url, "--export", copy)
        assert (done.returncode, done.stdout.split(":")[0]) == (0, "whole")
        assert batchmill("--url", server.url, "--export", "-").stdout == copy.read_text()
        head = Head(**verdict(server)["head"])
        assert verified_export(copy.read_bytes().splitlines(keepends=True), head).broken is None
        for wrong in (["--verify", "--limit", "1"], ["--head", "1:x"], ["--verify", "--head", "1:x"], ["--verify", tmp_path / "nothing"]):
            assert batchmill("--url", server.url, *wrong).returncode == 2
    noted = f"{head.seq}:{head.hash}"
    assert batchmill("--verify", copy, "--head", noted).returncode == 0
    copy.write_text("".join(copy.read_text().splitlines(keepends=True)[:-2]))
    assert batchmill("--verify", copy).returncode == 1
    copy.write_text(copy.read_text() + last_line(Head(head.seq - 1, json.loads(copy.read_text().splitlines()[-1])["hash"])))
    assert batchmill("--verify", copy).returncode == 0
    assert batchmill("--verify", copy, "--head", noted).returncode == 1
    assert batchmill("--url", server.url).returncode == 3


def test_a_server_that_cannot_keep_its_trail_says_so_and_serves(registry, tmp_path):
    with ServerProcess(registry, "--state-dir", "/proc/state") as server:
        ready(server)
        answer = json.loads(server.get("/admin/audit")[1])
        assert (answer["state"]["kept"], answer["state"]["problem"]) == ("memory", "there is no state folder")
        assert "in memory alone" in batchmill("--url", server.url).stderr
        assert '"audit_not_kept"' in server.log_path.read_text()
        assert call(server, "linear/unload")[0] == 200
        assert verdict(server)["broken"] is None
