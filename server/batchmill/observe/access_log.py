"""The access log: a sample of the answered requests, a line each. The data plane keeps them, a thread of its own writes them."""

from __future__ import annotations

import threading
from collections.abc import Callable

from batchmill.logs import Log

log = Log(__name__)

PERIOD_SECS = 0.1


class AccessLog:
    """Writes what take() returns, now and then, until stop(); stdout or stderr may block it, and then the data plane drops and counts."""

    def __init__(self, take: Callable[[], list[dict[str, object]]]) -> None:
        self._take = take
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when what was there has been written, or after a second."""
        self._stopping.set()
        self._thread.join(1.0)

    def _write(self) -> None:
        last = False
        while not last:
            last = self._stopping.wait(PERIOD_SECS)
            for fields in self._take():
                log.info("request", **fields)
