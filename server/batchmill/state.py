"""The folder for what survives a restart. One server at a time: it is locked by whoever has it open."""

from __future__ import annotations

import errno
import fcntl
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

from batchmill.errors import StartError
from batchmill.logs import Log

log = Log(__name__)
LOCK = "lock"  # holds the process id and the registry of its owner; the lock itself ends with the process


def default_folder(registry: Path, environment: Mapping[str, str]) -> Path | None:
    """$XDG_STATE_HOME/batchmill/<hash of the registry's real path>; None when there is no home folder."""
    home = Path(environment.get("XDG_STATE_HOME", ""))
    if not home.is_absolute():  # the XDG base directory specification: a relative one is to be ignored
        try:
            home = Path.home() / ".local" / "state"
        except RuntimeError:
            return None
    path = os.fsencode(registry.resolve())
    return home / "batchmill" / f"{zlib.crc32(path):08x}{zlib.adler32(path):08x}"  # hashlib takes 4 ms to import


class State:
    """Owns the lock of its folder until the process ends. folder is None when nothing can be kept: it serves all the same."""

    def __init__(self, folder: Path | None, registry: Path) -> None:
        """Raises StartError when another server has the folder. One that cannot be written is told, and done without."""
        self.folder: Path | None = None
        self._lock = -1
        try:
            if folder is None:
                raise OSError(errno.ENOENT, "there is no home folder; --state-dir names another place")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._take(folder, registry)
            self.folder = folder
        except OSError as error:
            log.warning("state_not_kept", path=str(folder or ""), reason=error.strerror, note="what is set at run time ends with this process")

    def _take(self, folder: Path, registry: Path) -> None:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()}, registry {registry.resolve()}\n".encode(errors="surrogateescape"), 0)
            self._lock = lock
        except BlockingIOError:
            owner = os.pread(lock, 4096, 0).decode(errors="replace").strip()
            os.close(lock)
            raise StartError(f"{folder}: another server has this state directory ({owner}); --state-dir names another") from None
        except OSError:
            os.close(lock)
            raise

    def close(self) -> None:
        """Lets another server have the folder; the end of the process does too."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock, self.folder = -1, None
