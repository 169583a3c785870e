"""Loads versions so that one that ends its process ends the service once at most: a child tries it first, or it is written down ahead."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from batchmill.logs import Log
from batchmill.registry import layout
from batchmill.registry.journal import Journal, fingerprint
from batchmill.registry.loader import load_version
from batchmill.registry.probe import Finding, Probe
from batchmill.registry.settings import ModelSettings
from batchmill.registry.status import VersionStatus
from batchmill.registry.sweep import Sweep

log = Log(__name__)
QUARANTINE_DEATHS = 2  # one may have had another cause: whoever stops a server by force does so while it loads, as like as not
RELEASE = "it is loaded again when its files change (touch will do) or by a load call"


class SafeLoader:
    """load() is called by the threads that load.

    Until start_probing() it loads in this process, which has nothing to lose yet, and a thousand models in seconds. What the last
    server died over goes through a child then too, and is not tried at all when that died as well.
    """

    def __init__(self, executors: int, probe_timeout_secs: float, journal: Journal, sweep: Sweep | None = None) -> None:
        """probe_timeout_secs: 0 for no probe at all."""
        self._executors = executors
        self._journal = journal
        self._sweep = sweep
        self._probe = Probe(probe_timeout_secs) if probe_timeout_secs else None
        self._probing = False

    def start_probing(self) -> None:
        """From now on each version is tried in a child first."""
        self._probing = True
        if self._sweep:
            self._sweep.starting = False

    def close(self) -> None:
        """Ends what is being probed. Loads that go on are the process's end to break off."""
        if self._probe is not None:
            self._probe.close()
        self._journal.close()

    def load(self, name: str, number: int, path: Path, settings: ModelSettings) -> VersionStatus:
        with self._sweep.quiet.loading() if self._sweep else contextlib.nullcontext():
            return self._load(name, number, path, settings)

    def _load(self, name: str, number: int, path: Path, settings: ModelSettings) -> VersionStatus:
        place = path.absolute()  # the next server may be started elsewhere
        files, stamp = fingerprint(place), layout.stamp_of(layout.files_of(path))
        deaths = self._journal.deaths(place, files)
        if deaths >= QUARANTINE_DEATHS and not self._probing:
            return failed(name, number, f"quarantined: the server died while it loaded this version, {deaths} times in a row; {RELEASE}")
        proof = None
        if self._probe is not None and (self._probing or deaths):
            finding = self._examined(self._probe, name, number, path, settings)
            if self._probe.closed:
                return VersionStatus(str(number), "FAILED", "the server stops")
            if finding.died and deaths:
                self._journal.add_death(place, files)
                finding = Finding(f"quarantined: the server died while it loaded this version, and now a child did; {finding.reason}; {RELEASE}")
            if finding.reason:
                return failed(name, number, finding.reason)
            if layout.stamp_of(layout.files_of(path)) != stamp:
                return failed(name, number, "its files changed while it was probed")
            proof = finding.proof
        with self._journal.loading(place, files):
            status = load_version(name, str(number), path, settings, self._executors, proof, self._sweep)
        status.path, status.stamp = place, stamp
        return status

    def _examined(self, probe: Probe, name: str, number: int, path: Path, settings: ModelSettings) -> Finding:
        started = time.monotonic()
        finding = probe.examine(name, str(number), path, settings)
        log.debug("version_probed", name=name, version=str(number), probe_ms=round((time.monotonic() - started) * 1000, 1))
        return finding


def failed(name: str, number: int, reason: str) -> VersionStatus:
    log.error("version_failed", name=name, version=str(number), reason=reason)
    return VersionStatus(str(number), "FAILED", reason)
