"""The build's inputs as a clean clone has them, and commands run on them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
FOLDERS = ("ext", "protos", "server")
MADE = shutil.ignore_patterns("*.so", "*.cpp", "*.egg-info", "__pycache__", "proto")  # what a build leaves


def copy_sources(target: Path) -> Path:
    target.mkdir()
    for name in FILES:
        shutil.copy2(ROOT / name, target)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, target / name, ignore=MADE)
    return target


def run(*command: object, cwd: Path, **environment: str) -> str:
    """What a command prints, without what the tests' own Python was told; the test fails when the command does."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BATCHMILL_", "VIRTUAL_ENV"))}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=clean | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout
