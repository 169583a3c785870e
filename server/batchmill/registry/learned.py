"""What is learned of a version and outlives the server: run times, and what came of its sweep.

A version is known by its name, its number and its files' paths, sizes and times of change: to hash them would read every file of
gigabytes at every start. Another ONNX Runtime, processor or number of threads makes all of it void.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from batchmill.core import ort
from batchmill.logs import Log
from batchmill.registry.layout import version_key
from batchmill.registry.parallel import Measured
from batchmill.registry.status import VersionStatus
from batchmill.store import RUNS, Store

log = Log(__name__)
WORTH_KEEPING = 0.05  # the share by which a run time has changed, since it was kept, that is worth a write


class Learned:
    """Its methods are for any thread."""

    def __init__(self, store: Store, cores: int) -> None:
        """cores: that the sweep measured with."""
        self._store = store
        self._cores = cores

    @cached_property
    def _machine(self) -> str:
        return f"{ort.initialise()} {processor()}"

    def measured(self, key: str) -> list[Measured] | None:
        try:
            return [Measured(**one) for one in self._store.get(RUNS, self._sweep_key(key))]
        except (TypeError, KeyError):  # nothing is kept, or by another release
            return None

    def keep_measured(self, key: str, measured: list[Measured]) -> None:
        self._store.put(RUNS, self._sweep_key(key), [asdict(one) for one in measured])

    def recall(self, name: str, version: VersionStatus) -> None:
        """Before it serves."""
        if version.served is None or not (curves := self._store.get(RUNS, self._runs_key(name, version))):
            return
        try:
            version.served.recall(curves)
        except (TypeError, ValueError) as error:
            log.warning("run_times_refused", name=name, version=version.number, reason=str(error))

    def keep(self, name: str, version: VersionStatus) -> None:
        """What has changed since it was recalled or kept last."""
        served = version.served
        if served is None or not version.stamp or version.kept_at == (answered := served.answered):
            return
        version.kept_at = answered
        curves = [[width, [round(ns) for ns in knots], round(spread, 3)] for width, knots, spread in served.learned()]
        key = self._runs_key(name, version)
        if differ(curves, self._store.get(RUNS, key)):
            self._store.put(RUNS, key, curves)

    def _sweep_key(self, key: str) -> str:
        return f"{key} {self._machine} sweep {self._cores}"

    def _runs_key(self, name: str, version: VersionStatus) -> str:
        return f"{version_key(name, version.number, version.stamp)} {self._machine} {version.threads.count}"


def differ(fresh: list[list[object]], kept: object) -> bool:
    """Whether any run time has changed by what is worth keeping, or was not known."""

    def times(curves: object) -> dict[tuple[int, int], float]:
        return {(width, at): ns for width, knots, _ in curves or () for at, ns in enumerate(knots)}  # type: ignore[attr-defined]

    before = times(kept)
    return any(abs(ns - before.get(place, -1)) > WORTH_KEEPING * ns for place, ns in times(fresh).items())


def processor(path: Path = Path("/proc/cpuinfo")) -> str:
    """Its model, in the kernel's words; of processors that have none there, their family."""
    with suppress(OSError), path.open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
            if not line.strip():  # the first core's lines end here
                break
    return os.uname().machine
