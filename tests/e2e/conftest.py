from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("e2e.faults")

from . import models  # noqa: E402
from .server import ServerProcess  # noqa: E402


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    registry: Path = tmp_path_factory.mktemp("served") / "registry"
    for datatype in models.DATATYPES:
        models.identity(registry, datatype)
    models.identity(registry, "FP32", [], "scalar")
    models.identity(registry, "INT32", [2, 2], "fixed")
    models.linear(registry)
    models.linear(registry, version="2", factor=3.0)
    (registry / "linear" / "model.yaml").write_text("versions: {policy: all}\nlabels: {stable: 1}\n")
    models.lookup(registry)
    models.slow(registry)
    with ServerProcess(registry) as process:
        yield process


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Of one model, linear, whose version 1 has the factor 1."""
    models.linear(tmp_path / "registry", factor=1.0)
    return tmp_path / "registry"
