"""Which entries what the registry publishes becomes, and what a call leaves behind however it ends."""

import asyncio
import threading
from dataclasses import replace

import pytest

from batchmill.audit import Audit
from batchmill.chain import Event
from batchmill.errors import Forbidden, InvalidRequest, ModelError, NotFound, Unsupported
from batchmill.recorder import REFUSALS_MAX, Allowance, Recorder, changes, seen
from batchmill.registry.entry import WAITS
from batchmill.registry.settings import ModelSettings
from batchmill.registry.status import ModelStatus, VersionStatus
from batchmill.store import Store


def ready(number, *, hold="", reason="", served=None):
    return VersionStatus(number, "READY", reason, served=served or object(), hold=hold, pinned=bool(hold))


def failed(number, reason="cut"):
    return VersionStatus(number, "FAILED", reason)


def model(*versions, name="m", **options):
    return ModelStatus(name, versions={version.number: version for version in versions}, **options)


ONE, TWO = ready("1"), ready("2")
HELD = ready("2", hold="other inputs")
LINEAGE = ModelSettings(lineage={"git_commit": "4f"}, file="model.yaml")
TUNED = ModelSettings(called={"run_timeout_ms": 5})


def moved(before, after):
    return ("traffic.moved", after or "", {"version": before}, {"version": after})


def load(version):
    return ("version.ready", version, None)


@pytest.mark.parametrize(("before", "after", "wanted"), [
    (model(), model(), []),
    (model(ONE), model(ONE), []),
    (None, model(), []),
    (None, model(ONE), [load("1"), moved(None, "1")]),
    (model(VersionStatus("1", "LOADING")), model(ONE), [("version.ready", "1", {"state": "loading"}), moved(None, "1")]),
    (model(ONE), model(ONE, TWO), [load("2"), moved("1", "2")]),
    (model(ONE, TWO), model(TWO), [("version.unloaded", "1")]),
    (model(ONE), model(TWO), [load("2"), moved("1", "2"), ("version.unloaded", "1")]),
    (model(ONE, TWO), model(ONE), [moved("2", "1"), ("version.unloaded", "2")]),
    (model(ONE), model(ready("1")), [("version.ready", "1", {"state": "ready"})]),
    (model(ONE), model(ONE, failed("2")), [("version.failed", "2", None, {"state": "failed"}, "failed", "cut")]),
    (model(failed("2")), model(failed("2")), [("version.failed", "2", {"state": "failed"}, {"state": "failed"}, "failed", "cut")]),
    (model(failed("2")), model(), []),
    (model(ONE), model(ready("1", reason="its files have changed", served=ONE.served)),
     [("version.refused", "1", None, None, "refused", "its files have changed")]),
    (model(ONE), model(ONE, HELD), [load("2"), ("version.held", "2", None, None, "ok", "other inputs")]),
    (model(ONE, HELD), model(ONE, ready("2", served=HELD.served)), [("version.released", "2"), moved("1", "2")]),
    (model(ONE), None, [("model.removed", "", {"versions": ["1"], "traffic": "1"})]),
    (model(ONE), model(reason="unloaded by a call", held=True), [moved("1", None), ("version.unloaded", "1")]),
    (None, model(reason="model.yaml:1: no"), [("model.failed", "", None, None, "failed", "model.yaml:1: no")]),
    (None, model(reason=WAITS), []),
    (model(reason="a"), model(reason="a"), []),
    (model(ONE), model(ONE, settings=LINEAGE), [("settings.changed", "", {"lineage": {}, "file": ""}, {"lineage": {"git_commit": "4f"}, "file": "model.yaml"})]),
    (model(ONE), model(ONE, settings=TUNED), []),
])
def test_what_is_published_is_told_by_what_was_before(before, after, wanted):
    old, new = ({"m": one} if one else {} for one in (before, after))
    found = [change.event for change in changes(seen(old), seen(new))]
    told = [(one.action, one.version, one.before, one.after, one.outcome, one.reason) for one in found]
    assert [one[: len(want)] for one, want in zip(told, wanted, strict=True)] == wanted


def test_a_status_that_changes_in_its_place_is_seen():
    version = ready("1")
    before = seen({"m": model(version)})
    version.hold, version.pinned = "other inputs", True
    assert [change.event.action for change in changes(before, seen({"m": model(version)}))] == ["version.held", "traffic.moved"]


def test_models_are_told_apart_and_in_order():
    found = [change.event.model for change in changes(seen({"b": model(ONE, name="b")}), seen({"a": model(reason="x"), "c": model(reason="x")}))]
    assert found == ["a", "b", "c"]


@pytest.fixture
def recorder():
    return Recorder(Audit(Store()))


def entries(recorder):
    return recorder.audit.entries()[::-1]


def test_the_files_of_a_version_are_told_with_its_lineage_and_when_it_became_ready(recorder, tmp_path):
    for name in ("model.onnx", "golden.npz"):
        (tmp_path / "m" / "2").mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / "2" / name).write_bytes(b"abc")
    from batchmill.registry import layout

    path = tmp_path / "m" / "2" / "model.onnx"
    version = replace(TWO, path=path, stamp=layout.stamp_of(path.parent))
    recorder.published({"m": model(version, settings=LINEAGE)}, False)
    broken = failed("3")
    recorder.published({"m": model(version, broken, settings=LINEAGE)}, True)
    recorder.published({"m": model(broken, settings=LINEAGE)}, True)
    hashed = threading.Event()
    recorder._later(hashed.set)
    assert hashed.wait(10)
    recorder.stopped()
    found = {entry["action"]: entry for entry in entries(recorder)}
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert found["version.ready"]["files"] == {"2/model.onnx": digest, "2/golden.npz": digest}
    assert found["version.ready"]["after"]["lineage"] == {"git_commit": "4f"}
    assert [found[action]["actor"] for action in ("version.ready", "version.failed", "version.unloaded", "server.stopped")] == [
        "start", "start", "registry", "signal"]


def test_files_that_have_changed_since_are_not_told_by_a_wrong_hash(recorder, tmp_path):
    from batchmill.registry import layout
    from batchmill.registry.digests import digests

    path = tmp_path / "m" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"abc")
    version = replace(ONE, path=path, stamp=layout.stamp_of(path.parent))
    path.write_bytes(b"other")
    assert digests(version) == {}
    path.unlink()
    assert digests(version) == {}
    assert digests(ONE) == {}


async def done(result=None, error=None):
    if error:
        raise error
    return result


CALL = Event("model.load", "m", actor="ipv4:1.2.3.4:5", key=True)


@pytest.mark.parametrize(("error", "outcome", "reason"), [
    (None, "ok", ""),
    (ModelError("version 3: cut"), "failed", "version 3: cut"),
    (NotFound("no model"), "refused", "no model"),
    (InvalidRequest("no"), "refused", "no"),
    (KeyError("x"), "failed", "internal error; the log has it"),
])
def test_a_call_is_recorded_with_how_it_ended(recorder, error, outcome, reason):
    if error is None:
        assert asyncio.run(recorder.call(CALL, done("answer"), lambda: {"after": 2})) == "answer"
    else:
        with pytest.raises(type(error)):
            asyncio.run(recorder.call(CALL, done(error=error)))
    (entry,) = entries(recorder)
    assert (entry["actor"], entry["key"], entry["outcome"], entry["reason"]) == ("ipv4:1.2.3.4:5", True, outcome, reason)
    assert entry["after"] == (None if error else 2)


def test_a_call_whose_caller_goes_away_goes_on_and_is_recorded(recorder):
    async def scene():
        go_on = asyncio.Event()

        async def work():
            await go_on.wait()

        call = asyncio.create_task(recorder.call(CALL, work()))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert entries(recorder) == []
        go_on.set()
        await asyncio.sleep(0)
        await asyncio.gather(*recorder._calls)

    asyncio.run(scene())
    assert [entry["outcome"] for entry in entries(recorder)] == ["ok"]


def test_of_many_calls_that_are_not_let_in_some_are_told_and_the_others_counted(recorder):
    for _ in range(REFUSALS_MAX + 7):
        recorder.refused(CALL, Forbidden("no"))
    assert [entry["outcome"] for entry in entries(recorder)] == ["refused"] * REFUSALS_MAX
    recorder._refusals.since -= 61
    recorder.refused(CALL, Unsupported("off"))
    assert entries(recorder)[-1]["after"] == {"refused_besides": 7}


def test_an_allowance_is_renewed_each_minute():
    allowance = Allowance(2)
    assert [allowance.take(at) for at in (100, 110, 120, 159, 160, 161, 162, 300)] == [0, 0, None, None, 2, 0, None, 1]
