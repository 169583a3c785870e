"""What is kept is there after a restart, whatever ended the one before; what cannot be kept harms nothing."""

import json
import os
import random
import sqlite3
import subprocess
import sys

import pytest

from batchmill import store as module
from batchmill.store import NAME, RUNS, TUNING, Store

VALUES = [{"batching": {"max_batch_size": 32}}, [1, 2.5, None], "text", 0, False, {}]


def opened(folder):
    store = Store()
    store.open(folder)
    return store


def kept(folder, kind=TUNING):
    """What another process finds, which leaves nothing open."""
    store = opened(folder)
    try:
        return store.all(kind)
    finally:
        store.close()


def events(caplog):
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def store(tmp_path):
    store = opened(tmp_path)
    yield store
    store.close()


@pytest.mark.parametrize("value", VALUES)
def test_what_is_put_is_there_at_once_and_after_a_restart(tmp_path, store, value):
    store.put(TUNING, "ä model", value)
    assert store.get(TUNING, "ä model") == value
    store.close()
    assert kept(tmp_path) == {"ä model": value}


def test_the_last_of_several_counts_and_a_deleted_one_is_gone(tmp_path, store):
    for value in range(3):
        store.put(TUNING, "a", value)
        store.put(TUNING, "b", value)
    store.delete(TUNING, "b")
    store.delete(TUNING, "never there")
    store.close()
    assert kept(tmp_path) == {"a": 2}


def test_kinds_are_apart(store):
    store.put(TUNING, "a", 1)
    store.put(RUNS, "a", 2)
    store.delete(RUNS, "a")
    assert store.get(TUNING, "a") == 1
    assert store.get(RUNS, "a") is None


def test_it_does_what_a_dictionary_does(tmp_path):
    chance, twin = random.Random(1), {}
    store = opened(tmp_path)
    for _ in range(500):
        key = f"{chance.randrange(9)}"
        if chance.random() < 0.1:
            store.close()
            store = opened(tmp_path)
        elif chance.random() < 0.6:
            twin[key] = chance.random()
            store.put(TUNING, key, twin[key])
        else:
            twin.pop(key, None)
            store.delete(TUNING, key)
        assert store.all(TUNING) == twin
    store.close()


def test_a_value_that_was_got_can_be_changed_without_harm(store):
    store.put(TUNING, "a", [1])
    store.get(TUNING, "a").append(2)
    assert store.get(TUNING, "a") == [1]


def test_nothing_is_made_until_something_is_put(tmp_path):
    store = opened(tmp_path)
    assert store.get(TUNING, "a") is None
    store.close()
    assert os.listdir(tmp_path) == []


def test_without_a_folder_it_is_kept_in_memory_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = opened(None)
    store.put(TUNING, "a", 1)
    assert store.get(TUNING, "a") == 1
    store.close()
    assert os.listdir(tmp_path) == []


def test_what_is_asked_is_done_after_what_was_put_before_though_that_came_in_the_middle_of_a_write(store, monkeypatch):
    write, asked = module.write, []

    def interrupted(file, pending):
        write(file, pending)
        if not asked:
            store.put(TUNING, "b", 2)
            asked.append(store.ask(lambda file: file.execute("SELECT value FROM kept WHERE key = 'b'").fetchall()))

    monkeypatch.setattr(module, "write", interrupted)
    store.put(TUNING, "a", 1)
    store.ask(lambda _: None).result(30)
    assert asked[0].result(30) == [("2",)]


def test_what_is_put_together_is_written_together(store, monkeypatch):
    write, written = module.write, []
    monkeypatch.setattr(module, "write", lambda file, pending: (written.append({*pending}), write(file, pending)))
    store.ask(lambda _: None).result(30)
    with store.together():
        store.put(TUNING, "a", 1)
        store.ask(lambda _: None)  # which has the thread look, as soon as it may
        store.put(TUNING, "b", 2)
    store.ask(lambda _: None).result(30)
    assert written == [{(TUNING, "a"), (TUNING, "b")}]


def test_those_not_used_for_longest_go_when_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setitem(module.MOST, RUNS, 3)
    store = opened(tmp_path)
    for key in "abc":
        store.put(RUNS, key, key)
    store.get(RUNS, "a")
    store.put(RUNS, "d", "d")
    assert sorted(store.all(RUNS)) == ["a", "c", "d"]
    store.close()
    assert sorted(kept(tmp_path, RUNS)) == ["a", "c", "d"]


def test_the_last_use_is_known_after_a_restart(tmp_path, monkeypatch):
    monkeypatch.setitem(module.MOST, RUNS, 2)
    now_s = 1_700_000_000
    monkeypatch.setattr(module.time, "time", lambda: now_s)
    for step, key in enumerate(["a", "b", "use a", "c"]):
        now_s = 1_700_000_000 + step * 2 * module.USED_SECS
        store = opened(tmp_path)
        if key == "use a":
            store.get(RUNS, "a")
        else:
            store.put(RUNS, key, step)
        store.close()
    assert sorted(kept(tmp_path, RUNS)) == ["a", "c"]


# What goes wrong.
WRITES = """
import sys
from pathlib import Path
from batchmill.store import Store
store = Store()
store.open(Path(sys.argv[1]))
for number in range(10**9):
    store.put("tuning", f"{number % 50}", [number] * 50)
    if number == 200:
        print("writes", flush=True)
"""


def test_a_process_that_is_killed_while_it_writes_leaves_whole_values(tmp_path, caplog):
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path)], stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            while not (tmp_path / NAME).exists():
                assert child.poll() is None
            child.kill()
        assert all(len(value) == 50 and len({*value}) == 1 for value in kept(tmp_path).values())
    assert not caplog.records


def make_damaged(path, how):
    if how == "a directory":
        return path.mkdir()
    store = opened(path.parent)
    for number in range(300):
        store.put(TUNING, f"{number}", "x" * 100)
    store.close()
    content = bytearray(path.read_bytes())
    if how == "no database":
        content[:] = b"no database at all" * 100
    elif how == "cut":
        del content[len(content) // 2 :]
    elif how == "overwritten":
        content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    if how == "another table":
        path.unlink()
        with sqlite3.connect(path) as file:
            file.executescript(f"CREATE TABLE others (a); PRAGMA user_version = {len(module.MIGRATIONS)}")
        file.close()
    return None


@pytest.mark.parametrize("how", ["no database", "cut", "overwritten", "another table", "a directory"])
def test_a_broken_file_is_set_aside_and_a_new_one_begun(tmp_path, caplog, how):
    for number in (1, 2):
        (tmp_path / NAME).unlink(missing_ok=True)
        make_damaged(tmp_path / NAME, how)
        store = opened(tmp_path)
        assert store.all(TUNING) == {}
        store.put(TUNING, "a", number)
        store.close()
        assert kept(tmp_path) == {"a": number}
        assert (tmp_path / f"{NAME}.broken-{number}").exists()
    assert events(caplog) == ["state_set_aside"] * 2


def test_a_log_of_a_broken_file_goes_with_it(tmp_path):
    (tmp_path / NAME).touch()
    (tmp_path / f"{NAME}-wal").write_bytes(b"its log")
    module.set_aside(tmp_path / NAME)
    assert sorted(os.listdir(tmp_path)) == [f"{NAME}.broken-1", f"{NAME}.broken-1-wal"]


def test_a_file_of_a_later_release_is_left_as_it_is(tmp_path, caplog):
    store = opened(tmp_path)
    store.put(TUNING, "a", 1)
    store.close()
    with sqlite3.connect(tmp_path / NAME) as file:
        file.execute(f"PRAGMA user_version = {len(module.MIGRATIONS) + 1}")
    file.close()
    before = (tmp_path / NAME).read_bytes()
    store = opened(tmp_path)
    assert store.all(TUNING) == {}
    store.put(TUNING, "b", 2)
    assert store.get(TUNING, "b") == 2
    store.close()
    assert (tmp_path / NAME).read_bytes() == before
    assert events(caplog) == ["state_not_kept"]


def test_a_file_that_another_process_holds_is_left_as_it_is(tmp_path, caplog, monkeypatch):
    store = opened(tmp_path)
    store.put(TUNING, "a", 1)
    store.close()
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, timeout=0.01, **more))
    holder = connect(tmp_path / NAME)
    holder.executescript("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; DELETE FROM kept WHERE key = 'none'; COMMIT")
    assert kept(tmp_path) == {}
    assert events(caplog) == ["state_not_kept"]
    holder.close()
    assert kept(tmp_path) == {"a": 1}


FILLS = """
import json, logging, resource, sys, time
from pathlib import Path
from batchmill import store as module
log = logging.StreamHandler(sys.stderr)
logging.getLogger("batchmill").addHandler(log)
store = module.Store()
store.open(Path(sys.argv[1]))
def put(key, size):
    store.put("tuning", key, "x" * size)
    while store._pending and store._is_new:
        time.sleep(0.001)
    time.sleep(0.05)
put("before", 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, resource.RLIM_INFINITY))
put("large", 100_000)
put("too", 1)
assert store.get("tuning", "large") == "x" * 100_000
if sys.argv[2] == "room":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    put("again", 1)
store.close()
"""


@pytest.mark.parametrize(("then", "left"), [("room", {"before", "large", "too", "again"}), ("none", {"before"})])
def test_a_full_disk_is_told_once_and_what_is_kept_stays_so(tmp_path, then, left):
    child = subprocess.run([sys.executable, "-c", FILLS, str(tmp_path), then], capture_output=True, text=True, check=True)
    assert child.stderr.splitlines() == ["state_not_written"]
    assert kept(tmp_path).keys() == left


def test_a_value_or_a_key_that_cannot_be_kept_is_refused_where_it_is_put(store):
    with pytest.raises(TypeError):
        store.put(TUNING, "a", object())
    with pytest.raises(UnicodeEncodeError):
        store.put(TUNING, "\udce9", 1)
    assert store.all(TUNING) == {}


def test_each_migration_leads_to_the_next_version(tmp_path, monkeypatch):
    store = opened(tmp_path)
    store.put(TUNING, "a", [1])
    store.close()
    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, "UPDATE kept SET value = '[2]'"))
    assert kept(tmp_path) == kept(tmp_path) == {"a": [2]}
    with sqlite3.connect(tmp_path / NAME) as file:
        assert file.execute("PRAGMA user_version").fetchone() == (len(module.MIGRATIONS),)
        assert json.loads(file.execute("SELECT value FROM kept").fetchone()[0]) == [2]
    file.close()
