from typing import TypedDict, type_check_only

from typing_extensions import disjoint_base

from batchmill.core.ort import Model

@type_check_only
class HistogramSnapshot(TypedDict):
    count: int
    sum_ns: int
    bounds_ns: list[int]
    counts: list[int]

@type_check_only
class VersionStats(TypedDict):
    success: int
    failure: dict[str, int]
    rows: int
    batches: int
    batch_failures: int
    queue_ns: int
    compute_ns: int
    queue_rows: int
    total: HistogramSnapshot
    queue: HistogramSnapshot
    compute: HistogramSnapshot

@disjoint_base
class Version:
    def __new__(
        cls,
        name: str,
        version: str,
        model: Model,
        *,
        batched: bool,
        max_batch_size: int,
        instances: int,
        max_queue_rows: int,
        max_queue_delay_us: int,
        default_timeout_us: int,
        run_timeout_ms: int,
        fast_ok: bool,
    ) -> Version: ...
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def leases(self) -> int: ...
    def stats(self) -> VersionStats: ...

CODE_NAMES: tuple[str, ...]
