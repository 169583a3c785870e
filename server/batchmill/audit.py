"""The audit trail: who has changed what, when, from what to what, and how it ended. Entries are chained by hashes and are never changed.

They lie in the state file, and what is told as recorded has reached the disk. Without a state folder they are kept in memory, and end with
the process. Nobody is refused because the trail cannot be written: that is told by the log and by state(), and tried again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from batchmill import chain
from batchmill.chain import START, Entry, Event, Head, Verdict
from batchmill.errors import AuditUnreadable
from batchmill.ledger import FileLedger, Ledger, MemoryLedger, Wanted
from batchmill.logs import Log
from batchmill.store import Closed, NoFile, Store

if TYPE_CHECKING:
    import sqlite3

log = Log(__name__)
T = TypeVar("T")
WAIT_SECS = 1.0  # for a disk: what was changed is in force by then, and its caller waits for the answer
WAITING_MAX = 10_000  # entries that cannot be written yet; further ones are counted
BATCH = 1000  # entries in one commit
CHUNK = 500  # entries that are read at once: a few ms, in which nothing is written


class Page(NamedTuple):
    entries: list[Entry]  # newest first
    head: Head  # of the whole trail


class Audit:
    """Its methods are for any thread, and but for submit() and select() not for the event loop: they wait for the disk.

    The place of an entry is the order of submit(); its time may be a little before that of the one before it.
    """

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since 1970."""
        self._store = store
        self._clock = clock
        self._verifying = threading.Lock()
        self._lock = threading.Lock()  # guards what follows
        self._waiting: deque[tuple[Entry, Future[Head]]] = deque()  # to be written
        self._is_asked = False  # the store's thread will look at it
        self._lost = self._untold = 0  # more than could wait; of these, how many the trail does not tell yet
        self._head = START  # the last that was written by this process
        self._problem = ""  # why the last try to write failed
        self._memory: MemoryLedger | None = None
        self._no_file = ""  # why it is in memory
        self._verified: dict[str, Any] | None = None

    def submit(self, event: Event, at: float | None = None) -> Future[Head]:
        """Done when the entry is on the disk. at: when it was, in seconds since 1970; None: now. TypeError, ValueError: JSON cannot say it."""
        entry = chain.entry_of(event, int((self._clock() if at is None else at) * 1000))
        done: Future[Head] = Future()
        done.set_running_or_notify_cancel()  # who no longer waits for it cannot take it back
        refused = False
        with self._lock:
            if refused := len(self._waiting) >= WAITING_MAX:
                self._lost += 1
                self._untold += 1
            else:
                self._waiting.append((entry, done))
        if refused:
            done.set_exception(AuditUnreadable("too many entries wait to be written"))
        self.retry()
        return done

    def record(self, event: Event, wait_secs: float = WAIT_SECS) -> Head | None:
        """The same, and waits for it. None: it is not on the disk yet."""
        try:
            return self.submit(event).result(wait_secs)
        except (NotYet, AuditUnreadable, Closed):
            return None

    def retry(self) -> None:
        """Has what waits written."""
        with self._lock:
            if self._memory is not None:
                told = self._take_in_memory()
            elif (self._waiting or self._untold) and not self._is_asked:
                told, self._is_asked = None, True
            else:
                return
        if told is None:
            self._store.ask(self._write).add_done_callback(self._on_written)
        else:
            for done, head in told:
                done.set_result(head)

    def head(self) -> Head:
        return self._read(lambda ledger: ledger.head()).result()

    def select(self, wanted: Wanted) -> Future[Page]:
        """Fails with AuditUnreadable."""
        return self._read(lambda ledger: Page(ledger.select(wanted), ledger.head()))

    def entries(self, wanted: Wanted | None = None) -> list[Entry]:
        """The same, and waits for it."""
        return self.select(wanted or Wanted()).result().entries

    def export(self) -> Iterator[str]:
        """Lines of JSON: all entries, oldest first, and at last the head."""
        head = self.head()
        for entry in self._all(head.seq):
            if entry is None:
                raise AuditUnreadable("an entry cannot be read; the verification says which")
            yield chain.line_of(entry)
        yield chain.last_line(head)

    def verify(self, *noted: Head, pause_secs: float = 0.0) -> Verdict:
        """Reads all of it. noted: heads seen before, which have to be there still, as the last one that this process has written.

        pause_secs: after each CHUNK, so that others have the interpreter too.
        """
        with self._verifying:
            with self._lock:
                own = self._head
            start = self._read(lambda ledger: ledger.start()).result()
            verdict = chain.verified(self._all(pause_secs=pause_secs), *(one for one in (own, *noted) if one.seq > start.seq), start=start)
            with self._lock:
                at, entries = chain.told_time(int(self._clock() * 1000)), verdict.head.seq - start.seq
                self._verified = {"at": at, "entries": entries, "broken": verdict.broken, "reason": verdict.problem}
        if verdict.broken is not None:
            log.error("audit_broken", seq=verdict.broken, reason=verdict.problem)
        return verdict

    def state(self) -> dict[str, Any]:
        """kept: where. waiting, lost: entries that are not written yet, and that never will be, since the start. problem: why they are not.
        verified: what the last verification found.
        """
        with self._lock:
            kept, problem = "memory" if self._memory is not None else "file", self._problem or self._no_file
            return {"kept": kept, "waiting": len(self._waiting), "lost": self._lost, "problem": problem, "verified": self._verified}

    def close(self, wait_secs: float = WAIT_SECS) -> None:
        """Before the store is closed: has the last entries written."""
        with self._lock:
            last = self._waiting[-1][1] if self._waiting else None
        self.retry()
        if last is not None:
            try:
                last.result(wait_secs)
            except (NotYet, AuditUnreadable, Closed):
                log.warning("audit_not_written", entries=len(self._waiting), reason=self._problem or "the disk takes too long")

    # The store's thread.
    def _write(self, file: sqlite3.Connection) -> None:
        with self._lock:
            self._is_asked = False
            batch = list(islice(self._waiting, BATCH))
            lost = self._untold if len(batch) == len(self._waiting) else 0
        if not batch and not lost:
            return
        entries = [entry for entry, _ in batch]
        if lost:
            reason = "they could not be written, and were too many to wait"
            told = Event("audit.lost", actor="audit", outcome="failed", after={"entries": lost}, reason=reason)
            entries.append(chain.entry_of(told, int(self._clock() * 1000)))
        heads = FileLedger(file).append(entries)
        with self._lock:
            for _ in batch:
                self._waiting.popleft()
            self._untold -= lost
            self._head = heads[-1]
        for (_, done), head in zip(batch, heads, strict=False):
            done.set_result(head)

    def _on_written(self, written: Future[None]) -> None:
        error = written.exception()
        if isinstance(error, NoFile):
            return self._keep_in_memory(str(error))
        with self._lock:
            self._is_asked = False if error else self._is_asked
            was, self._problem = self._problem, str(error) if error else ""
            waiting = len(self._waiting)
        if error and not was:
            log.error("audit_not_written", entries=waiting, reason=str(error), note="they wait, and are tried again")
        elif was and not error:
            log.info("audit_written_again")
        if not error and waiting:
            self.retry()
        return None

    def _keep_in_memory(self, reason: str) -> None:
        with self._lock:
            if self._memory is None:
                self._memory, self._no_file, self._head = MemoryLedger(), reason, START
                log.warning("audit_not_kept", reason=reason, note="the audit trail ends with this process")
        self.retry()

    def _take_in_memory(self) -> list[tuple[Future[Head], Head]]:
        """With the lock held."""
        assert self._memory is not None
        waiting = [*self._waiting]
        self._waiting.clear()
        return list(zip((done for _, done in waiting), self._memory.append([entry for entry, _ in waiting]), strict=True))

    # Reading.
    def _read(self, look: Callable[[Ledger], T]) -> Future[T]:
        """What was submitted before is there, unless it cannot be written."""
        self.retry()
        told: Future[T] = Future()
        told.set_running_or_notify_cancel()
        if self._memory is not None:
            self._read_in_memory(look, told)
            return told

        def on_done(done: Future[T]) -> None:
            error = done.exception()
            if isinstance(error, NoFile):
                self._keep_in_memory(str(error))
                self._read_in_memory(look, told)
            elif error:
                told.set_exception(AuditUnreadable(f"the audit trail cannot be read: {error}"))
            else:
                told.set_result(done.result())

        self._store.ask(lambda file: look(FileLedger(file))).add_done_callback(on_done)
        return told

    def _read_in_memory(self, look: Callable[[Ledger], T], told: Future[T]) -> None:
        assert self._memory is not None
        with self._lock:
            found = look(self._memory)
        told.set_result(found)

    def _all(self, last: int | None = None, pause_secs: float = 0.0) -> Iterator[Entry | None]:
        """Oldest first, up to seq `last`."""
        after = self._read(lambda ledger: ledger.start()).result().seq
        while last is None or after < last:
            most = CHUNK if last is None else min(CHUNK, last - after)
            found = self._read(lambda ledger, after=after, most=most: ledger.read(after, most)).result()  # type: ignore[misc]
            yield from found
            if not found or found[-1] is None:
                return
            after = found[-1]["seq"]
            time.sleep(pause_secs)
