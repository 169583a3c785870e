"""A server as a child process on free loopback ports, ended by pid."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType


class ServerProcess:
    """`batchmill serve` on a registry; ready when entered, SIGTERM when left. port speaks everything."""

    def __init__(self, registry: Path, *flags: str, port: int = 0, stdin: int | None = None,
                 program: Sequence[str | Path] = (sys.executable, "-m", "batchmill")) -> None:
        home = registry.parents[2] if registry.is_file() else registry.parent  # not in a version's folder, which must stand still
        self.log_path = home / f"{registry.name}.log"
        self.port = port or free_port()
        command = [*map(str, program), "serve", str(registry), "--port", str(self.port), "--grpc-port", "0",
                   "--state-dir", str(home / "state"), "--lame-duck-secs", "0", *flags]
        self.log = self.log_path.open("w")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(command, stdin=stdin, stdout=self.log, stderr=self.log, env=environment)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def wait_ready(self, seconds: float = 30, path: str = "/v2/health/ready") -> None:
        """Returns when that path answers 200."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: {self.log_path.read_text()}")
            try:
                if self.get(path)[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise RuntimeError(f"not ready after {seconds} s: {self.log_path.read_text()}")

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20) -> int:
        """The exit code after the signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.log.close()

    def __enter__(self) -> ServerProcess:
        try:
            self.wait_ready()
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
