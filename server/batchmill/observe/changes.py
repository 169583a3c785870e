"""What became of versions: loads, failures, swaps and ends, counted and timed; without prometheus-client, which is imported later."""

from __future__ import annotations

import bisect
import threading
from collections import Counter
from collections.abc import Mapping

BOUNDS_SECS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
GATES = ("golden", "quarantined")  # what the reason of a failure may begin with; all others count as "load"


class Durations:
    """A histogram: counts[i] took at most BOUNDS_SECS[i], the last one longer."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECS) + 1)
        self.sum_secs = 0.0

    def add(self, secs: float) -> None:
        self.counts[bisect.bisect_left(BOUNDS_SECS, secs)] += 1
        self.sum_secs += secs


class Changes:
    """Counters are by (model, ...) and forget models that have left the registry: it bounds them. Its methods are for any thread."""

    def __init__(self) -> None:
        self.loads: Counter[tuple[str, str]] = Counter()  # by model, outcome: ready or failed
        self.failures: Counter[tuple[str, str]] = Counter()  # by model, reason: load or one of GATES
        self.swaps: Counter[tuple[str, ...]] = Counter()  # by model: its default traffic went from one version to another
        self.retirements: Counter[tuple[str, ...]] = Counter()  # by model
        self.load_secs = {"ready": Durations(), "failed": Durations()}
        self.swap_secs = Durations()  # to put a new route table in the place of the old one
        self.drain_secs = Durations()  # from out of service to freed
        self.states: Mapping[tuple[str, str], str] = {}  # by model and version
        self._standard: dict[str, object] = {}
        self._lock = threading.Lock()

    def loaded(self, model: str, reason: str, secs: float) -> None:
        """reason: why it failed; empty when it did not."""
        outcome = "failed" if reason else "ready"
        with self._lock:
            self.loads[model, outcome] += 1
            self.load_secs[outcome].add(secs)
            if reason:
                gate = reason.partition(":")[0]
                self.failures[model, gate if gate in GATES else "load"] += 1

    def published(self, standard: Mapping[str, object], states: Mapping[tuple[str, str], str], secs: float) -> None:
        """standard: what gets each model's default traffic, None for nothing; states: of all versions of all models."""
        with self._lock:
            for model, served in standard.items():
                before = self._standard.get(model)
                if served is not None and before is not None and served is not before:
                    self.swaps[model,] += 1
            self._standard = {model: served for model, served in standard.items() if served is not None}
            self.states = states
            self.swap_secs.add(secs)
            for counter in (self.loads, self.failures, self.swaps, self.retirements):
                for key in [key for key in counter if key[0] not in standard]:
                    del counter[key]

    def retired(self, model: str, secs: float) -> None:
        with self._lock:
            if model in self._standard:
                self.retirements[model,] += 1
            self.drain_secs.add(secs)

    def counters(self) -> dict[str, dict[tuple[str, ...], int]]:
        """A copy of all counters, by name."""
        with self._lock:
            return {name: dict(getattr(self, name)) for name in ("loads", "failures", "swaps", "retirements")}
