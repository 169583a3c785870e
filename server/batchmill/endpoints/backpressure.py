"""Keeps what waits for a slow caller of a streamed cold answer small."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from batchmill.core.bridge import ColdCall

PENDING_MAX = 1 << 20  # bytes: as much as the HTTP/1.1 front end holds before it stops to read


def pauses(call: ColdCall) -> Iterator[float]:
    """Seconds to wait, again and again, until the caller has caught up or has gone."""
    pause = 0.001
    while call.pending > PENDING_MAX and not call.cancelled:
        yield pause
        pause = min(2 * pause, 0.05)


async def writable(call: ColdCall) -> None:
    for pause in pauses(call):
        await asyncio.sleep(pause)
