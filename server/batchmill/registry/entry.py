"""What the keeper knows of a model, and what is told to its thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from batchmill.registry.layout import ModelFolder, Stamp
from batchmill.registry.settings import ModelSettings
from batchmill.registry.status import ModelStatus, VersionStatus


@dataclass(slots=True)
class Entry:
    """One model, as the keeper knows it. stamps: of each version's folder at its last try."""

    folder: ModelFolder
    status: ModelStatus
    stamps: dict[int, Stamp] = field(default_factory=dict)
    loading: dict[int, Stamp] = field(default_factory=dict)
    config: Stamp | None = None  # of the model.yaml or config.pbtxt that was read last
    problem: str = ""  # of that file
    in_service: int = 0  # the version that gets default traffic; 0: none, or the model has not come to rest yet
    waiting: list[Future[None]] = field(default_factory=list)  # load calls, answered when the model has come to rest

    def forget_failures(self) -> None:
        """What failed, or was refused, is tried again."""
        for number, version in self.status.versions.items():
            if version.state == "FAILED" or version.reason:
                self.stamps.pop(int(number), None)


@dataclass(frozen=True, slots=True)
class Loaded:
    name: str
    number: int
    stamp: Stamp
    settings: ModelSettings  # it was loaded by
    status: VersionStatus


@dataclass(frozen=True, slots=True)
class Call:
    act: Callable[[Future[None]], None]
    done: Future[None]
