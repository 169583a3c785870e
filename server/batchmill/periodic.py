"""What is done over and over on the event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from batchmill.logs import Log

log = Log(__name__)


async def every(seconds: float, act: Callable[[], Awaitable[object] | None], name: str, *, at_once: bool = True) -> None:
    """Calls act(), and so long after it has ended again, until it is cancelled. What goes wrong with one is told, and the next one is taken.

    name: of the act, in the log. at_once: the first is not waited for.
    """
    import asyncio  # by those who have a loop: a start without one is measured

    if not at_once:
        await asyncio.sleep(seconds)
    while True:
        try:
            if (work := act()) is not None:
                await work
        except Exception:  # ours
            log.exception(f"{name}_fault")
        await asyncio.sleep(seconds)
