"""The audit trail: what is acknowledged is there, whatever ends the process; what is changed afterwards is found; nobody waits for its disk."""

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from batchmill import audit as module
from batchmill import chain, ledger
from batchmill.audit import Audit
from batchmill.chain import Event, Head
from batchmill.errors import AuditUnreadable
from batchmill.ledger import Wanted
from batchmill.store import MIGRATIONS, NAME, TUNING, Store

DOCS = Path(__file__).resolve().parents[1] / "docs" / "audit.md"


class Kept:
    """A trail in a folder, as a server has it; None: in memory."""

    def __init__(self, folder, clock=time.time):
        self.store = Store()
        self.store.open(folder)
        self.audit = Audit(self.store, clock)

    def __enter__(self):
        return self.audit

    def __exit__(self, *_):
        self.audit.close()
        self.store.close()


def events(caplog):
    return [record.getMessage() for record in caplog.records]


def filled(folder, count=6):
    with Kept(folder) as audit:
        for number in range(count):
            audit.record(Event("traffic.moved", f"m{number % 2}", str(number), before={"version": number}, after={"version": number + 1}))
        return audit.head()


@pytest.fixture(params=["file", "memory"])
def kept(request, tmp_path):
    with Kept(tmp_path if request.param == "file" else None) as audit:
        audit.record(Event("audit.began"))  # as a file begins by itself
        yield audit


# What an entry says.
@pytest.mark.parametrize(("event", "wanted"), [
    (Event("a", "m", "2", "ipv4:1.2.3.4:5", True, {"x": 1}, {"x": 2}, {"2/model.onnx": "ab"}, "failed", "why"),
     {"model": "m", "version": "2", "actor": "ipv4:1.2.3.4:5", "key": True, "before": {"x": 1}, "after": {"x": 2}, "files": {"2/model.onnx": "ab"},
      "outcome": "failed", "reason": "why"}),
    (Event("a", reason="x" * 5000), {"reason": "x" * chain.REASON_MAX}),
    (Event("a", "\udce9", reason="\ud800"), {"model": "\\udce9", "reason": "\\ud800"}),
    (Event("a", after={"x": "\udce9", "y": (1, 2)}), {"after": {"x": "?", "y": [1, 2]}}),
    (Event("a", after="x" * 5000), {"after": {"omitted_bytes": 5002}}),
    (Event("a", files={f"{number:03}": "" for number in range(200)}), {"files": {f"{number:03}": "" for number in range(100)}}),
])
def test_an_event_is_told_whole_within_bounds(kept, event, wanted):
    kept.record(event)
    entry = kept.entries()[0]
    assert {name: entry[name] for name in wanted} == wanted
    assert kept.verify().broken is None


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_what_json_cannot_say_is_refused_where_it_is_submitted(kept, value):
    before = kept.head()
    with pytest.raises((TypeError, ValueError)):
        kept.submit(Event("a", after=value))
    assert kept.head() == before


def test_times_are_of_the_submission_in_utc_to_the_millisecond():
    with Kept(None, clock=lambda: 1_700_000_000.25) as audit:
        audit.record(Event("a"))
        audit.submit(Event("b"), at=1_600_000_000).result()
        assert [entry["at"] for entry in audit.entries()] == ["2020-09-13T12:26:40.000Z", "2023-11-14T22:13:20.250Z"]


# What is kept.
def test_what_is_recorded_is_there_after_a_restart_and_the_chain_goes_on(tmp_path):
    head = filled(tmp_path)
    with Kept(tmp_path) as audit:
        assert audit.head() == head
        assert audit.record(Event("a")).seq == head.seq + 1 == 8
        assert audit.verify(head) == (audit.head(), None, "")
        assert [entry["seq"] for entry in audit.entries(Wanted(newest=3, before=8))] == [7, 6, 5]
        assert audit.entries(Wanted(newest=100))[-1]["action"] == "audit.began"


def test_an_entry_is_on_the_disk_when_it_is_told_as_recorded(tmp_path):
    with Kept(tmp_path) as audit:
        said = []
        audit.record(Event("a"))
        audit._store.ask(lambda file: file.set_trace_callback(said.append)).result()
        audit.record(Event("b"))
        audit._store.put(TUNING, "a", 1)
        audit._store.ask(lambda file: file.set_trace_callback(None)).result()
    pragmas = [one.rpartition(" ")[2] if "synchronous" in one else one.split(" ")[0] for one in said]
    assert [one for one in pragmas if one in ("FULL", "NORMAL", "BEGIN", "COMMIT")] == ["FULL", "BEGIN", "COMMIT", "NORMAL", "BEGIN", "COMMIT"]


def test_many_threads_record_at_once_and_each_is_told_its_place(tmp_path):
    with Kept(tmp_path) as audit:
        places = []
        threads = [threading.Thread(target=lambda: places.extend(audit.record(Event("a")) for _ in range(50))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(place.seq for place in places) == [*range(2, 402)]
        hashes = {entry["seq"]: entry["hash"] for entry in audit.entries(Wanted(newest=1000))}
        assert all(hashes[place.seq] == place.hash for place in places)
        assert audit.verify().broken is None


@pytest.mark.parametrize("statement", [
    "UPDATE audit SET model = 'other' WHERE seq = 2", "DELETE FROM audit WHERE seq = 7", "DELETE FROM audit",
    "INSERT INTO audit SELECT 99, at, actor, key, action, model, version, before, after, files, outcome, reason, hash FROM audit WHERE seq = 1",
    "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE seq = 2",
])
def test_the_table_itself_refuses_to_be_changed(tmp_path, statement):
    filled(tmp_path)
    with sqlite3.connect(tmp_path / NAME) as file, pytest.raises(sqlite3.IntegrityError, match="audit trail"):
        file.execute(statement)
    file.close()


UNGUARDED = "DROP TRIGGER audit_update; DROP TRIGGER audit_delete; DROP TRIGGER audit_insert;"


@pytest.mark.parametrize(("statement", "broken"), [
    ("UPDATE audit SET model = 'other' WHERE seq = 3", 3),
    ("UPDATE audit SET \"key\" = 1 WHERE seq = 1", 1),
    ("UPDATE audit SET \"after\" = '{' WHERE seq = 4", 4),
    ("UPDATE audit SET \"after\" = x'00ff' WHERE seq = 4", 4),
    ("UPDATE audit SET reason = CAST(x'ff' AS TEXT) WHERE seq = 4", 4),
    ("UPDATE audit SET seq = 99 WHERE seq = 7", 7),
    ("UPDATE audit SET hash = x'00ff' WHERE seq = 7", 7),
    ("UPDATE audit SET hash = 'é' WHERE seq = 7", 7),
    ("DELETE FROM audit WHERE seq = 5", 5),
    ("DELETE FROM audit WHERE seq = 1", 1),
    ("INSERT INTO audit SELECT 8, at, actor, key, action, model, version, before, after, files, outcome, reason, hash FROM audit WHERE seq = 7", 8),
])
def test_verification_names_the_first_entry_that_is_not_as_it_was_written(tmp_path, statement, broken, caplog):
    filled(tmp_path)
    with sqlite3.connect(tmp_path / NAME) as file:
        file.executescript(UNGUARDED + statement)
    file.close()
    with Kept(tmp_path) as audit:
        assert audit.verify().broken == broken
        assert audit.state()["verified"]["broken"] == broken
        assert audit.record(Event("a"))  # it goes on, and stays broken
        assert audit.verify().broken == broken
    assert events(caplog) == ["audit_broken"] * 2


def test_an_end_that_was_cut_off_is_found_by_who_has_noted_the_head(tmp_path):
    head = filled(tmp_path)
    with sqlite3.connect(tmp_path / NAME) as file:
        file.executescript(f"{UNGUARDED} DELETE FROM audit WHERE seq > 5")
    file.close()
    with Kept(tmp_path) as audit:
        assert audit.verify().broken is None
        assert audit.verify(head).broken == 6
        assert audit.verify(Head(5, head.hash)).broken == 5


def test_a_page_that_is_overwritten_is_found_and_harms_nothing_else(tmp_path, caplog):
    with Kept(tmp_path) as audit:
        audit._store.put(TUNING, "a", 1)
        for number in range(300):
            audit.submit(Event("a", reason=f"{number} " + "x" * 500))
        audit.head()
    content = (tmp_path / NAME).read_bytes()
    at = content.index(b"150 xxx") // 4096 * 4096
    (tmp_path / NAME).write_bytes(content[:at] + os.urandom(4096) + content[at + 4096 :])
    with Kept(tmp_path) as audit:
        verdict = audit.verify()
        assert 140 < verdict.broken < 154
        assert audit.record(Event("a")).seq == 302
        assert audit._store.get(TUNING, "a") == 1
        with pytest.raises(AuditUnreadable):
            [*audit.export()]


# What goes wrong.
KILLED = """
import sys, threading
from pathlib import Path
from batchmill.audit import Audit
from batchmill.chain import Event
from batchmill.store import Store
store = Store()
store.open(Path(sys.argv[1]))
audit = Audit(store)
def write():
    while True:
        head = audit.record(Event("a", "m", after={"x": "y" * 300}), 60)
        sys.stdout.write(f"{head.seq} {head.hash}\\n")
        sys.stdout.flush()
threading.Thread(target=write).start()
while True:
    store.put("tuning", "a", [1] * 50)
    write()
"""


def test_a_process_killed_at_any_write_leaves_a_whole_trail_with_all_it_has_acknowledged(tmp_path, caplog):
    chance, acknowledged = random.Random(7), {}
    for _ in range(25):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
            told = [child.stdout.readline()]
            time.sleep(chance.random() * 0.1)
            child.send_signal(signal.SIGKILL)
            told += child.stdout.readlines()
        acknowledged.update(line.split() for line in told if line.endswith("\n"))
        with Kept(tmp_path) as audit:
            assert audit.verify(*(Head(int(seq), digest) for seq, digest in acknowledged.items())).broken is None
    assert len(acknowledged) > 100
    assert not caplog.records


def test_without_a_folder_it_is_kept_in_memory_and_says_so(caplog):
    with Kept(None) as audit:
        assert audit.record(Event("a")).seq == 1
        assert audit.verify() == (audit.head(), None, "")
        assert audit.state()["kept"] == "memory"
        assert chain.verified_export(line.encode() for line in audit.export()).broken is None
    assert events(caplog) == ["audit_not_kept"]


def test_memory_is_bounded_and_what_is_left_can_be_verified(monkeypatch):
    monkeypatch.setattr(ledger, "MEMORY_MAX", 5)
    with Kept(None) as audit:
        for _ in range(9):
            audit.record(Event("a"))
        assert [entry["seq"] for entry in audit.entries()] == [9, 8, 7, 6, 5]
        assert audit.verify() == (audit.head(), None, "")
        audit._memory._entries[2]["reason"] = "changed"
        assert audit.verify().broken == 7


def test_a_file_of_a_later_release_is_left_alone_and_the_trail_is_in_memory(tmp_path, caplog):
    filled(tmp_path)
    with sqlite3.connect(tmp_path / NAME) as file:
        file.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    file.close()
    with Kept(tmp_path) as audit:
        assert audit.record(Event("a")).seq == 1
        assert "version" in audit.state()["problem"]
    assert events(caplog) == ["state_not_kept", "audit_not_kept"]


def test_a_trail_whose_file_was_set_aside_says_so(tmp_path):
    (tmp_path / NAME).write_bytes(b"no database" * 1000)
    with Kept(tmp_path) as audit:
        audit.record(Event("a"))
        assert audit.entries()[-1]["reason"] == f"beside it lies {NAME}.broken-1"


FULL = """
import logging, resource, sys
from pathlib import Path
from batchmill import audit as module
from batchmill.audit import Audit
from batchmill.chain import Event
from batchmill.store import Store
module.WAITING_MAX = 3
logging.getLogger("batchmill").addHandler(logging.StreamHandler(sys.stderr))
logging.getLogger("batchmill").setLevel("INFO")
store = Store()
store.open(Path(sys.argv[1]))
audit = Audit(store)
assert audit.record(Event("before"), 60)
resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, resource.RLIM_INFINITY))
while audit.record(Event("full", after="x" * 4000), 0.5):
    pass
assert audit.head()
assert audit.state()["waiting"] == 1 and audit.state()["problem"], audit.state()
for number in range(6):
    assert audit.record(Event(f"late {number}"), 0) is None
assert audit.state()["waiting"] == 3 and audit.state()["lost"] == 4
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
audit.retry()
print(*[entry["action"] for entry in audit.entries()][:4], sep=",")
print(audit.entries()[0]["after"], audit.state()["waiting"], audit.state()["lost"], repr(audit.state()["problem"]), audit.verify().broken)
audit.close()
store.close()
"""


def test_a_full_disk_is_told_once_what_waits_is_written_later_and_what_is_lost_is_counted(tmp_path):
    child = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines() == ["audit.lost,late 1,late 0,full", "{'entries': 4} 0 4 '' None"]
    assert child.stderr.splitlines() == ["audit_not_written", "audit_written_again"]


def test_who_records_waits_no_longer_than_told(tmp_path):
    with Kept(tmp_path) as audit:
        audit.record(Event("a"))
        held, go_on = threading.Event(), threading.Event()
        audit._store.ask(lambda file: (held.set(), go_on.wait(10)))
        held.wait(10)
        assert audit.record(Event("b"), wait_secs=0.01) is None
        late = audit.submit(Event("c"))
        assert not late.done()
        go_on.set()
        assert late.result(10).seq == 4


def test_what_comes_after_the_end_is_told_as_not_recorded(tmp_path):
    with Kept(tmp_path) as audit:
        audit.record(Event("a"))
    assert audit.record(Event("b"), 0.05) is None
    with Kept(tmp_path) as audit:
        assert audit.head().seq == 2


def test_the_ten_lines_of_the_documentation_verify_an_export(tmp_path):
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S) if "hashlib" in block)
    assert len(code.splitlines()) <= 12
    filled(tmp_path)
    with Kept(tmp_path) as audit:
        text = "".join(audit.export())
    (tmp_path / "verify.py").write_text(code)
    for content, good in ((text, True), (text.replace('"m1"', '"m2"', 1), False), ("".join(text.splitlines(keepends=True)[:-1]), False)):
        (tmp_path / "audit.jsonl").write_text(content)
        done = subprocess.run([sys.executable, "verify.py", "audit.jsonl"], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode == 0) == good, done.stderr
        assert done.stdout.startswith("7 ") == good


def test_an_export_is_of_one_moment_while_others_write(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    filled(tmp_path)
    with Kept(tmp_path) as audit:
        lines = []
        for line in audit.export():
            lines.append(line.encode())
            audit.record(Event("meanwhile"))
        assert chain.verified_export(lines) == (Head(7, json.loads(lines[-1])["head"]["hash"]), None, "")
        assert audit.verify().broken is None
