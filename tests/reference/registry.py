"""A registry without a server: what a keeper makes of a directory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from batchmill.core import ort
from batchmill.core.router import Version
from batchmill.registry.keeper import Keeper
from batchmill.registry.loader import adjust_version, load_version
from batchmill.registry.status import ModelStatus

WAIT_SECS = 30


class AtOnce(Executor):
    """Runs what it is given by the thread that gives it."""

    def submit(self, task):
        task()


class Kept:
    """A running keeper; wait() for what it publishes."""

    def __init__(self, root: Path, load: Callable = lambda name, number, path, settings: load_version(name, str(number), path, settings, 1), **options) -> None:
        self.models: dict[str, ModelStatus] = {}
        self.complete = False
        self.tables = 0
        self.retired: list[str] = []
        self.changed = threading.Condition()
        self.keeper = Keeper(root, load, self._publish, lambda version: self.retired.append(version.number),
                             adjust=lambda version, settings: adjust_version(version, settings, 1), **options)
        self.keeper.start()

    def _publish(self, models, complete: bool) -> None:
        with self.changed:
            self.models, self.complete, self.tables = dict(models), complete, self.tables + 1
            self.changed.notify_all()

    def wait(self, wanted: Callable[[dict[str, ModelStatus]], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: wanted(self.models), WAIT_SECS), {name: model.versions for name, model in self.models.items()}

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_) -> None:
        self.keeper.stop()


def first_pass(root: Path) -> dict[str, ModelStatus]:
    """The models once the first pass has ended."""
    with Kept(root, watched=False) as kept:
        kept.wait(lambda _: kept.complete)
        return kept.models


class Generation(Version):
    """Can be referred to weakly, and knows what it was made from. may_end: its folder was removed, or it was unloaded.

    half: its file was another one at the end of the load.
    """

    def __new__(cls, name: str, number: int, native: ort.Model, generation: int, half: bool = False) -> Generation:
        made = super().__new__(cls, name, str(number), native, batched=False, fast_ok=False)
        made.number, made.generation, made.half, made.may_end = number, generation, half, False
        return made


class Held(Executor):
    """Runs what it is given when it is told to."""

    def __init__(self) -> None:
        self.tasks: list[Callable[[], None]] = []

    def submit(self, task: Callable[[], None]) -> None:
        self.tasks.append(task)

    def shutdown(self, **_: object) -> None:
        pass
