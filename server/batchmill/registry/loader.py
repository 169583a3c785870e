"""Loads what is wanted: opens, proves, warms up. A version that fails says why and harms no other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from batchmill import backends
from batchmill.backends import Backend, LoadedModel, Padding, Tuning
from batchmill.errors import BatchmillError, ModelError
from batchmill.logs import Log
from batchmill.registry import layout
from batchmill.registry.layout import ModelFolder, version_key
from batchmill.registry.lengths import padding_of, prove_padding
from batchmill.registry.parallel import Threads
from batchmill.registry.prove import Proof, Samples, prove, sample
from batchmill.registry.settings import ModelSettings
from batchmill.registry.signature import contradicted
from batchmill.registry.status import VersionStatus
from batchmill.registry.sweep import Case, Sweep

if TYPE_CHECKING:
    from batchmill.registry.golden import Golden

log = Log(__name__)
FIRST_SPREAD = 0.25  # of run times that the warm-up tells: as of one that was served once


def notes_on(settings: ModelSettings, folder: ModelFolder) -> list[str]:
    """What a model's file of settings asks for and does not get."""
    without_effect = [f"model.yaml: {key} has no effect in this release" for key in settings.without_effect]
    lost = {label: number for label, number in settings.labels.items() if int(number) not in folder.versions}
    labels = [f"model.yaml: label {label!r} names version {number}, which is not there" for label, number in lost.items()]
    absent = [number for number in settings.versions.numbers if number not in folder.versions]
    chosen = [f"versions.policy names {', '.join(map(str, absent))}, which is not there"] if absent else []
    return [*settings.notes, *without_effect, *labels, *chosen]


def load_version(
    name: str, number: str, path: Path, settings: ModelSettings, executors: int, proof: Proof | None = None, sweep: Sweep | None = None
) -> VersionStatus:
    started = time.monotonic()
    try:
        status = open_version(name, number, path, settings, executors, proof=proof, sweep=sweep)
    except (BatchmillError, RuntimeError, ValueError, OSError) as error:
        log.error("version_failed", name=name, version=number, reason=str(error))
        return VersionStatus(number, "FAILED", str(error))
    status.load_ms = round((time.monotonic() - started) * 1000, 1)
    log.info("version_ready", name=name, version=number, load_ms=status.load_ms, batched=status.batched, why=status.batching, runs=status.runs)
    return status


def open_version(
    name: str, number: str, path: Path, settings: ModelSettings, executors: int, *, proof: Proof | None = None, backend: Backend | None = None,
    sweep: Sweep | None = None,
) -> VersionStatus:  # fmt: skip
    """proof: of batching, when it has been found before. backend: None for the one of this release. sweep: None: runs have one thread,
    where the settings say nothing else.
    """
    backend = backend or backends.find("onnxruntime")
    backend.check(path)

    def load(intra_op_threads: int) -> LoadedModel:
        return backend.load(path, intra_op_threads=intra_op_threads, providers=settings.execution_providers)

    model = load(settings.intra_op_threads or 1)
    if contradiction := contradicted(settings.declared, model.inputs, model.outputs):
        raise ModelError(contradiction)
    padding = padding_of(settings.padding, model) if settings.padding else None
    proof = validated(backend, model, path, settings, padding, proof)
    alone_ns, threads = warm_up(model, settings.warmup_runs, proof.batched), Threads(settings.intra_op_threads or 1)
    if sweep is not None:
        version = version_key(name, number, layout.stamp_of(layout.files_of(path)))
        model, threads, alone_ns = sweep.settle(Case(version, model, settings, proof.batched, alone_ns), load)
    fast_ok = has_static_runs(model, proof.batched)
    tuning = tuning_of(settings, executors, threads)
    served = backend.serve(name, number, model, tuning, batched=proof.batched, fast_ok=fast_ok, padding=padding if proof.batched else None)
    if alone_ns and fast_ok:
        served.recall([(0, [alone_ns], FIRST_SPREAD)])  # all rows are as wide as that of the warm-up
    batch = settings.tuning.max_batch_size if proof.batched else 0
    return VersionStatus(number, "READY", "", proof.batched, proof.reason, batch, served, model, threads, tuning.instances)


def adjust_version(version: VersionStatus, settings: ModelSettings, executors: int) -> None:
    """What of the settings needs no loading takes effect on a version that is loaded."""
    if version.served is not None:
        tuning = tuning_of(settings, executors, version.threads)
        backends.find("onnxruntime").tune(version.served, tuning)
        version.instances = tuning.instances
        version.max_batch_size = settings.tuning.max_batch_size if version.batched else 0


def tuning_of(settings: ModelSettings, executors: int, threads: Threads) -> Tuning:
    return replace(settings.tuning, instances=settings.tuning.instances or (1 if threads.wide else executors))


def validated(backend: Backend, model: LoadedModel, path: Path, settings: ModelSettings, padding: Padding | None, proof: Proof | None) -> Proof:
    """Whether the version may be batched. ModelError when it must not serve at all."""
    found = read_golden(backend, model, path)
    if found is None:
        return proof or proved(backend, model, settings, padding)
    from batchmill.registry import golden

    proof = proof or proved(backend, model, settings, padding, golden.samples(found))
    limits = golden.Limits(settings.golden_rtol, settings.golden_atol, settings.golden_p99_ms)
    golden.check(found, model, limits, settings.tuning.max_batch_size if proof.batched else 0)
    return proof


def proved(backend: Backend, model: LoadedModel, settings: ModelSettings, padding: Padding | None, golden: Samples | None = None) -> Proof:
    proof = prove(backend, model, settings.batching, golden)
    if settings.batching == "on" and not proof.batched:
        raise ModelError(f"model.yaml declares batching, but {proof.reason}")
    return prove_padding(backend, model, padding, proof, settings.batching, golden) if padding else proof


def read_golden(backend: Backend, model: LoadedModel, path: Path) -> Golden | None:
    """The golden.npz beside a model.onnx; a single file of another name has none."""
    beside = path.parent / "golden.npz"
    if path.name != backend.file_name or not os.path.lexists(beside):
        return None
    from batchmill.registry import golden  # and numpy, which most models do without

    return golden.read(beside, model)


def has_static_runs(model: LoadedModel, batched: bool) -> bool:
    """Whether all axes but the batch are static, so that a run's time follows from its rows."""
    return all(size >= 0 for _, _, shape, _ in model.inputs for size in shape[batched:])


def warm_up(model: LoadedModel, runs: int, batched: bool, clock: Callable[[], int] = time.monotonic_ns) -> float:
    """A few runs on a sample, so that the first caller does not pay for allocations. What one takes, in ns; 0: there was none.

    That is the least of those after the first: a busy machine made any one of them ten times as long.
    """
    if not batched and not has_static_runs(model, batched):
        return 0  # a shape made up may be one that the model cannot take, or a very slow one
    took = []
    try:
        feed = sample(model, 1)
        for _ in range(runs):
            began = clock()
            model.run(feed)
            took.append(clock() - began)
    except (RuntimeError, ValueError):
        return 0  # a sample that does not run is no fault of the model
    return min(took[1:] or took, default=0)
