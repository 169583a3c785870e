"""Installed for real, in empty environments; compiles the data plane several times: `make package-test`."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from checkout import ROOT, copy_sources, run
from e2e.server import ServerProcess

pytestmark = pytest.mark.long
MOST_MB = 220  # of the base install; 165 of them are ONNX Runtime, numpy and grpcio
NOT_COUNTED = {"pip", "setuptools", "pkg_resources", "_distutils_hack", "__pycache__"}
UNOPTIMISED = {"CFLAGS": "-O0", "CXXFLAGS": "-O0"}  # where the speed of what is compiled is not asked


def empty_environment(folder: Path) -> Path:
    """The folder of a new environment's programs."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    return folder / "bin"


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """Built from the sdist, by an environment that knows nothing else."""
    programs = empty_environment(sdist.parent / "builder")
    run(programs / "pip", "wheel", "--no-deps", "-w", sdist.parent, sdist, cwd=sdist.parent)
    return next(sdist.parent.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    programs = empty_environment(wheel.parent / "installed")
    run(programs / "pip", "install", wheel, cwd=wheel.parent)
    return programs


def assert_serves(programs: Path, folder: Path) -> None:
    """batchmill serve and batchmill infer work together, far from the sources."""
    shutil.copytree(ROOT / "examples" / "registry", folder / "registry")
    with ServerProcess(folder / "registry", program=[programs / "batchmill"]) as server:
        answer = json.loads(run(programs / "batchmill", "infer", "digits", "--url", server.url, "--json", cwd=folder))
    assert answer["model"] == "digits"
    assert answer["outputs"]


def test_the_wheel_holds_the_package_its_modules_and_stubs_and_no_sources(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(name) for name in archive.namelist()]
    assert {name.parts[0].split("-")[0] for name in names} == {"batchmill"}
    inside = {name for name in names if name.parts[0] == "batchmill"}
    assert {name.suffix for name in inside} == {".py", ".pyi", ".so", ".typed"}
    core = ROOT / "ext" / "batchmill" / "core"
    assert {name.name.split(".")[0] for name in inside if name.suffix == ".so"} == {path.stem for path in core.glob("*.pyx")}
    assert {name.name for name in inside if name.parts[1] == "core" and name.suffix == ".pyi"} == {path.name for path in core.glob("*.pyi")}
    assert {Path("batchmill/py.typed"), Path("batchmill/proto/inference_pb2.py"), Path("batchmill/proto/inference_pb2.pyi")} <= inside


def test_a_wheel_built_from_the_sdist_serves(installed: Path, tmp_path: Path) -> None:
    assert_serves(installed, tmp_path)


def test_the_base_install_is_small(installed: Path) -> None:
    (packages,) = installed.parent.glob("lib/python*/site-packages")
    parts = {path: path.relative_to(packages).parts for path in packages.rglob("*") if path.is_file()}
    size_mb = sum(path.stat().st_size for path, within in parts.items() if NOT_COUNTED.isdisjoint(part.split("-")[0] for part in within)) / 1e6
    print(f"base install: {size_mb:.0f} MB")
    assert size_mb <= MOST_MB


@pytest.mark.parametrize("options", [[], ["--editable"]], ids=["plain", "editable"])
def test_pip_installs_a_clean_checkout(options: list[str], tmp_path: Path) -> None:
    sources = copy_sources(tmp_path / "sources")
    programs = empty_environment(tmp_path / "environment")
    run(programs / "pip", "install", *options, ".", cwd=sources, **UNOPTIMISED)
    assert_serves(programs, tmp_path)
