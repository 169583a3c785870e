from collections.abc import Sequence

from typing_extensions import disjoint_base

VERDICTS: tuple[str, ...]

@disjoint_base
class Curve:
    def learn(self, rows: int, run_ns: float, now_ns: int = 0) -> None: ...
    def expected_ns(self, rows: int, scale: float = 1) -> float: ...
    def guarded_ns(self, rows: int, scale: float = 1) -> float: ...
    def state(self) -> tuple[list[float], float, float, int, int, int]: ...
    def size_of(self, rows: int, max_batch_size: int, preferred: Sequence[int], slack_ns: float, turn_ns: float) -> tuple[int, str]: ...
    def judge(
        self,
        rows: int,
        ahead_rows: int,
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
        cls, max_rows: int, priority_levels: int = 0, default_priority: int = 0, delays: bool = False, row_ns: int = 0, max_wait_ns: int = 0
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
