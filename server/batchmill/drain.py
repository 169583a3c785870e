"""The end of a server that was signalled."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from batchmill.config import ServerConfig
from batchmill.core.reactor import Server
from batchmill.logs import Log

if TYPE_CHECKING:
    from batchmill.endpoints.dispatch import Dispatcher

log = Log(__name__)


async def drain(server: Server, dispatcher: Dispatcher, config: ServerConfig) -> None:
    """Not ready (the data plane said so at the signal), serve on, GOAWAY, answer what was accepted, end. A second signal cuts it short."""
    import asyncio

    ctrl_c = server.first_signal() == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty()
    lame_duck = 0.0 if ctrl_c else config.lame_duck_secs
    log.info("server_draining", lame_duck_secs=lame_duck)
    await until(lambda: server.signal_count() > 1, lame_duck)
    server.drain()
    dispatcher.drain()
    await asyncio.sleep(0.05)
    await until(lambda: server.signal_count() > 1 or (server.idle() and not server.bridge.open_calls), config.exit_timeout_secs)
    unanswered = server.stats()["in_flight"] + server.bridge.open_calls
    await dispatcher.stop()
    server.drain(final=True)
    await asyncio.sleep(0.1)  # the last bytes leave
    log.info("server_stopped", unanswered=unanswered)


async def until(done: Callable[[], bool], seconds: float) -> None:
    """Returns when done() is true, or when the time is over."""
    import asyncio

    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        await asyncio.sleep(0.01)
