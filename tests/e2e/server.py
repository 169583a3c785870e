"""A server as a child process on free loopback ports, ended by pid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from email.message import Message
from pathlib import Path
from types import TracebackType
from typing import Any


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

    def ask(self, path: str, method: str | None = None, body: bytes | None = None, headers: Mapping[str, str] | None = None,
            seconds: float = 30) -> tuple[int, Message, bytes]:
        """Status, headers and body. method: None: GET, or POST where there is a body."""
        request = urllib.request.Request(self.url + path, body, dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def get(self, path: str) -> tuple[int, bytes]:
        status, _, body = self.ask(path, seconds=10)
        return status, body

    def call(self, path: str, method: str | None = None, body: object = None, **headers: str) -> tuple[int, Any]:
        """Status, and what it answers: JSON both ways."""
        given = None if body is None else json.dumps(body).encode()
        status, _, answer = self.ask(path, method, given, {"content-type": "application/json", **headers})
        return status, json.loads(answer)

    def command(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """A command that asks this server."""
        command = [sys.executable, "-m", "batchmill", *map(str, arguments), "--url", self.url]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

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
