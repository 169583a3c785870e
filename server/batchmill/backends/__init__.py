"""The seam behind which a runtime sits: it opens a file, and makes a version of it that the data plane can run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from batchmill.errors import ConfigError

if TYPE_CHECKING:
    from batchmill.core.router import Version

RawTensor = tuple[str, list[int], bytes]  # datatype, shape, row-major little-endian bytes
Signature = Sequence[tuple[str, str, list[int], list[str]]]  # name, datatype, shape with -1, names of the axes


@dataclass(frozen=True, slots=True)
class ServingLimits:
    """How the data plane runs one version. max_batch_size, max_queue_rows in rows."""

    batched: bool
    max_batch_size: int
    instances: int
    max_queue_rows: int
    max_queue_delay_us: int
    default_timeout_us: int
    run_timeout_ms: int
    priority_levels: int
    default_priority_level: int
    fast_ok: bool


class LoadedModel(Protocol):
    """A model that is loaded: what the proof and the warm-up need of it. run() raises RuntimeError or ValueError."""

    @property
    def inputs(self) -> Signature: ...
    @property
    def outputs(self) -> Signature: ...
    @property
    def memory_bytes(self) -> int: ...
    def run(self, inputs: dict[str, RawTensor], outputs: list[str] | None = None) -> dict[str, RawTensor]: ...


class Backend(Protocol):
    """A runtime. load() may take long and is called outside the event loop; several loads may go on at once."""

    name: str
    platform: str
    file_name: str

    def check(self, path: Path) -> None:
        """Refuses a file that must not be opened: ModelError."""

    def load(self, path: Path, *, intra_op_threads: int, providers: Sequence[str]) -> LoadedModel:
        """Raises RuntimeError or ValueError when the file cannot be loaded."""

    def serve(self, name: str, version: str, model: LoadedModel, limits: ServingLimits) -> Version:
        """Makes the version that a route table can name."""

    def adjust(self, version: Version, limits: ServingLimits) -> None:
        """Gives a version that may be in service other limits, from its next batch on. batched and fast_ok stay as they are."""

    def close(self, raw_a: bytes, raw_b: bytes, datatype: str, rtol: float, atol: float) -> bool:
        """Whether two tensors are element-wise close; NaN equals NaN."""


def find(name: str) -> Backend:
    """The backend of that name."""
    if name != "onnxruntime":
        raise ConfigError(f"unknown backend {name!r}: the only one is onnxruntime")
    from batchmill.backends.onnxruntime import OnnxRuntime

    return OnnxRuntime()
