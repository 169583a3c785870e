"""What is set or learned at run time and survives a restart: values by kind and key, in one SQLite file of the state folder.

Reads are served from memory. A thread of its own reads the file at the start and writes it, so that nobody waits for a disk but those
who read before it has been read. What cannot be written stays in memory, and is tried again with the next write. Who has a table of his
own in the file asks that thread to work on it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from batchmill.logs import Log

if TYPE_CHECKING:
    import sqlite3

log = Log(__name__)
T = TypeVar("T")
NAME = "state.db"
RUNS, TUNING, ROUTE, ROLLOUT, IN_SERVICE, QUALITY, SEAL = "runs", "tuning", "route", "rollout", "in_service", "quality", "seal"  # kinds
MOST = {RUNS: 10_000, QUALITY: 10_000}  # of a kind; who has not been used for longest goes
USED_SECS = 24 * 3600  # how exactly the time of the last use is kept
CLOSE_SECS = 5.0  # what the end of the server waits for a disk
# Each leads to the version of its place, counted from 1. What has been released is not edited: another one is appended.
MIGRATIONS = (
    "CREATE TABLE kept (kind TEXT, key TEXT, value TEXT NOT NULL, used_s INTEGER NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID",
    # The audit trail: before, after and files are JSON. Its hashes tell of changes; the triggers keep them from being made by mistake.
    """CREATE TABLE audit (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL, "key" INTEGER NOT NULL, action TEXT NOT NULL,
           model TEXT NOT NULL, version TEXT NOT NULL, "before" TEXT NOT NULL, "after" TEXT NOT NULL, files TEXT NOT NULL, outcome TEXT NOT NULL,
           reason TEXT NOT NULL, hash TEXT NOT NULL);
       CREATE INDEX audit_model ON audit (model, seq);
       CREATE TRIGGER audit_insert BEFORE INSERT ON audit WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM audit)
           BEGIN SELECT RAISE(ABORT, 'the audit trail takes entries at its end alone'); END;
       CREATE TRIGGER audit_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail is not changed'); END;
       CREATE TRIGGER audit_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'nothing leaves the audit trail'); END""",
)
_PUT = "INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM kept WHERE kind = ? AND key = ?"


class Row(NamedTuple):
    value: str  # JSON
    used_s: int  # since 1970


class NewerSchema(Exception):
    """The file is one of a later release."""


class NoFile(Exception):
    """Nothing is kept beyond this process; the text says why."""


class Closed(Exception):
    """The store was closed before."""


class Store:
    """Its methods are for any thread. Until open(), and without a folder, it forgets with the process.

    Values are what JSON can say, keys texts in UTF-8.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._thread: threading.Thread | None = None
        self._is_read = threading.Event()
        self._is_read.set()
        self._change = threading.Condition()  # guards what follows
        self._rows: dict[str, dict[str, Row]] = {}  # by kind and key, those used last at the end
        self._pending: dict[tuple[str, str], Row | None] = {}  # to be written; None: deleted
        self._asked: list[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]] = []
        self._is_new = self._closing = False  # is_new: there is something in pending that was not tried yet
        self._no_file = "there is no state folder"  # why, where there is none

    def open(self, folder: Path | None) -> None:
        """Called once. Has the file read, when there is one: else the first write makes it."""
        if folder is None:
            return
        self._path = folder / NAME
        if os.path.lexists(self._path):
            self._is_read.clear()
            self._start()

    def get(self, kind: str, key: str) -> Any:
        """None: there is none. To ask for it is to use it."""
        self._is_read.wait()
        with self._change:
            row = self._rows.get(kind, {}).get(key)
            if row is not None and kind in MOST:
                self._use(kind, key, row)
        return None if row is None else json.loads(row.value)

    def all(self, kind: str) -> dict[str, Any]:
        """By key. Uses none of them."""
        self._is_read.wait()
        with self._change:
            rows = dict(self._rows.get(kind, {}))
        return {key: json.loads(row.value) for key, row in rows.items()}

    def put(self, kind: str, key: str, value: Any) -> None:
        key.encode()  # what is no UTF-8 raises here, not in the thread
        row = Row(json.dumps(value), int(time.time()))
        self._is_read.wait()
        with self._change:
            self._set(kind, key, row)
            self._prune(kind)

    def together(self) -> AbstractContextManager[object]:
        """What is put within is written all or not at all, whatever ends the process."""
        self._is_read.wait()
        return self._change

    def delete(self, kind: str, key: str) -> None:
        self._is_read.wait()
        with self._change:
            if self._rows.get(kind, {}).pop(key, None) is not None:
                self._write(kind, key, None)

    def ask(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Has the thread do it, after what was put before. Fails with what work raises, sqlite3.Error, OSError, NoFile or Closed."""
        done: Future[T] = Future()
        done.set_running_or_notify_cancel()  # who no longer waits for it cannot take it back
        with self._change:
            refused = Closed("the state is closed") if self._closing else None if self._path else NoFile(self._no_file)
            if not refused:
                self._asked.append((work, done))
                self._start()
                self._change.notify()
        if refused:
            done.set_exception(refused)
        return done

    def close(self) -> None:
        """Returns when all is written, or after CLOSE_SECS."""
        with self._change:
            self._closing = True
            self._change.notify()
        if self._thread:
            self._thread.join(CLOSE_SECS)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="state", daemon=True)
            self._thread.start()

    # With the lock held.
    def _use(self, kind: str, key: str, row: Row) -> None:
        self._rows[kind][key] = self._rows[kind].pop(key)
        now_s = int(time.time())
        if abs(now_s - row.used_s) > USED_SECS:
            self._set(kind, key, Row(row.value, now_s))

    def _set(self, kind: str, key: str, row: Row) -> None:
        rows = self._rows.setdefault(kind, {})
        rows.pop(key, None)
        rows[key] = row
        self._write(kind, key, row)

    def _prune(self, kind: str) -> None:
        rows = self._rows[kind]
        while len(rows) > MOST.get(kind, len(rows)):
            oldest = next(iter(rows))
            del rows[oldest]
            self._write(kind, oldest, None)

    def _write(self, kind: str, key: str, row: Row | None) -> None:
        if self._path and not self._closing:
            self._pending[kind, key] = row
            self._is_new = True
            self._start()
            self._change.notify()

    # The thread.
    def _run(self) -> None:
        import sqlite3  # takes 2 ms, which a start without a file does not pay

        assert self._path
        file = None
        try:
            if not self._is_read.is_set():
                file = opened(self._path)
                self._read(file)
            self._write_what_comes(self._path, file)
        except (NewerSchema, sqlite3.Error, OSError) as error:
            self._give_up(str(error))
        except Exception:  # ours
            log.exception("state_fault", path=str(self._path))
            self._give_up("internal error")

    def _give_up(self, reason: str) -> None:
        log.warning("state_not_kept", path=str(self._path), reason=reason, note="what is set at run time ends with this process")
        with self._change:
            self._path, self._no_file = None, reason
            self._pending.clear()
            asked, self._asked = self._asked, []
        for _, done in asked:
            done.set_exception(NoFile(reason))
        self._is_read.set()

    def _read(self, file: sqlite3.Connection) -> None:
        found = file.execute("SELECT kind, key, value, used_s FROM kept ORDER BY used_s").fetchall()
        with self._change:
            for kind, key, value, used_s in found:
                self._rows.setdefault(kind, {})[key] = Row(value, used_s)
        self._is_read.set()

    def _write_what_comes(self, path: Path, file: sqlite3.Connection | None) -> None:
        import sqlite3

        failed = False
        while True:
            with self._change:
                self._change.wait_for(lambda: self._is_new or self._asked or self._closing)
                pending, self._pending, self._is_new = self._pending, {}, False
                closing, asked = self._closing, len(self._asked)  # who asks later may have put something that is not in pending
            problem = None
            try:
                if pending or asked:
                    file = file or opened(path)
                if file and pending:
                    write(file, pending)
                    failed = False
            except (sqlite3.Error, OSError) as error:
                problem = error
                if pending and not failed:
                    log.warning("state_not_written", path=str(path), reason=str(error), note="tried again with the next write")
                    failed = True
                with self._change:
                    self._pending = pending | self._pending
            self._do_what_is_asked(file, problem, asked)
            if closing:
                break
        if file:
            file.close()

    def _do_what_is_asked(self, file: sqlite3.Connection | None, problem: Exception | None, count: int) -> None:
        """So many of it, the first. problem: why there is no file, where there is none."""
        with self._change:
            asked, self._asked = self._asked[:count], self._asked[count:]
        for work, done in asked:
            try:
                if file is None:
                    raise problem or Closed("the state is closed")
                done.set_result(work(file))
            except Exception as error:  # to who asked
                done.set_exception(error)


def opened(path: Path) -> sqlite3.Connection:
    """Of this release's version. A file that is broken is set aside, for a new one. Raises NewerSchema, sqlite3.Error or OSError."""
    import sqlite3

    try:
        return connected(path)
    except sqlite3.DatabaseError as error:
        broken = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB)
        if error.sqlite_errorcode & 0xFF not in broken:  # such as a full disk
            raise
        log.warning("state_set_aside", path=str(path), reason=str(error), kept_as=set_aside(path).name)
    return connected(path)


def connected(path: Path) -> sqlite3.Connection:
    import sqlite3

    file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        # Nobody else may have the file, as nobody else may have the folder: then no memory needs to be shared through another file.
        file.execute("PRAGMA locking_mode = EXCLUSIVE")
        (version,) = file.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise NewerSchema(f"its schema has version {version}, and this release knows {len(MIGRATIONS)}")
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")  # a machine that fails may cost the last writes, and no more
        for number in range(version, len(MIGRATIONS)):
            file.executescript(f"BEGIN; {MIGRATIONS[number]}; PRAGMA user_version = {number + 1}; COMMIT")
        file.execute("SELECT count(value) FROM kept").fetchone()  # reads all of it
        file.execute("SELECT count(hash) FROM (SELECT hash FROM audit ORDER BY seq DESC LIMIT 1)").fetchone()  # after which the next one comes
    except BaseException:
        file.close()
        raise
    return file


def set_aside(path: Path) -> Path:
    """Where the file is then, with the log that belongs to it."""
    number = 1
    while os.path.lexists(aside := path.with_name(f"{path.name}.broken-{number}")):
        number += 1
    for end in ("-wal", "-shm"):
        if os.path.lexists(f"{path}{end}"):
            os.rename(f"{path}{end}", f"{aside}{end}")
    path.rename(aside)
    return aside


def write(file: sqlite3.Connection, pending: Mapping[tuple[str, str], Row | None]) -> None:
    """All or nothing."""
    file.execute("BEGIN IMMEDIATE")
    try:
        file.executemany(_PUT, [(*place, *row) for place, row in pending.items() if row])
        file.executemany(_DELETE, [place for place, row in pending.items() if not row])
        file.execute("COMMIT")
    except BaseException:
        if file.in_transaction:  # some failures have ended it
            file.execute("ROLLBACK")
        raise
