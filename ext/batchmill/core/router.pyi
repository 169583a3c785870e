from collections.abc import Iterable, Sequence
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
    inline_batches: int
    closed: dict[str, tuple[int, int, int]]
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
        fast_ok: bool,
        padding: tuple[Sequence[tuple[int, bytes]], Sequence[int], Sequence[int]] | None = None,
    ) -> Version: ...
    def tune(
        self,
        *,
        max_batch_size: int,
        preferred_batch_sizes: Sequence[int],
        max_queue_delay_us: int,
        instances: int,
        run_on: str,
        weight: float,
        run_timeout_ms: int,
        max_queue_rows: int,
        max_wait_ms: int,
        default_timeout_us: int,
        timeout_action: str,
        priority_levels: int,
        default_priority_level: int,
        latency_ms: float,
        target: float,
        feedback: bool | str,
        breaker_failures: float,
        breaker_window_s: float,
        breaker_min_requests: int,
        breaker_open_s: float,
        breaker_invalid: bool,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def leases(self) -> int: ...
    @property
    def breaker(self) -> str: ...
    @property
    def breaker_opened(self) -> int: ...
    @property
    def fallbacks(self) -> int: ...
    @property
    def queue_rows(self) -> int: ...
    @property
    def oldest_wait_ns(self) -> int: ...
    def learned(self) -> list[tuple[int, list[float], float]]: ...
    def recall(self, curves: Iterable[tuple[int, Sequence[float], float]]) -> None: ...
    def stats(self) -> VersionStats: ...
    @property
    def answered(self) -> int: ...
    @property
    def routed(self) -> int: ...
    @property
    def answered_ns(self) -> int: ...
    def snapshot(self) -> bytes: ...
