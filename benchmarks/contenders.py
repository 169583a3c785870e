"""The servers that batching.py holds against each other, and what they are asked."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import limit
import models
import numpy as np
import payloads
from processes import Server, batchmill, free_port

OFF, DEFAULT, ONE_KNOB, PADDED = "no batching", "default", "one knob", "padded"
TIMER_OFF = "timer, no batching"
GRID_SIZES, GRID_DELAYS_US = (4, 16, 64), (0, 500, 2000, 5000)
TIMER_SIZES, TIMER_DELAYS_US = (16, 64), (1000, 5000)
OBJECTIVES_MS = {"mlp": 5.0, "gbdt": 5.0, "encoder2": 25.0, "convnet": 50.0}  # several runs of a row, and above what a machine's hiccups take
LENGTHS = tuple(range(8, 129, 8))  # tokens; multiples of eight, so that some texts have the same
PADDING: dict[str, object] = {"inputs": {"input_ids": {}, "attention_mask": {}}}  # of encoder2, which looks at its mask
TIMER_SCRIPT = Path(__file__).resolve().parent / "naive_timer.py"


@dataclass(frozen=True, slots=True)
class Contender:
    """A server with its settings. kind: those of one kind compete for being its best. timer: (max_batch_size, delay_us) of naive_timer.py."""

    kind: str
    name: str
    settings: Mapping[str, object] = field(default_factory=dict, hash=False)
    timer: tuple[int, int] | None = None

    @property
    def slug(self) -> str:
        return re.sub(r"\W+", "-", self.name)


def contenders(objective_ms: float, model: str) -> list[Contender]:
    """No batching, a grid of fixed settings, the timer batcher and what its transport costs alone, the defaults, the one knob, and that with padding
    where rows differ in length."""
    knob = {"slo": {"latency_ms": objective_ms}}
    padded = [Contender(PADDED, PADDED, {**knob, "batching": {"padding": PADDING}})] if model == "encoder2" else []
    grid = [Contender("grid", f"{size} rows, {delay} us", {"batching": {"max_batch_size": size, "max_queue_delay_us": delay}})
            for size in GRID_SIZES for delay in GRID_DELAYS_US]
    timers = [Contender("timer", f"timer, {size} rows, {delay} us", timer=(size, delay)) for size in TIMER_SIZES for delay in TIMER_DELAYS_US]
    return [Contender(OFF, OFF, {"batching": {"mode": "off"}}), *grid, Contender(TIMER_OFF, TIMER_OFF, timer=(1, 0)), *timers,
            Contender(DEFAULT, DEFAULT), Contender(ONE_KNOB, ONE_KNOB, knob), *padded]


def server(contender: Contender, files: Mapping[str, Path], core: str, folder: Path) -> Server:
    """Not started; with a registry and a state of its own. files: of the models, one alone for a timer."""
    place = folder / contender.slug
    if contender.timer:
        place.mkdir(parents=True, exist_ok=True)
        port, (path,) = free_port(), files.values()
        command = [sys.executable, str(TIMER_SCRIPT), str(path), str(port), *map(str, contender.timer)]
        return Server(contender.slug, command, port, core, place / "log")
    for name, path in files.items():
        version = place / "registry" / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version / "model.onnx").unlink(missing_ok=True)
        os.link(path, version / "model.onnx")
        (version.parent / "model.yaml").write_text(json.dumps(dict(contender.settings)) + "\n")
    return batchmill(contender.slug, place / "registry", core, place)


@dataclass(frozen=True, slots=True)
class Workload:
    """Rows of a model, each in a file of its own, drawn by weight."""

    model: str
    file: Path
    rows: Sequence[dict[str, np.ndarray]]
    paths: Sequence[Path]
    weights: Sequence[float]

    def check(self, target: Server) -> None:
        """Waits until the server answers, and fails unless it is right."""
        import answers  # and our stubs, which cannot share a process with another client's: the tests', for one

        session = limit.session_of(self.file)
        for row in (self.rows[0], self.rows[-1]):
            answers.check(target, payloads.grpc_message(self.model, row), session.run(None, row)[0])

    def row_secs(self, core: str = "", seconds: float = 0.05) -> float:
        """Of a run of one row in this process, on that core, the mean by weight."""
        session = limit.session_of(self.file)
        costs = [limit.run(session, row, seconds, core, attempts=1).cpu_us / 1e6 for row in self.rows]
        return float(np.average(costs, weights=self.weights))


def workload(folder: Path, model: str, lengths: Sequence[int] = (models.TOKENS,)) -> Workload:
    """lengths: of an encoder's rows; short ones come more often, as texts do."""
    rows = [models.row(model, tokens) for tokens in lengths] if model == "encoder2" else [models.row(model)]
    paths = [folder / f"{model}-{place}.grpc" for place in range(len(rows))]
    for path, row in zip(paths, rows, strict=True):
        path.write_bytes(payloads.framed(payloads.grpc_message(model, row)))
    weights = [1 / length for length in lengths] if len(rows) > 1 else [1.0]
    return Workload(model, models.write(folder / "made", model), rows, paths, weights)
