"""What check, models and top print; tests/e2e has them against a running server."""

import json
import os

import pytest

from batchmill import check, listing, top
from batchmill.registry.layout import ModelFolder
from batchmill.registry.probe import Finding
from batchmill.registry.prove import Proof

READY = {"model": "m", "version": "2", "state": "ready", "reason": "", "default": True, "labels": ["stable"], "max_batch_size": 64,
         "instances": 2, "threads": 1, "memory_bytes": 1_234_567, "sha256": "ab" * 32}
FAILED = {**READY, "version": "3", "state": "failed", "reason": "golden: no", "default": False, "labels": [], "max_batch_size": 0, "instances": 0, "memory_bytes": 0, "sha256": ""}
NONE = {"model": "n", "version": "", "state": "none", "reason": "model.yaml:1:1: no"}


def test_models_are_listed_with_state_traffic_memory_hash_and_reason():
    lines = [line.split() for line in listing.shown([READY, FAILED, NONE]).splitlines()]
    assert lines == [["MODEL", "VERSION", "STATE", "TRAFFIC", "BATCH", "RUNS", "MEMORY", "SHA256", "REASON"],
                     ["m", "2", "ready", "default,stable", "64", "2x1", "1.23", "MB", "abababababab"],
                     ["m", "3", "failed", "-", "-", "-", "-", "-", "golden:", "no"], ["n", "-", "none", "-", "-", "-", "-", "-", "model.yaml:1:1:", "no"]]


@pytest.mark.parametrize(("size", "wanted"), [(0, "-"), (999, "999 B"), (12_345, "12.3 KB"), (90_000_000, "90 MB"), (3_000_000_000, "3 GB"), (5e12, "5e+03 GB")])
def test_sizes_are_short(size, wanted):
    assert listing.memory(size) == wanted


def test_top_shows_the_busiest_first_and_what_fits():
    stage = {"count": 3, "p50_us": 8.5, "p90_us": 900.0, "p99_us": 1500.0, "p99.9_us": 2_000_000.0}
    rows = [{"model": name, "version": "1", "waiting": 4, "seconds": 10.0, "ok": 3, "failed": 1, "requests_per_second": rate, "rows_per_batch": 2.0,
             "stages": {"total": stage, "queue": stage, "compute": stage} if rate > 1 else {}} for name, rate in (("idle", 0.1), ("busy", 1234.5), ("some", 7.0))]
    lines = top.shown({"window": "10s", "versions": rows}, "http://x", os.terminal_size((200, 6))).splitlines()
    assert "1,241.6 requests/s" in lines[0]
    assert [line.split()[0] for line in lines[3:]] == ["busy", "some"]
    assert lines[3].split() == ["busy", "1", "1,234.5", "1", "2.0", "4", "8.5", "µs", "1.5", "ms", "2", "s", "1.5", "ms", "1.5", "ms"]
    assert top.shown({"window": "10s", "versions": rows}, "http://x").splitlines()[-1].split()[6:] == ["-"] * 5
    narrow = top.shown({"window": "10s", "versions": rows}, "http://x", os.terminal_size((70, 6))).splitlines()
    assert narrow[2].split() == ["MODEL", "VERSION", "REQ/S", "FAILED", "ROWS/BATCH", "WAITING", "P50", "P99"]
    assert max(map(len, top.shown({"window": "10s", "versions": rows}, "http://x", os.terminal_size((30, 6))).splitlines())) == 30


class FakeProbe:
    """Versions named in it are broken."""

    def __init__(self, *broken):
        self.broken = {str(number) for number in broken}

    def examine(self, name, number, path, settings):
        return Finding("truncated") if number in self.broken else Finding(proof=Proof(True, "proved"))


def lines_of(tmp_path, text, probe, versions=(1, 2, 3)):
    (tmp_path / "model.yaml").write_text(text)
    folder = ModelFolder("m", tmp_path, {number: tmp_path / str(number) / "model.onnx" for number in versions})
    return [(line.version, line.state, line.text) for line in check.checked(folder, probe)]


FINE = "batches of up to 64 rows: proved"


@pytest.mark.parametrize(("text", "broken", "wanted"), [
    ("", (), [("3", "ready", FINE)]),
    ("", (3,), [("2", "ready", FINE), ("3", "failed", "truncated")]),
    ("", (1, 2, 3), [("1", "failed", "truncated"), ("2", "failed", "truncated"), ("3", "failed", "truncated")]),
    ("versions: {policy: all}", (2,), [("1", "ready", FINE), ("2", "failed", "truncated"), ("3", "ready", FINE)]),
    ("labels: {stable: 1}", (), [("1", "ready", FINE), ("3", "ready", FINE)]),
    ("batching: {max_batch_size: 8}", (), [("3", "ready", "batches of up to 8 rows: proved")]),
])
def test_check_tries_what_the_server_would_serve(tmp_path, text, broken, wanted):
    assert lines_of(tmp_path, text, FakeProbe(*broken)) == wanted


def test_check_notes_a_version_of_the_policy_that_is_not_there(tmp_path):
    lines = lines_of(tmp_path, "versions: {policy: [2, 7]}", FakeProbe())
    assert lines[0] == ("", "note", "versions.policy names 7, which is not there")
    assert lines[1][:2] == ("2", "ready")


def test_check_tells_what_is_wrong_without_a_version(tmp_path):
    assert lines_of(tmp_path, "batchin: 1", FakeProbe())[0][:2] == ("", "failed")
    assert lines_of(tmp_path, "", FakeProbe(), ()) == [("", "failed", "no version folder with a model.onnx")]
    assert lines_of(tmp_path, "versions: {policy: [7]}", FakeProbe())[-1][2] == "versions.policy wants none of the versions that are there: 1, 2, 3"
    assert lines_of(tmp_path, "labels: {canary: 9}", FakeProbe())[0] == ("", "note", "model.yaml: label 'canary' names version 9, which is not there")


def test_check_fails_when_something_would_not_be_served(tmp_path, capsys):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(b"junk")
    assert check.run(tmp_path, 60.0, True) == 1
    assert json.loads(capsys.readouterr().out)[0]["state"] == "failed"
    (tmp_path / "m" / "1" / "model.onnx").unlink()
    (tmp_path / "m" / "1").rmdir()
    (tmp_path / "m").rmdir()
    assert check.run(tmp_path, 60.0, False) == 0
    assert "no models" in capsys.readouterr().out
