"""Ends versions that are out of service: waits until the data plane has let go of them, then frees their memory."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from batchmill.core.router import Version
from batchmill.logs import Log
from batchmill.registry.status import VersionStatus

log = Log(__name__)
ASK_SECS = 0.01
TRIM_SECS = 10.0  # between two calls of malloc_trim, which takes 350 ms on a large heap and holds other threads up


class Reaper:
    """A thread of its own, because to destroy a large session takes long. release says whether nothing points at a version any more.

    tell: called with the model's name and the seconds it took, of each version that has ended.
    """

    def __init__(self, release: Callable[[Version], bool], tell: Callable[[str, float], None]) -> None:
        self._release = release
        self._tell = tell
        self._given: queue.SimpleQueue[tuple[VersionStatus, float]] = queue.SimpleQueue()
        self._trimmed_at = 0.0

    def start(self) -> None:
        threading.Thread(target=self._run, name="reaper", daemon=True).start()

    def retire(self, version: VersionStatus) -> None:
        self._given.put((version, time.monotonic()))

    def _run(self) -> None:
        waiting: list[tuple[VersionStatus, float]] = []
        trim = False
        while True:
            with suppress(queue.Empty):
                waiting.append(self._given.get(timeout=ASK_SECS if waiting else TRIM_SECS if trim else None))
            left = [(version, since) for version, since in waiting if not self._is_gone(version, since)]
            trim |= len(left) < len(waiting)
            waiting = left
            if trim and not waiting and time.monotonic() > self._trimmed_at + TRIM_SECS:
                self._trimmed_at, trim = time.monotonic(), False
                import ctypes

                ctypes.CDLL(None).malloc_trim(0)

    def _is_gone(self, version: VersionStatus, since: float) -> bool:
        if version.served is None or not self._release(version.served):
            return False
        name = version.served.name
        version.served = version.model = None
        log.info("version_retired", name=name, version=version.number)
        self._tell(name, time.monotonic() - since)
        return True
