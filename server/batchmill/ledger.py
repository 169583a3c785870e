"""Where audit entries lie: in the state file, on the thread that owns it, or in memory where there is no such file. Nothing is ever changed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from batchmill.chain import FIELDS, START, Entry, Event, Head, canonical, entry_of, head_of, linked

if TYPE_CHECKING:
    import sqlite3

MEMORY_MAX = 10_000  # entries
_JSON = ("before", "after", "files")
_COLUMNS = ", ".join((*(f'"{name}"' for name in FIELDS), "hash"))
_INSERT = f"INSERT INTO audit ({_COLUMNS}) VALUES ({', '.join('?' * (len(FIELDS) + 1))})"
_SELECT = f"SELECT {_COLUMNS} FROM audit"


class Wanted(NamedTuple):
    """Which entries. action: that one, or all that begin with it and a dot. since: as they tell their time. before: seq; 0: any.

    newest: of these, the last so many.
    """

    model: str = ""
    action: str = ""
    since: str = ""
    before: int = 0
    newest: int = 100


class Ledger(Protocol):
    def append(self, entries: Sequence[Entry]) -> list[Head]:
        """All or none, in this order; their places."""

    def head(self) -> Head: ...

    def select(self, wanted: Wanted) -> list[Entry]:
        """Newest first."""

    def read(self, after: int, most: int) -> list[Entry | None]:
        """Oldest first, from the one after seq `after` on. None: an entry that cannot be read."""

    def start(self) -> Head:
        """The entry before the first that is there."""


class FileLedger:
    """The table of a connection, for the thread that has it. Raises sqlite3.Error."""

    def __init__(self, file: sqlite3.Connection) -> None:
        self._file = file

    def append(self, entries: Sequence[Entry]) -> list[Head]:
        file, head = self._file, self.head()
        first = [] if head.seq else [self._began(entries[0]["at"])]
        placed: list[Entry] = []
        for entry in [*first, *entries]:
            placed.append(linked(entry, head))
            head = head_of(placed[-1])
        file.execute("PRAGMA synchronous = FULL")  # what has been told as recorded outlives the machine's power
        try:
            file.execute("BEGIN IMMEDIATE")
            file.executemany(_INSERT, [row_of(entry) for entry in placed])
            file.execute("COMMIT")
        finally:
            if file.in_transaction:  # some failures have ended it
                file.execute("ROLLBACK")
            file.execute("PRAGMA synchronous = NORMAL")
        return [head_of(entry) for entry in placed[len(first) :]]

    def _began(self, at: str) -> Entry:
        """What a new trail begins with, so that one that was set aside with its file is not forgotten."""
        path = Path(self._file.execute("PRAGMA database_list").fetchone()[2])
        aside = sorted(one.name for one in path.parent.glob(f"{path.name}.broken-*") if one.suffix.removeprefix(".broken-").isdigit())
        reason = f"beside it lies {', '.join(aside)}" if aside else ""
        return {**entry_of(Event("audit.began", actor="start", reason=reason), 0), "at": at}

    def head(self) -> Head:
        found = self._file.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
        if not found:
            return START
        seq, told = found
        return Head(seq, told if isinstance(told, str) and told.isascii() else ascii(told))  # somebody else's: the next entry follows it all the same

    def select(self, wanted: Wanted) -> list[Entry]:
        terms = {
            "model = ?": (wanted.model,) if wanted.model else (),
            "(action = ? OR substr(action, 1, ?) = ?)": (wanted.action, len(wanted.action) + 1, f"{wanted.action}.") if wanted.action else (),
            "at >= ?": (wanted.since,) if wanted.since else (),
            "seq < ?": (wanted.before,) if wanted.before else (),
        }
        where = " AND ".join(term for term, values in terms.items() if values) or "1"
        values = [value for values in terms.values() for value in values]
        rows = self._file.execute(f"{_SELECT} WHERE {where} ORDER BY seq DESC LIMIT ?", [*values, wanted.newest])
        return [entry for row in rows if (entry := entry_in(row))]

    def read(self, after: int, most: int) -> list[Entry | None]:
        import sqlite3

        found: list[Entry | None] = []
        try:
            for row in self._file.execute(f"{_SELECT} WHERE seq > ? ORDER BY seq LIMIT ?", (after, most)):
                found.append(entry_in(row))
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # none: a text that is no UTF-8
            if code & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            found.append(None)
        return found

    def start(self) -> Head:
        return START


def row_of(entry: Entry) -> list[object]:
    return [canonical(value) if name in _JSON else value for name, value in entry.items()]


def entry_in(row: Sequence[object]) -> Entry | None:
    """None: somebody else has written it."""
    entry: Entry = dict(zip((*FIELDS, "hash"), row, strict=True))
    try:
        entry.update({name: json.loads(entry[name]) for name in _JSON}, key={0: False, 1: True}[entry["key"]])
        canonical(entry)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return entry


class MemoryLedger:
    """The last MEMORY_MAX entries."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._start = START

    def append(self, entries: Sequence[Entry]) -> list[Head]:
        heads = []
        for entry in entries:
            self._entries.append(linked(entry, self.head()))
            heads.append(self.head())
            if len(self._entries) > MEMORY_MAX:
                self._start = head_of(self._entries.popleft())
        return heads

    def head(self) -> Head:
        return head_of(self._entries[-1]) if self._entries else self._start

    def select(self, wanted: Wanted) -> list[Entry]:
        return [entry for entry in reversed(self._entries) if is_wanted(entry, wanted)][: wanted.newest]

    def read(self, after: int, most: int) -> list[Entry | None]:
        skip = max(0, after - self._start.seq)
        return [self._entries[at] for at in range(skip, min(skip + most, len(self._entries)))]

    def start(self) -> Head:
        return self._start


def is_wanted(entry: Entry, wanted: Wanted) -> bool:
    return (
        wanted.model in ("", entry["model"])
        and (wanted.action in ("", entry["action"]) or entry["action"].startswith(f"{wanted.action}."))
        and entry["at"] >= wanted.since
        and (not wanted.before or entry["seq"] < wanted.before)
    )
