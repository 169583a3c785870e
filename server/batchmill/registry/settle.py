"""Whether a version's files are complete: nobody is known to write them, and they have stood still."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Collection

from batchmill.registry.layout import Stamp

STILL_SECS = 0.4  # between two looks that see the same; a copy in place changes size or mtime all the time
OLD_SECS = 2.0  # files that nobody has touched for so long need no second look: they were renamed into place
_F_SETSIG = 10


class Settling:
    """Remembers since when each version's folder has looked as it does."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[Stamp, float]] = {}

    def is_settled(self, number: int, stamp: Stamp, now: float) -> bool:
        """now: monotonic seconds. Asked again and again until True; a folder that is being written starts anew."""
        before = self._since.get(number)
        if before is None or before[0] != stamp:
            before = self._since[number] = (stamp, now)
        if now - before[1] < STILL_SECS and not is_old(stamp):
            return False
        if any(is_being_written(line[0]) for line in stamp):
            self._since[number] = (stamp, now)
            return False
        del self._since[number]
        return True

    def keep_only(self, numbers: Collection[int]) -> None:
        """The others are not asked for any more."""
        for number in self._since.keys() - {*numbers}:
            del self._since[number]

    @property
    def waiting(self) -> bool:
        return bool(self._since)


def is_old(stamp: Stamp) -> bool:
    """Whether the youngest change is long ago, by the wall clock; a clock that jumped costs a second look at most."""
    youngest = max((ctime for _, _, _, ctime, _ in stamp), default=0)
    return time.time_ns() - youngest > OLD_SECS * 1e9


def is_being_written(path: str) -> bool:
    """Whether a process has the file open for writing: a read lease is refused then (fcntl(2), F_SETLEASE).

    False where leases do not work: on network file systems, and for files of other users.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Should a writer come just now, the kernel tells with a signal: one that is ignored by default, SIGIO would end us.
        fcntl.fcntl(file, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(file)
