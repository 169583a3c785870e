from typing import TypedDict, type_check_only

from typing_extensions import disjoint_base

from batchmill.core.ort import Model

@type_check_only
class HistogramSnapshot(TypedDict):
    count: int
    sum_ns: int

@type_check_only
class VersionStats(TypedDict):
    success: int
    failure: dict[str, int]
    reasons: dict[str, int]
    rows: int
    batches: int
    batch_failures: int
    bytes_in: int
    bytes_out: int
    failed_ns: int
    queue_ns: int
    last_ns: int
    assembly_ns: int
    compute_ns: int
    encode_ns: int
    batch_sizes: dict[int, tuple[int, int, int, int]]
    stages: dict[str, HistogramSnapshot]

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
    def set_limits(
        self,
        *,
        max_batch_size: int,
        instances: int,
        max_queue_rows: int,
        max_queue_delay_us: int,
        default_timeout_us: int,
        run_timeout_ms: int,
    ) -> None: ...
    def set_priorities(self, levels: int, default_level: int) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def leases(self) -> int: ...
    @property
    def queue_rows(self) -> int: ...
    @property
    def oldest_wait_ns(self) -> int: ...
    def stats(self) -> VersionStats: ...
    @property
    def answered(self) -> int: ...
    def snapshot(self) -> bytes: ...
