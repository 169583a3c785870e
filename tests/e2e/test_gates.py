"""What a new version must pass before it gets traffic, while the old one serves."""

from __future__ import annotations

import numpy as np
import pytest

from . import models
from .server import ServerProcess
from .test_hot import Hammer, index, made, serves, wait_for


@pytest.fixture
def registry(tmp_path):
    models.linear(tmp_path / "registry", "linear", "1", 1.0)
    return tmp_path / "registry"


@pytest.fixture
def server(registry):
    with ServerProcess(registry) as running:
        yield running


def golden(folder, version):
    """Writes what the model of that version answers."""
    rows = np.arange(16, dtype=np.float32).reshape(2, 8)
    weights = np.arange(32, dtype=np.float32).reshape(8, 4) / 10 * version
    np.savez(folder / "golden.npz", **{"in:x": rows, "out:y": rows @ weights})


def with_golden(content, folder, version):
    aside = folder.parent / f".{folder.name}.tmp"
    aside.mkdir()
    (aside / "model.onnx").write_bytes(content)
    golden(aside, version)
    aside.rename(folder)


def test_a_version_that_does_not_reproduce_its_golden_outputs_never_serves_until_they_are_repaired(server, registry, tmp_path):
    folder = registry / "linear" / "2"
    with Hammer(server) as hammer:
        with_golden(made(tmp_path, "2"), folder, version=3)
        wait_for(lambda: index(server).get(("linear", "2"), {}).get("state") == "UNAVAILABLE")
        assert index(server)["linear", "2"]["reason"].startswith('golden: output "y" max-abs ')
        assert server.get("/v2/models/linear/versions/2/ready")[0] != 200
        assert serves(server, "1")()
        golden(folder, version=2)
        wait_for(serves(server, "2"))
    assert not hammer.failures
    assert server.log_path.read_text().count("version_failed") == 1


def test_golden_outputs_that_come_later_are_held_against_what_serves(server, registry):
    with Hammer(server) as hammer:
        golden(registry / "linear" / "1", version=2)
        wait_for(lambda: "refused: golden: " in index(server)["linear", "1"]["reason"])
        golden(registry / "linear" / "1", version=1)
        wait_for(lambda: not index(server)["linear", "1"]["reason"])
    assert not hammer.failures
