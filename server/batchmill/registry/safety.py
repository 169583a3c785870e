"""Loads versions so that one that ends its process does not end the service: once the server serves, a child process tries each first."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from batchmill.logs import Log
from batchmill.registry import layout
from batchmill.registry.loader import load_version
from batchmill.registry.settings import ModelSettings
from batchmill.registry.status import VersionStatus

if TYPE_CHECKING:
    from batchmill.registry.probe import Probe

log = Log(__name__)


class SafeLoader:
    """load() is called by the threads that load, until start_probing() in this process alone.

    While the server starts, nothing is lost with the process, and a thousand models are to be ready in seconds.
    """

    def __init__(self, executors: int, probe_timeout_secs: float) -> None:
        """probe_timeout_secs: 0 for no probe at all."""
        self._executors = executors
        self._probe_timeout_secs = probe_timeout_secs
        self._probe: Probe | None = None

    def start_probing(self) -> None:
        """Called by one thread, more than once too."""
        if self._probe is None and self._probe_timeout_secs:
            from batchmill.registry.probe import Probe  # the first answer does not wait for it

            self._probe = Probe(self._probe_timeout_secs)

    def close(self) -> None:
        """Ends what is being probed."""
        if self._probe is not None:
            self._probe.close()

    def load(self, name: str, number: int, path: Path, settings: ModelSettings) -> VersionStatus:
        probe = self._probe
        if probe is None:
            return load_version(name, str(number), path, settings, self._executors)
        started, files = time.monotonic(), layout.stamp_of(layout.files_of(path))
        finding = probe.examine(name, str(number), path, settings)
        reason = finding.reason
        if not reason and layout.stamp_of(layout.files_of(path)) != files:
            reason = "its files changed while it was probed"
        if reason:
            if not probe.closed:
                log.error("version_failed", name=name, version=number, reason=reason)
            return VersionStatus(str(number), "FAILED", reason)
        log.debug("version_probed", name=name, version=number, probe_ms=round((time.monotonic() - started) * 1000, 1))
        return load_version(name, str(number), path, settings, self._executors, finding.proof)
