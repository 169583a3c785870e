"""Says that something may have changed below a folder. A hint: the periodic scan is the truth."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from batchmill.logs import Log

log = Log(__name__)
EVENTS_POLL_SECS, SILENT_POLL_SECS = 15.0, 2.0
_SILENT = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "virtiofs", "vboxsf"}  # and fuse.*


def poll_secs(root: Path, mounts: Path = Path("/proc/self/mountinfo")) -> float:
    """The time between two scans: short where the file system tells of no changes that other machines make."""
    kind = file_system(root.resolve(), mounts)
    return SILENT_POLL_SECS if kind in _SILENT or kind.startswith("fuse") else EVENTS_POLL_SECS


def file_system(path: Path, mounts: Path) -> str:
    """The type of the mount that holds a path; empty when that cannot be read."""
    best, kind = -1, ""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = before.split(" ")[4].replace("\\040", " ")
        if len(point) > best and path.is_relative_to(point):
            best, kind = len(point), after.split(" ")[0]
    return kind


def start(root: Path, hint: Callable[[], None]) -> None:
    """A daemon thread that calls hint() after changes below root, for as long as the process lives."""
    threading.Thread(target=_watch, args=(root, hint), name="watch", daemon=True).start()


def _watch(root: Path, hint: Callable[[], None]) -> None:
    import watchfiles

    while True:
        try:
            quiet = False
            for changes in watchfiles.watch(
                root, watch_filter=None, debounce=100, step=20, rust_timeout=500, yield_on_timeout=True, raise_interrupt=False
            ):
                if changes or not quiet:  # what came before there was a watch has not been told
                    hint()
                quiet = True
        except (OSError, RuntimeError) as error:  # the root is gone, or there are no watches left: scans go on
            log.debug("watch_failed", path=str(root), reason=str(error))
        time.sleep(SILENT_POLL_SECS)
