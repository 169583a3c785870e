"""A server's registry, routes, rollouts and audit trail, driven by hand: no sockets, no clock and no thread but the state's and the hashing one."""

from __future__ import annotations

import asyncio
import shutil
import weakref
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchmill.audit import Audit
from batchmill.core import ort
from batchmill.core.reactor import Server
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.repository import Guard, Repository
from batchmill.endpoints.routes import Switchboard
from batchmill.recorder import Recorder
from batchmill.registry import layout
from batchmill.registry.keeper import Keeper
from batchmill.registry.status import ModelStatus, VersionStatus
from batchmill.rollout.book import Book
from batchmill.rollout.conductor import Conductor
from batchmill.rollout.table import entry_of
from batchmill.store import Store
from reference.registry import Generation, Held

PEER = "unix:"
Act = Callable[[ModelStatus, Collection[int]], None]


@dataclass
class Asked:
    """A call to the server, and what it was told."""

    task: asyncio.Task[Any]
    action: str

    @property
    def went_well(self) -> bool:
        return self.task.done() and not self.task.cancelled() and not self.task.exception()


class Served:
    """published: called after each table, with the versions of the one before. move: may be replaced before begin()."""

    def __init__(self, home: Path, server: Server, native: ort.Model) -> None:
        self.home, self.root, self.server, self.native = home, home / "registry", server, native
        self.now, self.starts = 1000.0, 0
        self.loop = asyncio.new_event_loop()
        self.state = home / "state-0"
        self.state.mkdir()
        self.asked: list[Asked] = []
        self.models: Mapping[str, ModelStatus] = {}
        self.table: set[Generation] = set()
        self.alive: weakref.WeakSet[Generation] = weakref.WeakSet()

    # A process.
    def begin(self) -> None:
        self.models, self.complete = {}, False
        self.table = set()
        self.server.publish([], False)
        self.loads = Held()
        self.retired: list[Generation] = []
        self.store = Store()
        self.store.open(self.state)
        self.book = Book(self.store)
        self.recorder = Recorder(Audit(self.store))
        self.keeper = Keeper(self.root, self.load, self.publish, self.retire, adjust=lambda *_: None, poll_secs=1, store=self.store,
                             naming=self.book.naming, clock=lambda: self.now, loaders=self.loads)
        self.conductor = Conductor(self.store, self.book, self.move, self.recorder.rollout, clock=lambda: self.now)
        catalog = Catalog(lambda: self.models, is_complete=lambda: self.complete)
        self.repository = Repository(self.keeper.load, self.keeper.unload, self.keeper.tune, Guard(open=True), None, recorder=self.recorder)
        self.switchboard = Switchboard(catalog, self.repository, self.book, self.move)
        self.recorder.started(self.now, {"start": self.starts})
        self.keeper.first_look()

    def end(self, kill: bool) -> None:
        """kill: what has not been done yet never is; what was put is in the file, but no more than that comes."""
        if kill:
            self.starts += 1
            found = self.home / f"state-{self.starts}"
            self.store.ask(lambda _: shutil.copytree(self.state, found)).result(30)
            self.state = found
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self.loop.run_until_complete(asyncio.wait(left))
        self.asked.clear()
        self.keeper.stop()
        self.recorder.stopped()
        self.store.close()

    # What the keeper is given.
    def load(self, name: str, number: int, path: Path, settings: object) -> VersionStatus:
        text = path.read_text() if path.exists() else ""
        if not text.startswith("."):
            return VersionStatus(str(number), "FAILED", "broken or gone")
        made = Generation(name, number, self.native, len(text))
        self.alive.add(made)
        return VersionStatus(str(number), "READY", served=made, model=self.native, path=path, stamp=layout.stamp_of(path.parent))

    def publish(self, models: Mapping[str, ModelStatus], complete: bool) -> None:
        entries = [entry_of(model) for model in models.values()]
        self.server.publish(entries, complete)
        before, self.table = self.table, {version for entry in entries for version in entry.versions}
        self.models, self.complete = models, complete
        self.published(before)
        self.recorder.published(models, complete)

    def retire(self, version: VersionStatus) -> None:
        assert version.served not in self.table, "it is in the table that was published last"
        self.retired.append(version.served)

    def published(self, before: set[Generation]) -> None: ...

    def move(self, name: str, act: Act) -> Future[None]:
        return self.keeper.change(name, act)

    # Calls, and time.
    def ask(self, action: str, work: Awaitable[Any]) -> Asked:
        asked = Asked(self.loop.create_task(work), action)
        asked.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self.asked.append(asked)
        self.pump()
        return asked

    def pump(self) -> None:
        """What the event loop has to do now, and what follows from it."""
        for _ in range(8 if any(not one.task.done() for one in self.asked) else 0):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def turn(self, *steps: float) -> None:
        for secs in steps:
            self.now += secs
            self.keeper.turn(0)
            self.pump()

    def end_loads(self) -> None:
        while self.loads.tasks:
            self.loads.tasks.pop(0)()

    def answers(self, *asked: Asked) -> None:
        """Returns when these calls, or all, have been answered, which wait for the disk alone."""
        if tasks := [one.task for one in asked or self.asked]:
            _, left = self.loop.run_until_complete(asyncio.wait(tasks, timeout=3))
            assert not left, "a call is not answered"

    def close(self) -> None:
        self.end(kill=False)
        self.loop.close()
        self.server.publish([])
        shutil.rmtree(self.home)
