"""What becomes of circuit breakers, told in the log: the data plane changes them by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from batchmill.core.router import Version
from batchmill.logs import Log
from batchmill.periodic import every

log = Log(__name__)
STATES = ("closed", "half_open", "open")
LOOK_SECS = 0.25


class Breakers:
    """One thread's."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], tuple[str, int]] = {}  # state, and how often it had opened

    async def follow(self, versions: Callable[[], Sequence[Version]]) -> None:
        """Until it is cancelled."""
        await every(LOOK_SECS, lambda: self.look(versions()), "breakers")

    def look(self, versions: Sequence[Version]) -> None:
        """Tells what has changed since the last look; also that one opened in between."""
        now = {(one.name, one.version): (one.breaker, one.breaker_opened) for one in versions if one.breaker}
        for place, (state, opened) in now.items():
            before = self._seen.get(place, ("closed", 0))
            if (state, opened) != before:
                tell = log.warning if state == "open" or opened > before[1] else log.info
                tell(f"breaker_{state}", name=place[0], version=place[1], before=before[0], opened=opened)
        self._seen = now
