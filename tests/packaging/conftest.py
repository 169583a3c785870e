from __future__ import annotations

import sys
from pathlib import Path

import pytest

from checkout import copy_sources, run


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist of sources among which a build has left its products."""
    folder = tmp_path_factory.mktemp("sdist")
    sources = copy_sources(folder / "sources")
    for name in ("queue.cpp", "queue.so"):
        (sources / "ext" / "batchmill" / "core" / name).touch()
    code = "import sys; sys.path.insert(0, 'protos'); import build_backend; build_backend.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", code, folder, cwd=sources)
    return next(folder.glob("*.tar.gz"))
