from collections.abc import Sequence
from typing import Any

from typing_extensions import disjoint_base

VERDICTS: tuple[str, ...]

@disjoint_base
class Curve:
    def learn(self, rows: int, run_ns: float, now_ns: int = 0) -> None: ...
    def recall(self, knots: Sequence[float], spread: float) -> None: ...
    def is_fresh(self, now_ns: int) -> bool: ...
    def expected_ns(self, rows: int, scale: float = 1) -> float: ...
    def guarded_ns(self, rows: int, scale: float = 1) -> float: ...
    def state(self) -> tuple[list[float], float, float, int, int, int]: ...
    def size_of(self, rows: int, max_batch_size: int, preferred: Sequence[int], slack_ns: float, turn_ns: float) -> tuple[int, str]: ...
    def judge(
        self,
        rows: int,
        ahead_rows: int,
        alike_rows: int,
        ahead_ns: float,
        most_rows: int,
        parallel: int,
        busy_ns: float,
        drift: float,
        max_wait_ns: int,
        start_by_ns: int,
        finish_by_ns: int,
        objective_ns: int,
        fresh: bool,
    ) -> tuple[str, float, float]: ...

@disjoint_base
class Queue:
    def __new__(
        cls, max_rows: int, priority_levels: int = 0, default_priority: int = 0, delays: bool = False, each_ns: int = 0, max_wait_ns: int = 0
    ) -> Queue: ...
    def put(
        self,
        number: int,
        rows: int,
        shape: Sequence[int],
        queued_ns: int,
        deadline_ns: int,
        priority: int = 0,
        answer_by_ns: int = 0,
        now_ns: int = 0,
    ) -> str: ...
    def cancel(self, number: int) -> None: ...
    def take(self, max_rows: int, now_ns: int) -> tuple[list[int], int, str, list[int]]: ...
    def sweep(self, now_ns: int) -> list[int]: ...
    @property
    def rows(self) -> int: ...
    @property
    def work_ns(self) -> int: ...
    @property
    def oldest_ns(self) -> int: ...
    @property
    def urgent_ns(self) -> int: ...

@disjoint_base
class Policy:
    def __new__(cls, executors: int, turn_ns: int = 20_000_000) -> Policy: ...
    def add(self, widths: bool, **limits: Any) -> int: ...
    def set(
        self,
        version: int,
        *,
        max_batch_size: int = 64,
        max_queue_delay_ns: int = 0,
        preferred: Sequence[int] = (),
        instances: int = 1,
        weight: float = 1,
        max_wait_ns: int = 0,
        objective_ns: int = 0,
        target: float = 0.99,
        default_timeout_ns: int = 0,
        unbatched_until_ns: int = 0,
        max_rows: int = 4096,
        priority_levels: int = 0,
        default_priority: int = 0,
        delays: bool = False,
    ) -> None: ...
    def drain(self) -> None: ...
    def learn(self, version: int, shape: Sequence[int], rows: int, run_ns: float, now_ns: int) -> None: ...
    def arrive(
        self,
        version: int,
        number: int,
        rows: int,
        shape: Sequence[int],
        now_ns: int,
        deadline_ns: int = 0,
        timeout_us: int = 0,
        priority: int = 0,
    ) -> tuple[str, int, int]: ...
    def offer(self, version: int) -> None: ...
    def cancel(self, number: int) -> None: ...
    def sweep(self, version: int, now_ns: int) -> list[int]: ...
    def next_turn(self, now_ns: int) -> tuple[int | None, int, str]: ...
    def turn_ns(self, version: int, now_ns: int) -> float: ...
    def start(self, version: int, reason: str, now_ns: int, shares: bool = True) -> tuple[int, list[int], int, str, float, list[int]]: ...
    def end(self, version: int, batch: int, run_ns: float, now_ns: int) -> tuple[list[int], list[int]]: ...
    def run_here(
        self, version: int, run_ns: float, now_ns: int
    ) -> tuple[int, list[int], int, str, float, list[int], tuple[list[int], list[int]]]: ...
    def state(self, version: int) -> tuple[int, int, int, int, int, bool, float, int, int, int, float, float]: ...
