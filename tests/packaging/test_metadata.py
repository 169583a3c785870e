"""What is handed to others, as far as it can be told without compiling."""

from __future__ import annotations

import ast
import re
import sys
import tarfile
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from checkout import FOLDERS, ROOT, copy_sources

NEVER_IMPORTED = {"onnxruntime"}  # its C library is opened instead


def test_the_sdist_holds_what_the_wheel_is_built_from_and_nothing_that_a_build_made(sdist: Path, tmp_path: Path) -> None:
    sources = copy_sources(tmp_path / "sources")
    with tarfile.open(sdist) as archive:
        names = {member.name.split("/", 1)[1] for member in archive if member.isfile()}
    assert {name for name in names if name.split("/")[0] in FOLDERS} == {
        str(path.relative_to(sources)) for folder in FOLDERS for path in (sources / folder).rglob("*") if path.is_file()
    }
    assert names >= {"pyproject.toml", "README.md", "LICENSE"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=]", text)[0] for text in project["dependencies"]}
    providers, used = packages_distributions(), set()
    for module in {name for path in (ROOT / "server").rglob("*.py") for name in imported(path)} - sys.stdlib_module_names - {"batchmill"}:
        providing = declared & {name.lower().replace("_", "-") for name in providers.get(module, ())}
        assert providing, f"{module} is imported, and no dependency provides it"
        used |= providing
    assert used == declared - NEVER_IMPORTED


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports."""
    tree = list(ast.walk(ast.parse(path.read_text())))
    plain = [alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names]
    parts = [node.module for node in tree if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.split(".")[0] for name in plain + parts}
