"""Server processes on one core: started, waited for, ended by their id; and who used the machine's CPU time."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count() or 1
START_SECS = 60
STOP_SECS = 15
YARDSTICKS = Path(__file__).resolve().parent / "yardsticks"


def compiled(name: str, folder: Path, *libraries: str) -> str:
    """The path of the program made of yardsticks/NAME.c."""
    target = folder / name
    subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", str(target), str(YARDSTICKS / f"{name}.c"), *libraries], check=True)
    return str(target)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def family(pid: int) -> list[int]:
    """The process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def cpu_secs(pid: int) -> float:
    """User and system time of the process and its descendants so far."""
    ticks = 0
    for member in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_SEC


def stand_back(core: str) -> None:
    """The calling thread, and those it starts, stay on the load tools' core, any for '', and leave it when these want it."""
    if core:
        os.sched_setaffinity(0, {int(core)})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds so far: on the clock, and of CPU in the whole machine, in the server, in this process and the tools it ran."""

    clock: float
    machine: float
    server: float
    client: float

    @classmethod
    def now(cls, server_pid: int | None = None) -> Usage:
        user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
        machine = (user + nice + system + irq + softirq) / TICKS_PER_SEC
        return cls(time.monotonic(), machine, cpu_secs(server_pid) if server_pid else 0.0, sum(os.times()[:4]))


def others(before: Usage, after: Usage, cores: int = CORES) -> float:
    """The share of the machine that other processes used meanwhile."""
    ours = after.server - before.server + after.client - before.client
    return max(0.0, after.machine - before.machine - ours) / (after.clock - before.clock) / cores


class Server:
    """A command pinned to a core; listens on `port` when entered, is ended by its process id when left."""

    def __init__(self, name: str, command: list[str], port: int, core: str, log: Path) -> None:
        self.name, self.port, self.log = name, port, log
        self.command = ["taskset", "-c", core, *command] if core else command
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid  # taskset becomes the command: the id stays

    def __enter__(self) -> Server:
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output)
        try:
            self.wait_listening()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_listening(self) -> None:
        assert self.process is not None
        end = time.monotonic() + START_SECS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode}: {self.log.read_text(errors='replace')[-3000:]}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"{self.name} did not listen after {START_SECS} s")


def batchmill(name: str, registry: Path, core: str, folder: Path, *launcher: str, flags: tuple[str, ...] = ()) -> Server:
    """The server under test, on a free port that speaks every protocol. launcher: arguments of Python in place of -m batchmill."""
    port = free_port()
    command = [sys.executable, *(launcher or ("-m", "batchmill")), "serve", str(registry), "--port", str(port), "--grpc-port", "0",
               "--cpu-budget", "1", "--state-dir", str(folder / f"{name}-state"), "--lame-duck-secs", "0", *flags]
    return Server(name, command, port, core, folder / f"{name}.log")
