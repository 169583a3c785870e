"""By call alone (--model-control explicit): nothing is loaded, changed or let go but what was asked for."""

import itertools
import os
import shutil
import threading
import time

import pytest

from batchmill.core import ort
from batchmill.errors import InternalError, ModelError, NotFound, RegistryGone
from batchmill.registry import keeper, layout, publication
from batchmill.registry.loader import load_version
from batchmill.registry.naming import of_file
from e2e import models
from reference.registry import WAIT_SECS, AtOnce, Kept


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ort.initialise()


@pytest.fixture
def root(tmp_path):
    for name in "abc":
        models.linear(tmp_path / "registry", name)
    return tmp_path / "registry"


def started(root, *names):
    kept = Kept(root, watched=False, only=names)
    kept.wait(lambda _: kept.complete)
    return kept


def ready(kept):
    return "".join(f"{name}{version.number}" for name, model in kept.models.items() for version in model.ready())


def load(kept, name):
    kept.keeper.load(name).result(WAIT_SECS)


@pytest.mark.parametrize(("names", "wanted"), [((), ""), (("b",), "b1"), (("a", "c"), "a1c1"), (("*",), "a1b1c1"), (("nobody",), "")])
def test_a_start_loads_what_is_named(root, caplog, names, wanted):
    with started(root, *names) as kept:
        assert ready(kept) == wanted
        assert [*kept.models] == ["a", "b", "c"]
        held = {model.reason for model in kept.models.values() if model.held}
    assert held == (set() if names == ("*",) else {"not loaded: --model-control explicit waits for a load call"})
    assert ("--load-model: the registry has no such model" in [record.fields.get("reason") for record in caplog.records]) == (names == ("nobody",))


def test_a_load_call_loads_that_model_and_no_change_of_another(root):
    with started(root, "a") as kept:
        models.linear(root, "a", "2")
        models.linear(root, "d")
        load(kept, "b")
        assert ready(kept) == "a1b1"
        load(kept, "d")
        assert ready(kept) == "a1b1d1"
        load(kept, "a")
        assert ready(kept) == "a2b1d1"


def test_what_is_unloaded_stays_so_whatever_changes_in_its_folder(root):
    with started(root, "*") as kept:
        kept.keeper.unload("a").result(WAIT_SECS)
        models.linear(root, "a", "2")
        load(kept, "b")
        assert ready(kept) == "b1c1"
        load(kept, "a")
        assert ready(kept) == "a2b1c1"


def test_what_is_changed_of_the_names_of_a_model_that_is_out_of_service_is_told(root):
    labels = {}
    with Kept(root, naming=lambda name, settings: of_file(dict(labels))) as kept:
        kept.wait(lambda _: kept.complete)
        kept.keeper.unload("a").result(WAIT_SECS)
        kept.keeper.change("a", lambda status, present: labels.update(stable="1")).result(WAIT_SECS)
        assert kept.models["a"].naming.labels == {"stable": "1"}
        assert kept.models["a"].held


def test_a_removed_model_serves_until_it_is_asked_for(root):
    with started(root, "*") as kept:
        shutil.rmtree(root / "a")
        load(kept, "b")
        assert ready(kept) == "a1b1c1"
        with pytest.raises(NotFound):
            load(kept, "a")
        kept.wait(lambda now: "a" not in now)


def test_a_load_call_says_why_it_failed_and_may_be_sent_again(root):
    path = root / "b" / "1" / "model.onnx"
    whole = path.read_bytes()
    path.write_bytes(b"broken")
    with started(root) as kept:
        with pytest.raises(ModelError, match="version 1: .*not a readable ONNX file"):
            load(kept, "b")
        path.write_bytes(whole)
        load(kept, "b")
        assert ready(kept) == "b1"


def test_a_load_call_is_answered_though_the_registry_has_gone(root):
    with started(root, "*") as kept:
        root.rename(root.parent / "away")
        with pytest.raises(RegistryGone, match="gone or empty"):
            load(kept, "a")
        assert ready(kept) == "a1b1c1"
        (root.parent / "away").rename(root)
        load(kept, "a")


def test_a_fault_of_ours_is_told_and_the_registry_is_followed_on(root, caplog, monkeypatch):
    monkeypatch.setattr(keeper, "FAULT_SECS", 0.0)
    with started(root, "*") as kept:
        scan, faults = layout.scan, [ZeroDivisionError("a"), ZeroDivisionError("b")]
        monkeypatch.setattr(layout, "scan", lambda path: scan(path) if not faults else (_ for _ in ()).throw(faults.pop()))
        for _ in range(2):
            with pytest.raises(InternalError):
                load(kept, "a")
        models.linear(root, "a", "2")
        load(kept, "a")
        assert ready(kept) == "a2b1c1"
    assert [record.getMessage() for record in caplog.records].count("registry_fault") == 2


def test_a_start_looks_no_more_often_than_files_may_settle_while_its_first_model_loads(root, monkeypatch):
    """Each look reads all folders, and the load needs the core."""
    looks, may_end, scan = [], threading.Event(), layout.scan
    monkeypatch.setattr(layout, "scan", lambda path: (looks.append(time.monotonic()), scan(path))[1])

    def load_slowly(name, number, path, settings):
        may_end.wait(WAIT_SECS)
        return load_version(name, str(number), path, settings, 1)

    with Kept(root, load_slowly, watched=False) as kept:
        time.sleep(0.3)
        at_once = len(looks)
        may_end.set()
        kept.wait(lambda _: kept.complete)
    assert at_once <= 2     # files that were written just now need a second one
    assert all(after - before > 0.4 for before, after in itertools.pairwise(looks))


def test_what_is_to_be_published_asks_for_no_look(root, monkeypatch):
    scan, looks, tables, now = layout.scan, [], [], [1000.0]
    monkeypatch.setattr(layout, "scan", lambda path: (looks.append(now[0]), scan(path))[1])
    for file in root.rglob("*"):
        os.utime(file, (1, 1))
    kept = keeper.Keeper(root, lambda *given: load_version(given[0], str(given[1]), *given[2:], 1), lambda models, _: tables.append(models),
                         lambda _: None, adjust=lambda *_: None, poll_secs=100, clock=lambda: now[0], loaders=AtOnce())
    kept.first_look()
    while not tables or any(not model.pick() for model in tables[-1].values()):
        now[0] += 0.5
        kept.turn(0)
    looks.clear()
    for name, left in ("a", "bc"), ("b", "c"):
        kept.unload(name)
        for _ in range(3):
            kept.turn(0)
            now[0] += publication.PUBLISH_SECS
        assert "".join(name for name, model in tables[-1].items() if model.pick()) == left
    assert looks == []
