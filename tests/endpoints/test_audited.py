"""The audit trail over REST."""

import json

import pytest

from batchmill import chain
from batchmill.audit import Audit
from batchmill.chain import Event
from batchmill.endpoints import audited, rest
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.repository import Guard, Repository
from batchmill.errors import InvalidRequest
from batchmill.recorder import Recorder
from batchmill.store import Store

from .fakes import Call
from .test_asgi import handled
from .test_repository import HERE, done
from .test_tuning import HERE as LOCAL
from .test_tuning import KEY, KEYED, Registry

NOW = 1_700_000_000.0


@pytest.fixture
def audit():
    trail = Audit(Store())
    for number in range(5):
        trail.record(Event(("a.b", "c")[number % 2], f"m{number}", actor=f"x{number}"))
    return trail


def ask(audit, path, peer="ipv4:10.0.0.1:5"):
    repository = Repository(None, None, None, Guard(), None, recorder=Recorder(audit))
    call = Call(path)
    call.peer = peer
    handled(rest.application(Catalog(dict), None, repository), call)
    return call.status, call.body_sent


@pytest.mark.parametrize(("query", "wanted"), [
    ("", [5, 4, 3, 2, 1]), ("?limit=2", [5, 4]), ("?limit=2&before=4", [3, 2]), ("?model=m1", [2]), ("?action=a", [5, 3, 1]), ("?action=a.b&limit=1", [5]),
    ("?since=1h", [5, 4, 3, 2, 1]), ("?since=2999-01-01", []), ("?model=%C3%A9", []),
])
def test_a_page_has_the_newest_of_what_is_wanted_and_the_head_of_all(audit, query, wanted):
    status, body = ask(audit, f"/admin/audit{query}")
    assert status == 200
    answer = json.loads(body)
    assert [entry["seq"] for entry in answer["entries"]] == wanted
    assert answer["head"] == audit.head()._asdict()
    assert answer["state"]["kept"] == "memory"


@pytest.mark.parametrize(("query", "problem"), [
    ("?limit=0", "1 to 1000"), ("?limit=1001", "1 to 1000"), ("?limit=x", "whole number"), ("?before=-1", "whole number"), ("?since=yesterday", "2h"),
    ("?limit=" + "9" * 100, "whole number"), ("?since=999999999d", ""), ("/verify?head=1:x", "SEQ:HASH"),
])
def test_a_query_that_is_wrong_says_what_is_wanted(audit, query, problem):
    status, body = ask(audit, f"/admin/audit{query}")
    assert status == (400 if problem else 200)
    assert problem in body.decode()


@pytest.mark.parametrize(("text", "wanted"), [
    ("", ""), ("90s", "2023-11-14T22:11:50.000Z"), ("2h", "2023-11-14T20:13:20.000Z"), ("7d", "2023-11-07T22:13:20.000Z"), ("999999999d", "1970-01-01T00:00:00.000Z"),
    ("2023-11-14", "2023-11-14T00:00:00.000Z"), ("2023-11-14T12:00Z", "2023-11-14T12:00:00.000Z"), ("2023-11-14T12:00:00.5+02:00", "2023-11-14T10:00:00.500Z"),
])
def test_a_time_is_told_as_entries_tell_theirs(text, wanted):
    assert audited.since(text, NOW) == wanted


@pytest.mark.parametrize("text", ["2 h", "2x", "h", "٢h", "2023-13-01", "now"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(InvalidRequest):
        audited.since(text, NOW)


def test_an_export_has_every_entry_and_the_head_last(audit):
    for number in range(500):
        audit.submit(Event("a", reason=f"{number}"))
    status, body = ask(audit, "/admin/audit/export")
    assert status == 200
    assert chain.verified_export(body.splitlines(keepends=True)) == (audit.head(), None, "")
    assert len(body.splitlines()) == 506


def test_parts_of_an_export_are_whole_lines_and_small_enough_for_a_message():
    lines = [f"{'x' * length}\n" for length in (10, 100_000, 5, 40_000, 40_000, 7)]
    assert [*audited.chunks(iter(lines))] == ["".join(some).encode() for some in (lines[:2], lines[2:5], lines[5:])]
    assert [*audited.chunks(iter(()))] == []


def test_verification_says_which_entry_is_broken(audit):
    assert json.loads(ask(audit, "/admin/audit/verify")[1])["broken"] is None
    head = audit.head()
    assert json.loads(ask(audit, f"/admin/audit/verify?head={head.seq}:{head.hash}")[1])["broken"] is None
    assert json.loads(ask(audit, f"/admin/audit/verify?head={head.seq}:{'0' * 64}")[1])["broken"] == 5
    audit._memory._entries[2]["model"] = "other"
    answer = json.loads(ask(audit, "/admin/audit/verify")[1])
    assert (answer["broken"], answer["head"]["seq"]) == (3, 2)
    assert json.loads(ask(audit, "/admin/audit")[1])["state"]["verified"]["broken"] == 3


@pytest.mark.parametrize(("guard", "asked", "wanted"), [
    (Guard(), {"method": "PATCH", "body": {"run_timeout_ms": 5}}, ("ok", False, {"run_timeout_ms": None}, {"run_timeout_ms": 5})),
    (KEYED, {"method": "PATCH", "body": {"run_timeout_ms": 5}, "headers": KEY}, ("ok", True, {"run_timeout_ms": None}, {"run_timeout_ms": 5})),
    (KEYED, {"method": "DELETE"}, ("refused", False, None, None)),
    (Guard(open=True, key=KEYED.key), {"method": "DELETE"}, ("ok", False, {}, {})),
    (Guard(), {"method": "PATCH", "body": {"run_timeout": 5}}, ("refused", False, {}, {})),
    (Guard(), {"method": "PATCH", "body": [1]}, ("refused", False, {}, {})),
    (Guard(), {}, None),
])
def test_a_change_of_tuning_is_recorded_with_who_made_it_and_never_with_the_key(guard, asked, wanted):
    registry = Registry(guard)
    registry.ask(**asked)
    found = registry.repository.recorder.audit.entries()
    assert [(one["outcome"], one["key"], one["before"], one["after"]) for one in found] == ([wanted] if wanted else [])
    assert all(one["actor"] == "ipv4:127.0.0.1:5" and one["action"] == "tuning.set" for one in found)
    assert "secret" not in json.dumps(found)


@pytest.mark.parametrize(("path", "peer", "body", "wanted"), [
    ("load", HERE, {}, ("model.load", "ok", "")),
    ("unload", HERE, {}, ("model.unload", "ok", "")),
    ("load", "ipv4:10.0.0.1:5", {}, ("model.load", "refused", "only callers on this machine")),
    ("unload", "ipv4:10.0.0.1:5", {}, ("model.unload", "refused", "only callers on this machine")),
    ("load", HERE, {"parameters": {"config": "{}"}}, ("model.upload", "refused", "uploads are off")),
])
def test_loads_and_unloads_are_recorded(path, peer, body, wanted):
    repository = Repository(lambda name: done(), lambda name: done(), None, Guard(), None)
    call = Call(f"/v2/repository/models/m/{path}", method="POST", headers=LOCAL, body=json.dumps(body).encode())
    call.peer = peer
    handled(rest.application(Catalog(dict), None, repository), call)
    (entry,) = repository.recorder.audit.entries()
    assert (entry["action"], entry["outcome"], entry["model"], entry["actor"]) == (*wanted[:2], "m", peer)
    assert wanted[2] in entry["reason"]
