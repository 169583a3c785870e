"""What became of each version, as the index and the metadata tell it."""

from __future__ import annotations

from dataclasses import dataclass, field

from batchmill.backends import LoadedModel, Signature
from batchmill.core.router import Version
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
    load_ms: float = 0.0
    pinned: bool = False
    hold: str = ""

    def told_state(self) -> str:
        """READY, HELD (by number alone), LOADING or FAILED."""
        return "HELD" if self.hold and self.state == "READY" else self.state

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
    versions: dict[str, VersionStatus] = field(default_factory=dict)
    reason: str = ""  # why no version could even be tried
    held: bool = False  # out of service by will, not by fault: until a load call or, where folders are followed, a change in its own

    def ready(self) -> list[VersionStatus]:
        """Oldest first."""
        return [version for version in self.versions.values() if version.state == "READY"]

    def pick(self, number: str = "") -> VersionStatus | None:
        """The version of that number, when it is ready; without one, the version that gets default traffic: the newest."""
        if number:
            found = self.versions.get(number)
            return found if found and found.state == "READY" else None
        return next((version for version in reversed(self.ready()) if not version.pinned), None)

    def route(self) -> tuple[str, list[Version], Version | None, dict[str, str]]:
        """The model's entry of the route table."""
        served = [version.served for version in self.ready() if version.served]
        standard = self.pick()
        return self.name, served, standard.served if standard else None, self.settings.labels
