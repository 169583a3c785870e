"""Tries a version in a child process first: one that crashes, hangs or eats all memory ends that child, not the service.

The child is an interpreter of its own, for to fork a process with threads is not safe. It is kept for the next version for a
while, ends with the server, and is killed when it takes too long.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchmill.registry.prove import Proof
from batchmill.registry.settings import ModelSettings

if TYPE_CHECKING:
    import subprocess

IDLE_SECS = 10.0  # what a child is kept for: to start one takes 0.1 s of a core, which many models at once need not pay each
END_SECS = 5.0  # what is waited for a killed child; the kernel may still hold it in a read
MAX_COMPLAINT = 200  # characters of what a child said last on its stderr


@dataclass(frozen=True, slots=True)
class Finding:
    """reason: why the version must not be loaded; empty when it may. died: the child did not outlive it. proof: of batching, when it may."""

    reason: str = ""
    died: bool = False
    proof: Proof | None = None


class ChildEnded(Exception):
    """The child has ended; the text says how."""


class ChildLate(ChildEnded):
    """It has not answered in time."""


class Probe:
    """Owns its children. examine() may be called by several threads at once; each gets a child of its own.

    The kernel ends a child with the thread that started it, so those threads must live as long as the probe.
    """

    def __init__(self, timeout_secs: float) -> None:
        self._timeout_secs = timeout_secs
        self._idle: list[Child] = []
        self._all: set[Child] = set()
        self._lock = threading.Lock()
        self.closed = False

    def examine(self, name: str, number: str, path: Path, settings: ModelSettings) -> Finding:
        """Loads, proves and runs a version in a child, which takes as long as that does, or the time limit."""
        request = {"name": name, "number": number, "path": str(path.absolute()), "settings": asdict(settings.for_loading())}
        while True:
            child: Child | None = None
            used = False
            try:
                child = self._take()
                used = child.used
                verdict = child.ask(request, self._timeout_secs)
                finding = Finding(verdict["reason"], proof=Proof(bool(verdict["batched"]), str(verdict["batching"])))
            except (ChildEnded, OSError, ValueError, KeyError) as error:
                if child is not None:
                    self._end(child)
                if used and not self.closed and not isinstance(error, ChildLate):
                    continue  # what the version before left behind may have ended it: only a fresh child blames this one
                return Finding(f"probe: {error}", died=child is not None)
            self._keep(child)
            return finding

    def close(self) -> None:
        """Ends all children, and what waits for one."""
        with self._lock:
            self.closed = True
            idle, busy = [*self._idle], self._all - {*self._idle}
        for child in idle:
            self._end(child)
        for child in busy:
            child.kill()  # the thread that asked it ends it

    def _take(self) -> Child:
        with self._lock:
            if self._idle:
                child = self._idle.pop()
                child.cancel_end()
                return child
        child = Child()
        with self._lock:
            self._all.add(child)
            closed = self.closed
        if closed:
            self._end(child)
            raise ChildEnded("the server stops")
        return child

    def _keep(self, child: Child) -> None:
        with self._lock:
            if not self.closed:
                self._idle.append(child)
                child.end_later(self._end_idle)

    def _end_idle(self, child: Child) -> None:
        with self._lock:
            if child not in self._idle:
                return
            self._idle.remove(child)
        self._end(child)

    def _end(self, child: Child) -> None:
        with self._lock:
            self._all.discard(child)
            with contextlib.suppress(ValueError):
                self._idle.remove(child)
        child.end()


class Child:
    """One process and its pipes. used: it has examined a version before."""

    def __init__(self) -> None:
        import subprocess  # most servers never need it

        # By the paths of this process, wherever it was started; -P, so that nothing in the working directory is taken for a module.
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        command = [sys.executable, "-P", "-m", "batchmill.registry.probe_child", str(os.getpid())]
        # A group of its own, as a terminal's Ctrl-C is the server's alone; not a session, of which the kernel's autogroups would give each the
        # same share of a core, however nice: the child's took as much as the data plane's, or, on Linux 6.18, had none for many seconds.
        try:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": paths}, process_group=0,
            )  # fmt: skip
        except OSError as error:
            raise ChildEnded(f"no child could be started ({error.strerror}); --probe-timeout-secs 0 does without") from None
        self.used = False
        self._stage = "it started"
        self._complaint = b""
        self._timer: threading.Timer | None = None
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)

    def ask(self, request: dict[str, Any], timeout_secs: float) -> dict[str, Any]:
        """Its verdict. ChildEnded when it has none, or none in time."""
        import json  # as subprocess: not needed for the first answer

        self.used, end = True, time.monotonic() + timeout_secs
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            return self._verdict(end, json.loads)
        except TimeoutError:
            raise ChildLate(f"not done after {timeout_secs:g} s, while {self._stage}") from None
        except (EOFError, BrokenPipeError):
            raise ChildEnded(self._epitaph()) from None

    def _verdict(self, end: float, parse: Callable[[bytes], dict[str, Any]]) -> dict[str, Any]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        answers, complaints = self._process.stdout.fileno(), self._process.stderr.fileno()
        poll, pending = select.poll(), b""
        poll.register(answers, select.POLLIN)
        poll.register(complaints, select.POLLIN)
        while (left := end - time.monotonic()) > 0:
            for file, _ in poll.poll(left * 1000):
                chunk = os.read(file, 1 << 16)
                if file == complaints:
                    self._complaint = (self._complaint + chunk)[-4096:]
                    if not chunk:
                        poll.unregister(complaints)
                    continue
                if not chunk:
                    raise EOFError
                *lines, pending = (pending + chunk).split(b"\n")
                for message in map(parse, lines):
                    if "stage" not in message:
                        return message
                    self._stage = str(message["stage"])
        raise TimeoutError

    def _epitaph(self) -> str:
        """How it ended, and what it said last."""
        import subprocess

        assert self._process.stderr is not None
        try:
            code = self._process.wait(END_SECS)
        except subprocess.TimeoutExpired:
            return f"closed its pipe while {self._stage}"
        with contextlib.suppress(OSError):
            self._complaint += os.read(self._process.stderr.fileno(), 1 << 16)
        said = self._complaint.decode(errors="replace").strip().splitlines()[-1:]
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"{ending(code)}{hint} while {self._stage}" + "".join(f": {line.strip()[:MAX_COMPLAINT]}" for line in said)

    def end_later(self, end: Callable[[Child], None]) -> None:
        self._timer = threading.Timer(IDLE_SECS, end, [self])
        self._timer.daemon = True
        self._timer.start()

    def cancel_end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Kills and reaps it. By whoever asked it last: nobody else may close a pipe that is read."""
        import subprocess

        self.cancel_end()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECS)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()


def ending(code: int) -> str:
    """A return code of subprocess in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    names = {number.value: number.name for number in signal.Signals}
    return f"ended by {names.get(-code, f'signal {-code}')}"
