"""What is learned of a version is there again when the same files are loaded by the same runtime."""

import pytest

from batchmill.core import ort
from batchmill.core.router import Version
from batchmill.registry import learned as module
from batchmill.registry.learned import Learned, differ, processor
from batchmill.registry.parallel import Measured, Threads
from batchmill.registry.status import VersionStatus
from batchmill.store import RUNS, Store
from e2e import models

CURVES = [(0, [1e6, 2e6, 3.5e6, *[0.0] * 13], 0.125)]
STAMP = (("/m/1/model.onnx", 100, 5, 6, 7),)


@pytest.fixture
def model(tmp_path):
    ort.initialise()
    return ort.Model(str(models.linear(tmp_path)))


def status_of(model, stamp=STAMP, **options):
    return VersionStatus("1", "READY", served=Version("m", "1", model, batched=True, fast_ok=True), stamp=stamp, **options)


def recalled(store, status, cores=2):
    Learned(store, cores).recall("m", status)
    return status.served.learned()


def keep(store, status, curves=CURVES):
    status.served.recall(curves)
    status.kept_at = -1  # as if it had answered
    Learned(store, 2).keep("m", status)


def test_run_times_come_back_as_they_were(model):
    store = Store()
    keep(store, status_of(model))
    assert recalled(store, status_of(model)) == CURVES


@pytest.mark.parametrize("other", [
    {"stamp": (("/m/1/model.onnx", 100, 6, 6, 7),)}, {"stamp": (("/m/1/model.onnx", 101, 5, 6, 7),)}, {"threads": Threads(2)}], ids=str)  # fmt: skip
def test_other_files_or_threads_have_none(model, other):
    store = Store()
    keep(store, status_of(model))
    assert recalled(store, status_of(model, **other)) == []


def test_files_mounted_anew_are_the_same(model):
    store = Store()
    keep(store, status_of(model))
    assert recalled(store, status_of(model, (("/m/1/model.onnx", 100, 5, 60, 70),))) == CURVES


def test_another_processor_has_none(model, monkeypatch):
    store = Store()
    keep(store, status_of(model))
    monkeypatch.setattr(module, "processor", lambda: "another")
    assert recalled(store, status_of(model)) == []


@pytest.mark.parametrize("broken", [
    [[0, [], 0.1]], [[0, [0, 0], 0.1]], [[-1, [1e6], 0.1]], [[192, [1e6], 0.1]], [[0, [-5.0], 0.1]], [[0, [float("nan")], 0.1]], [[0, [1e6] * 17, 0.1]],
    [[0, [1e6], -1]], [[0, ["x"], 0.1]], [[0]], 7, "text", {"a": 1}], ids=str)  # fmt: skip
def test_what_cannot_have_been_learned_is_told_and_done_without(model, broken, caplog):
    store = Store()
    keep(store, status_of(model))
    (key,) = store.all(RUNS)
    store.put(RUNS, key, broken)
    assert recalled(store, status_of(model)) == []
    assert [record.getMessage() for record in caplog.records] == ["run_times_refused"]


def test_only_versions_that_have_answered_since_are_looked_at(model):
    store, status = Store(), status_of(model)
    status.served.recall(CURVES)
    Learned(store, 2).keep("m", status)
    assert store.all(RUNS) == {}


@pytest.mark.parametrize(("fresh", "kept", "wanted"), [
    ([[0, [100, 200], 0.1]], None, True), ([[0, [100, 200], 0.1]], [[0, [100, 200], 0.5]], False), ([[0, [100, 200], 0.1]], [[0, [100, 191], 0.1]], False),
    ([[0, [100, 200], 0.1]], [[0, [100, 189], 0.1]], True), ([[0, [100], 0.1], [8, [7], 0.1]], [[0, [100], 0.1]], True), ([], None, False),
])  # fmt: skip
def test_small_changes_are_not_worth_a_write(fresh, kept, wanted):
    assert differ(fresh, kept) == wanted


def test_what_was_measured_comes_back_for_as_many_cores():
    store, measured = Store(), [Measured(1, 4e7, 50.0, 2e7, 49.0)]
    Learned(store, 2).keep_measured("m/1 abc 2", measured)
    assert Learned(store, 2).measured("m/1 abc 2") == measured
    assert Learned(store, 4).measured("m/1 abc 2") is None
    (key,) = store.all(RUNS)
    for broken in (7, [7], [{"rows": 1}], {}):
        store.put(RUNS, key, broken)
        assert not Learned(store, 2).measured("m/1 abc 2")


@pytest.mark.parametrize(("text", "wanted"), [
    ("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: Other\n", "Some CPU @ 2 GHz"), ("processor\t: 0\nBogoMIPS\t: 50\n\n", None)])  # fmt: skip
def test_the_processor_is_named_by_its_model(tmp_path, text, wanted):
    (tmp_path / "cpuinfo").write_text(text)
    assert processor(tmp_path / "cpuinfo") == (wanted or processor(tmp_path / "none"))
