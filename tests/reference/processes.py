"""What the kernel tells of processes: a server's children, without asking the server."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Held:
    """What a process holds, but for pacing threads and the descriptor of each: they begin once the machine is busy, whatever is asked.
    peak_kb: the highest rss_kb so far.
    """

    rss_kb: int
    descriptors: int
    threads: int
    peak_kb: int

    @classmethod
    def by(cls, pid: int) -> Held:
        status = Path(f"/proc/{pid}/status").read_text()
        found = dict(re.findall(r"^(\w+):\s+(\d+)", status, re.M))
        pacing = [*threads_of(pid).values()].count("pacer")
        return cls(int(found["VmRSS"]), len(os.listdir(f"/proc/{pid}/fd")) - pacing, int(found["Threads"]) - pacing, int(found["VmHWM"]))


def threads_of(pid: int) -> dict[int, str]:
    """Their names, by number."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):      # it has ended meanwhile
            found[int(task.name)] = (task / "comm").read_text().strip()
    return found


def children_of(pid: int) -> list[int]:
    """Zombies too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(after_name[1]) == pid:
                found.append(int(entry.name))
    return found


def busy_child_of(pid: int) -> int:
    """The only child, once it is at work: it is a program of its own (until then it holds up its parent, vfork(2)) and has mapped the runtime."""

    def at_work(child: int) -> bool:
        process = Path(f"/proc/{child}")
        return b"probe_child" in (process / "cmdline").read_bytes() and "onnxruntime" in (process / "maps").read_text()

    (child,) = wait_until(lambda: [child for child in children_of(pid) if at_work(child)])
    return int(child)


def is_alive(pid: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(done: Callable[[], Any], seconds: float = 20) -> Any:
    """What done() returns, once that is true."""
    end = time.monotonic() + seconds
    while not (result := done()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return result
