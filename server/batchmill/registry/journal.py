"""What is being loaded, written ahead: a server that died over a version finds it here at its next start.

A file of lines, `what TAB files TAB path`: "began" before a load, "ended" after it, and "died N" for what N processes in a row did
not outlive. Written with one write(2) a line, which the death of this process cannot tear; a machine that fails may lose lines.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

from batchmill.logs import Log
from batchmill.registry import layout

log = Log(__name__)
NAME = "loads"
COMPACT_BYTES = 1 << 20  # written afresh at a quiet moment when it has grown so far: some 5,000 loads


class Journal:
    """Owns its file; its methods are for any thread. Without a folder, or on a full disk, it forgets with the process."""

    def __init__(self, folder: Path | None) -> None:
        self._path = folder / NAME if folder else None
        self._lock = threading.Lock()
        self._began: dict[str, str] = {}  # files by path
        self._died: dict[str, tuple[str, int]] = {}  # files and deaths by path
        self._file, self._size = -1, 0
        self._read()
        self._rewrite()

    @property
    def has_suspects(self) -> bool:
        return bool(self._died)

    def deaths(self, path: Path, files: str) -> int:
        """How many processes in a row died over these very files."""
        with self._lock:
            died, count = self._died.get(str(path), ("", 0))
        return count if died == files else 0

    def add_death(self, path: Path, files: str) -> None:
        """Of another process than this one."""
        count = self.deaths(path, files) + 1
        with self._lock:
            self._died[str(path)] = files, count
            self._write(f"died {count}", files, str(path))

    @contextlib.contextmanager
    def loading(self, path: Path, files: str) -> Iterator[None]:
        """Around a load. To come out of it alive ends a row of deaths."""
        with self._lock:
            self._began[str(path)] = files
            self._write("began", files, str(path))
        try:
            yield
        finally:
            with self._lock:
                self._began.pop(str(path), None)
                self._died.pop(str(path), None)
                self._write("ended", files, str(path))
                if self._size > COMPACT_BYTES and not self._began:
                    self._rewrite()

    def close(self) -> None:
        """The server ends, by its own will: what it still loads is to blame for nothing."""
        with self._lock:
            self._rewrite()
            if self._file >= 0:
                os.close(self._file)
            self._path, self._file = None, -1

    def _read(self) -> None:
        began: dict[str, str] = {}
        with contextlib.suppress(OSError):
            for line in self._path.read_text(errors="replace").splitlines() if self._path else ():
                what, files, path = (*line.split("\t"), "", "")[:3]
                path = path.encode(errors="replace").decode("unicode_escape", errors="replace")
                began.pop(path, None)
                if what == "began":
                    began[path] = files
                elif what.startswith("died ") and what[5:].isdecimal():
                    self._died[path] = files, int(what[5:])
                elif what == "ended":
                    self._died.pop(path, None)
        for path, files in began.items():
            died, count = self._died.get(path, ("", 0))
            self._died[path] = files, count + 1 if died == files else 1
            log.warning("load_interrupted", path=path, deaths=self._died[path][1])

    def _write(self, what: str, files: str, path: str) -> None:
        if self._file < 0:
            return
        try:
            self._size += os.write(self._file, line_of(what, files, path))
        except OSError as error:
            self._give_up(error)

    def _rewrite(self) -> None:
        """Only what has died, in a new file that takes the place of the old one at once."""
        if self._path is None:
            return
        content = b"".join(line_of(f"died {count}", files, path) for path, (files, count) in self._died.items())
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_bytes(content)
            file = os.open(fresh, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            fresh.rename(self._path)
        except OSError as error:
            return self._give_up(error)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size = file, len(content)

    def _give_up(self, error: OSError) -> None:
        log.warning("journal_not_kept", path=str(self._path), reason=error.strerror, note="a load that ends the server will not be known")
        if self._file >= 0:
            os.close(self._file)
        self._path, self._file = None, -1


def line_of(what: str, files: str, path: str) -> bytes:
    return f"{what}\t{files}\t".encode() + path.encode("unicode_escape") + b"\n"


def fingerprint(path: Path) -> str:
    """Of a version's files and its model.yaml, by the path of its model: other when one is touched, the same after they were mounted anew."""
    files = layout.files_of(path)
    lines = (*layout.stamp_of(files), *layout.stamp_of(files.parent / "model.yaml"))
    return f"{zlib.crc32(repr([line[:3] for line in lines]).encode(errors='surrogateescape')):08x}"  # path, size and mtime
