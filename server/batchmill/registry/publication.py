"""What is published of the models, and what waits for it: versions that are in no table any more, and calls whose answer it is."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace

from batchmill.registry.entry import Entry
from batchmill.registry.status import ModelStatus, VersionStatus

PUBLISH_SECS = 0.05  # between two route tables while many models come: each is made whole
Models = Mapping[str, ModelStatus]


class Publication:
    """changed: set by those who change what is told of a model. The keeper's thread owns it; others may wait for first."""

    def __init__(self, publish: Callable[[Models, bool], None], retire: Callable[[VersionStatus], None], clock: Callable[[], float]) -> None:
        self.changed = True
        self.first = threading.Event()  # set once there is a table
        self._publish, self._retire, self._clock = publish, retire, clock
        self._published_at = 0.0
        self._retired: list[VersionStatus] = []
        self._done: list[Future[None]] = []

    def due(self) -> float:
        """When publish() may have something to do, by the clock. The first table waits for no time, but for a version that can answer."""
        return self._published_at + PUBLISH_SECS if self.changed and self.first.is_set() else math.inf

    def let_go(self, version: VersionStatus | None) -> None:
        """It is retired after the next table."""
        if version is not None and version.served is not None:
            self._retired.append(version)
            self.changed = True

    def tell(self, done: Future[None]) -> None:
        """Once what has changed by now is published."""
        self._done.append(done)

    def publish(self, entries: Mapping[str, Entry], complete: bool) -> None:
        """If there is something new, it is time, and, before the first pass has ended, something can answer."""
        now = self._clock()
        if not self.changed or (self.first.is_set() and now < self._published_at + PUBLISH_SECS):
            return
        if not complete and not self.first.is_set() and not any(entry.status.ready() for entry in entries.values()):
            return
        self.changed, self._published_at = False, now
        self._publish({name: replace(entry.status, versions=dict(entry.status.versions)) for name, entry in sorted(entries.items())}, complete)
        self.first.set()
        for entry in entries.values():
            entry.status.led = entry.status.leads()
        retired, self._retired = self._retired, []
        for version in retired:
            self._retire(version)

    def answer(self, entries: Mapping[str, Entry]) -> None:
        """What a call has done is published by now, unless something has changed since."""
        if self.changed:
            return
        for done in self._done:
            done.set_result(None)
        self._done.clear()
        for entry in entries.values():
            entry.answer_at_rest()
