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
class Tuning:
    """How a version is batched and queued. A version in service takes it over at once: from the next request or batch on."""

    max_batch_size: int = 64  # rows
    preferred_batch_sizes: tuple[int, ...] = ()  # rows, ascending
    max_queue_delay_us: int = 0  # how long the oldest row may wait for company
    instances: int = 0  # batches at once; 0: one for each executor
    run_on: str = "auto"  # where batches run: executor, io (an I/O thread), or by their predicted run time
    weight: float = 1.0  # its share of the executors beside other models that have work
    run_timeout_ms: int = 30000  # a longer run is ended; 0: never
    max_queue_rows: int = 4096
    max_wait_ms: int = 2000  # predicted; 0: any
    default_timeout_us: int = 0  # 0: none
    timeout_action: str = "reject"  # or delay: who has waited too long lets others go first
    priority_levels: int = 0  # 0: priorities do not count
    default_priority_level: int = 0
    latency_ms: float = 0.0  # the objective; 0: none
    target: float = 0.99  # the share of the batches that shall meet it
    feedback: bool | str = False  # whether answers carry a token; a text: the output whose prediction goes with it, else the first that has one
    breaker_failures: float = 0.0  # the share of failed runs from which requests are kept from it; 0: none are
    breaker_window_s: float = 10.0
    breaker_min_requests: int = 20
    breaker_open_s: float = 5.0
    breaker_invalid: bool = False  # whether runs count that fail for the values they were given


@dataclass(frozen=True, slots=True)
class Padding:
    """How rows of different lengths share a run, in the order of the model's inputs and outputs. An axis of 0 says none."""

    inputs: tuple[tuple[int, bytes], ...]  # axis, and the raw element that it is filled up with
    outputs: tuple[int, ...]  # axis that is cut back to the request's own length
    edges: tuple[int, ...] = ()  # lengths, ascending, to the next of which a row is filled up; none: to the longest of its run


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
        """intra_op_threads: 0 for the pool that wide models share. Raises RuntimeError or ValueError when the file cannot be loaded."""

    def serve(
        self, name: str, version: str, model: LoadedModel, tuning: Tuning, *, batched: bool, fast_ok: bool, padding: Padding | None = None
    ) -> Version:
        """Makes the version that a route table can name. tuning.instances: as many, at least 1. fast_ok: its runs' time follows from their rows.

        padding: only of one that is batched.
        """

    def tune(self, version: Version, tuning: Tuning) -> None:
        """Of a version that may be in service."""

    def close(self, raw_a: bytes, raw_b: bytes, datatype: str, rtol: float, atol: float) -> bool:
        """Whether two tensors are element-wise close; NaN equals NaN."""


def find(name: str) -> Backend:
    """The backend of that name."""
    if name != "onnxruntime":
        raise ConfigError(f"unknown backend {name!r}: the only one is onnxruntime")
    from batchmill.backends.onnxruntime import OnnxRuntime

    return OnnxRuntime()
