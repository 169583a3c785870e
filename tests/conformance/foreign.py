"""The clients in other languages: built as their README says, and run as it says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .calls import REST_ONLY, told
from .columns import Client

CLIENTS = Path(__file__).resolve().parents[2] / "clients"
BUILD_SECS, RUN_SECS = 1200, 120  # a first build downloads its libraries


@dataclass(frozen=True, slots=True)
class Language:
    folder: str
    title: str
    tools: tuple[str, ...]  # programs that the build needs
    versions: tuple[str, ...]  # commands; the first line of what they print

    def missing(self) -> list[str]:
        return [tool for tool in self.tools if shutil.which(tool) is None]

    def blocks(self) -> list[list[str]]:
        """The commands of its README, block by block: how to build, how to run."""
        text = (CLIENTS / self.folder / "README.md").read_text()
        return [block.strip().splitlines() for block in re.findall(r"(?:^    .+\n)+", text, re.M)]

    def shell(self, command: str, seconds: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=CLIENTS / self.folder, timeout=seconds,
                              capture_output=True, text=True, check=False)

    def build(self) -> str:
        """Nothing, or what went wrong."""
        done = self.shell("\n".join(self.blocks()[0]), BUILD_SECS)
        return "" if done.returncode == 0 else (done.stderr or done.stdout)[-2000:]

    def run(self, address: str, calls: Iterable[str]) -> dict[str, str]:
        given = list(calls)
        wanted = [call for call in given if call not in REST_ONLY]
        command = f"{self.blocks()[1][0].strip().replace('localhost:8001', address)} {shlex.join(wanted)}"
        return dict.fromkeys(given, "–") | told(wanted, self.shell(command, RUN_SECS))

    def version(self) -> str:
        told = [self.shell(command, 60) for command in self.versions]
        return ", ".join((one.stdout or one.stderr).strip().splitlines()[0] for one in told)

    def client(self) -> Client:
        return Client(self.folder, self.title, self.version, self.run)


LANGUAGES = (
    Language("go", "Go", ("go", "protoc"), ("go list -m google.golang.org/grpc", "go version")),
    Language("java", "Java", ("java", "javac", "mvn"), ("ls build/lib | grep netty-shaded | sed 's/.jar$//'", "java --version")),
    Language("node", "Node", ("node", "npm"),
             ("echo @grpc/grpc-js $(node -p \"require('@grpc/grpc-js/package.json').version\")", "echo Node $(node --version)")),
    Language("cpp", "C++", ("g++", "protoc", "grpc_cpp_plugin", "pkg-config"), ("echo grpc++ $(pkg-config --modversion grpc++)", "g++ --version")),
)
