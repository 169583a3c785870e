"""ONNX Runtime's own messages on their way to the log: some of them, for a caller's bad data makes the runtime write a line a request."""

from __future__ import annotations

from collections.abc import Callable

from batchmill.logs import Log
from batchmill.periodic import every

log = Log(__name__)

PERIOD_SECS = 1.0  # between two calls of tell()
BURST = 10  # lines at once; after it one a period


class RuntimeLog:
    """tell() is to be called every PERIOD_SECS. take: the messages since its last call, and how many more there were."""

    def __init__(self, take: Callable[[], tuple[list[str], int]]) -> None:
        self._take = take
        self._allowed = BURST
        self._suppressed = 0

    async def follow(self) -> None:
        """Until it is cancelled."""
        await every(PERIOD_SECS, self.tell, "runtime_log")

    def tell(self) -> None:
        """Writes what there is, as far as it may; what was left out is counted on the next line that may be written."""
        self._allowed = min(BURST, self._allowed + 1)
        lines, dropped = self._take()
        told, left = lines[: self._allowed], lines[self._allowed :]
        for line in told:
            counted = {"suppressed": self._suppressed} if self._suppressed else {}
            log.warning("onnxruntime_message", message=line, **counted)
            self._suppressed = 0
        self._allowed -= len(told)
        self._suppressed += len(left) + dropped
