"""What became of each version, as the index and the metadata tell it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from batchmill.backends import LoadedModel, Signature
from batchmill.core.router import Version
from batchmill.registry import layout
from batchmill.registry.layout import Stamp
from batchmill.registry.naming import Naming
from batchmill.registry.parallel import Threads, told
from batchmill.registry.settings import ModelSettings


@dataclass(slots=True)
class VersionStatus:
    """state: LOADING, READY or FAILED. reason: why it failed, or why a change of its files was refused.

    batching: whether its rows share batches, and why.

    pinned: loaded for a label alone, or on hold: gets no default traffic. hold: why it is on hold.
    """

    number: str
    state: str
    reason: str = ""
    batched: bool = False
    batching: str = ""
    max_batch_size: int = 0
    served: Version | None = None
    model: LoadedModel | None = None
    threads: Threads = Threads()  # noqa: RUF009  (frozen)
    instances: int = 0  # runs at once
    load_ms: float = 0.0
    pinned: bool = False
    hold: str = ""
    path: Path | None = None  # of its model file
    stamp: Stamp = ()  # of its files when it was loaded
    sha256: str = ""  # of that file, once it has been asked for
    kept_at: int = 0  # answers by when its run times were kept last

    def told_state(self) -> str:
        """READY, HELD (by number alone), LOADING or FAILED."""
        return "HELD" if self.hold and self.state == "READY" else self.state

    @property
    def runs(self) -> str:
        """How many at once, the threads of each, and why."""
        return told(self.instances, self.threads) if self.served else ""

    @property
    def file_bytes(self) -> int:
        return sum(size for _, size, *_ in self.stamp)

    @property
    def memory_bytes(self) -> int:
        """At least: what its session has allocated, or its files where that is more, for weights that were packed are not told."""
        model = self.model  # the reaper may take it
        return max(model.memory_bytes, self.file_bytes) if model else 0

    def file_hash(self) -> str:
        """sha256 of the model file as it was loaded; empty when it has changed since. Takes a while the first time."""
        if not self.sha256 and self.path and layout.is_unchanged(self.stamp):
            import hashlib

            with suppress(OSError), self.path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                self.sha256 = found if layout.is_unchanged(self.stamp) else ""
        return self.sha256

    @property
    def inputs(self) -> Signature:
        return self.model.inputs if self.model else ()

    @property
    def outputs(self) -> Signature:
        return self.model.outputs if self.model else ()


@dataclass(slots=True)
class ModelStatus:
    name: str
    settings: ModelSettings = field(default_factory=ModelSettings)
    platform: str = "onnxruntime_onnx"
    versions: dict[str, VersionStatus] = field(default_factory=dict)  # by number, oldest first: add() keeps it so
    reason: str = ""  # why no version could even be tried
    naming: Naming = field(default_factory=Naming)
    led: Mapping[str, str] = field(default_factory=dict)  # where labels led by the last table
    held: bool = False  # out of service by will, not by fault: until a load call or, where folders are followed, a change in its own

    def add(self, version: VersionStatus) -> None:
        """In the place of the one of its number, if there is one; else in its place among the others."""
        self.versions[version.number] = version
        self.versions = dict(sorted(self.versions.items(), key=lambda item: int(item[0])))

    def ready(self) -> list[VersionStatus]:
        """Oldest first."""
        return [version for version in self.versions.values() if version.state == "READY"]

    def pick(self, number: str = "") -> VersionStatus | None:
        """The version of that number, when it is ready; without one, the version that gets default traffic: the newest, or that
        with the largest share of the model's route. Where rollouts set the route and none of its versions is left, the newest, too.

        None while that with the largest share loads: one that was meant for a few requests would get all of them.
        """
        if number:
            found = self.versions.get(number)
            return found if found and found.state == "READY" else None
        for one in self.naming.routed:
            if found := self.pick(one):
                return found
            if one in self.versions and self.versions[one].state == "LOADING" and not self.naming.awaited:
                return None
        if self.naming.shares and self.settings.rollout is None:
            return None
        return next((version for version in reversed(self.ready()) if not version.pinned), None)

    def leads(self) -> dict[str, str]:
        """By label the version that answers: while the one that it names is not ready, that which has answered, as long as it still is."""
        ready = {version.number for version in self.ready()}
        return {label: before if version not in ready and (before := self.led.get(label, "")) in ready else version
                for label, version in self.naming.labels.items()}  # fmt: skip

    def route(self) -> tuple[str, list[Version], Version | None, dict[str, str]]:
        """The model's entry of the route table."""
        served = [version.served for version in self.ready() if version.served]
        standard = self.pick()
        return self.name, served, standard.served if standard else None, self.leads()


def served(models: Mapping[str, ModelStatus]) -> list[Version]:
    """All versions that serve."""
    return [version.served for model in models.values() for version in model.ready() if version.served]
