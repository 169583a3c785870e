from collections.abc import Sequence

BOUNDS_NS: tuple[int, ...]
CODE_NAMES: tuple[str, ...]
STAGES: tuple[str, ...]

def record_all(values_ns: Sequence[int]) -> dict[str, int | list[int]]: ...
def bucket_bounds(ns: int) -> tuple[int, int]: ...
