"""The server's settings: one frozen value, made once from flags, environment and file, and passed down whole."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from batchmill.errors import ConfigError
from batchmill.logs import LogFormat, LogLevel

MIB = 1 << 20
MAX_IO_THREADS = 16
MAX_EXECUTOR_THREADS = 64
MAX_NUMBER = 2**31 - 1  # of anything else; multiplied to bytes or ns it stays far from 64 bits
MAX_PENDING_MIB = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What `batchmill serve` was asked for. None: worked out from the machine."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """A listener that speaks every protocol; 0: off."""
    grpc_port: int = 8001
    """A second listener that speaks every protocol; 0: off."""
    metrics_port: int = 0
    """A listener for scrapers, 8002 by custom, with /metrics, liveness and readiness alone; 0: off (/metrics is on the others anyway)."""
    uds: Path | None = None
    """Path of a unix socket that speaks every protocol."""
    state_dir: Path | None = None
    """Folder for what survives a restart, of one server at a time. None: one for each registry below $XDG_STATE_HOME/batchmill."""
    model_control: Literal["auto", "explicit", "none"] = "auto"
    """auto: the registry is watched. explicit: what --load-model names and load calls ask for. none: what is there at start."""
    load_model: tuple[str, ...] = ()
    """Model to load at the start, once for each, or * for all; with --model-control explicit alone."""
    poll_secs: float | None = None
    """Time between two scans of the registry. None: 15, or 2 where the file system tells of no changes."""
    probe_timeout_secs: float = 300.0
    """Once the server serves, a version is first loaded and run in a child process, and refused when that takes longer. 0: without a child."""
    strict_readiness: bool = False
    """Ready only when every version is. Off: ready when the first pass over the registry has ended."""
    admin_key_file: Path | None = None
    """File that holds the key of those who may load, unload and tune models. None: callers on this machine may."""
    admin_open: bool = False
    """Everybody may."""
    allow_upload: bool = False
    """A load call may bring files and settings, which are written into the registry."""
    cpu_budget: float | None = None
    """Cores to use. None: the cgroup's quota or the affinity, whichever is less."""
    io_threads: int | None = None
    """Threads that read and write sockets. None: 1 per 8 cores."""
    executor_threads: int | None = None
    """Threads that run models. None: the cpu budget."""
    max_body_mib: int = 64
    """Largest request."""
    max_response_mib: int = 256
    """Largest answer."""
    max_pending_mib: int | None = None
    """Bytes of requests held over all connections. None: a quarter of memory, at most 4096."""
    max_connections: int = 10_000
    """Connections at once."""
    max_streams: int = 1024
    """HTTP/2 streams at once on a connection."""
    max_header_kib: int = 32
    """Largest header section."""
    header_timeout_ms: int = 10_000
    """Time for a header section to arrive."""
    idle_timeout_secs: int = 120
    """HTTP/1.1 connections without a request are closed after this time; HTTP/2 ones are not."""
    min_body_rate: int = 1024
    """Bytes a second a body must arrive at, after 10 seconds."""
    max_resets: int = 10_000
    """Streams that a connection may reset in a burst."""
    max_resets_per_s: int = 1000
    """Resets a second by which that allowance refills."""
    lame_duck_secs: float = 3.0
    """After SIGTERM: not ready, but serving."""
    exit_timeout_secs: float = 30.0
    """After the lame-duck time: what is not answered by then is cut."""
    busy_status: Literal[429, 503] = 429
    """HTTP status when a queue is full."""
    cold_calls: int = 1024
    """Calls at once that Python answers (metadata, metrics and the like)."""
    cold_mib: int = 64
    """Bytes of such calls that may wait."""
    feedback_max_age_secs: float = 604800.0
    """How long after an answer its ground truth is taken, where a model's answers carry tokens."""
    server_name: str = "batchmill"
    """Name in the server's metadata, for clients that look for one: `triton`."""
    triton_metrics: bool = False
    """Tell the versions' metrics by Triton's names (nv_inference_*) as well."""
    access_log: float = 0.0
    """Share of the inferences that are logged when they are answered, a line each: 0 none, 1 all."""
    log_level: LogLevel = "info"
    """Least severe level that is written."""
    log_format: LogFormat = "auto"
    """auto: for people on a terminal, JSON lines otherwise."""

    def __post_init__(self) -> None:
        for name in ("port", "grpc_port", "metrics_port"):
            _check(0 <= getattr(self, name) <= 65535, name, getattr(self, name), "0 to 65535")
        for name in _POSITIVE:
            value = getattr(self, name)
            most = _MOST.get(name, MAX_NUMBER)
            _check(value is None or 1 <= value <= most, name, value, f"1 to {most}")
        for name in ("probe_timeout_secs", "lame_duck_secs", "exit_timeout_secs", "min_body_rate", "feedback_max_age_secs"):
            _check(0 <= getattr(self, name) <= MAX_NUMBER, name, getattr(self, name), f"0 to {MAX_NUMBER}")
        _check(self.cpu_budget is None or 0 < self.cpu_budget <= 4096, "cpu_budget", self.cpu_budget, "more than 0, at most 4096")
        named = 0 < len(self.server_name) <= 200 and self.server_name.isprintable()
        _check(named, "server_name", repr(self.server_name[:200]), "1 to 200 characters")
        _check(0 <= self.access_log <= 1, "access_log", self.access_log, "0 to 1")
        if self.load_model and self.model_control != "explicit":
            raise ValueError(f"--load-model: needs --model-control explicit, {self.model_control} given")
        if not (self.port or self.grpc_port or self.uds):
            raise ValueError("nothing to listen on: --port, --grpc-port and --uds are all off")

    def admin_key(self) -> bytes | None:
        """sha256 of the key. ConfigError when the file holds none."""
        if self.admin_key_file is None:
            return None
        try:
            key = self.admin_key_file.read_bytes().strip()
        except OSError as error:
            raise ConfigError(f"--admin-key-file: {self.admin_key_file}: {error.strerror}") from None
        if len(key) < 16:
            raise ConfigError(f"--admin-key-file: {self.admin_key_file}: at least 16 characters wanted")
        import hashlib  # 4 ms, which most starts need not spend

        return hashlib.sha256(key).digest()

    def cores(self) -> float:
        return self.cpu_budget or detect_cores()

    def io_thread_count(self) -> int:
        return self.io_threads or min(MAX_IO_THREADS, max(1, int(self.cores()) // 8))

    def executor_count(self) -> int:
        return self.executor_threads or min(MAX_EXECUTOR_THREADS, max(1, math.ceil(self.cores())))

    def wide_thread_count(self) -> int:
        """Threads that share a run of a wide model, of whole cores alone. 1: there are no wide models."""
        return min(self.executor_count(), max(1, int(self.cores())))

    def pending_bytes(self) -> int:
        return (self.max_pending_mib or min(MAX_PENDING_MIB, max(1, detect_memory_bytes() // 4 // MIB))) * MIB


_POSITIVE = (
    "io_threads", "executor_threads", "max_body_mib", "max_response_mib", "max_pending_mib", "max_connections", "max_streams",
    "max_header_kib", "header_timeout_ms", "idle_timeout_secs", "max_resets", "max_resets_per_s", "cold_calls", "cold_mib",
)  # fmt: skip

_MOST = {"io_threads": MAX_IO_THREADS, "executor_threads": MAX_EXECUTOR_THREADS}


def _check(fine: bool, name: str, value: object, wanted: str) -> None:
    if not fine:
        raise ValueError(f"--{name.replace('_', '-')}: {value} given, {wanted} wanted")


def detect_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """The cores this process may use: the affinity, or the cgroup's quota where that is less."""
    cores = float(len(os.sched_getaffinity(0)))
    quota = _read(cgroup / "cpu.max").split()  # version 2: "200000 100000" or "max 100000"
    if not quota:
        quota = [_read(cgroup / "cpu/cpu.cfs_quota_us"), _read(cgroup / "cpu/cpu.cfs_period_us")]
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]):
        cores = min(cores, int(quota[0]) / int(quota[1]))
    return cores


def detect_memory_bytes(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """The memory this process may use: the machine's, or the cgroup's limit where that is less."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _read(cgroup / name)
        if limit.isdigit():
            memory = min(memory, int(limit))
    return memory


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
