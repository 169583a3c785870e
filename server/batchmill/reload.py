"""What SIGHUP changes: the settings that can be exchanged while the server serves, read anew from where they came."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from batchmill import logs
from batchmill.config import ServerConfig
from batchmill.errors import BatchmillError
from batchmill.logs import Log

log = Log(__name__)
AT_RUN_TIME = (
    "strict_readiness", "admin_key_file", "admin_open", "allow_upload", "lame_duck_secs", "exit_timeout_secs", "log_level", "log_format",
)  # fmt: skip


def reread(now: ServerConfig, read: Callable[[], ServerConfig]) -> tuple[ServerConfig, bytes | None] | None:
    """now, with what is read for the settings of AT_RUN_TIME, and the hash of the key; the log names what changed, and what would
    need another start. None: what is read is wrong, and the log says why.
    """
    try:
        wanted = read()
        key = wanted.admin_key()
    except BatchmillError as error:
        log.error("reload_refused", reason=str(error))
        return None
    changed = [field.name for field in dataclasses.fields(now) if getattr(now, field.name) != getattr(wanted, field.name)]
    taken = {name: getattr(wanted, name) for name in changed if name in AT_RUN_TIME}
    fresh = dataclasses.replace(now, **taken)
    if {"log_level", "log_format"} & taken.keys():
        logs.configure(fresh.log_level, fresh.log_format)
    log.info("reload", changed=[*taken])
    if left := [name for name in changed if name not in taken]:
        log.warning("reload_needs_restart", settings=left)
    return fresh, key


def on_hangup(act: Callable[[], object]) -> None:
    """From here on SIGHUP calls act(), which must not wait or log: the signal may come between any two instructions.

    One that a terminal sends as it closes ends the server, as SIGTERM does.
    """
    at_terminal = is_terminal()

    def handle(number: int, frame: FrameType | None) -> None:
        if at_terminal and not is_terminal():
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            act()

    signal.signal(signal.SIGHUP, handle)


def is_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
