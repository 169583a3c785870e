from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import wheels

from e2e.matrix import Case
from e2e.server import ServerProcess


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("models") / "registry"
    wheels.unpack(folder)
    assert {path.name for path in folder.iterdir()} == set(wheels.MODELS)
    (folder / "file_type" / "model.yaml").write_text("batching: {max_queue_delay_us: 20000}\n")   # so that requests of several clients do meet
    return folder


@pytest.fixture(scope="session")
def sessions(registry: Path) -> dict[str, onnxruntime.InferenceSession]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return {name: onnxruntime.InferenceSession(registry / name / "1" / "model.onnx", options) for name in wheels.MODELS}


@pytest.fixture(scope="session")
def asked(sessions: dict[str, onnxruntime.InferenceSession]) -> list[tuple[Case, dict[str, np.ndarray], list[np.ndarray]]]:
    """(model, inputs, what ONNX Runtime answers in process), of every model in several shapes."""
    random = np.random.default_rng(1)
    return [(Case(name, "", tuple(feed.values()), ()), feed, sessions[name].run(None, feed)) for name in wheels.MODELS for feed in wheels.feeds(name, random)]


@pytest.fixture(scope="session")
def server(registry: Path) -> Iterator[ServerProcess]:
    with ServerProcess(registry) as running:
        yield running
