from collections.abc import Sequence

CODE_NAMES: tuple[str, ...]
STAGES: tuple[str, ...]

def fine(values_ns: Sequence[int]) -> dict[int, int]: ...
def bucket_bounds(ns: int) -> tuple[int, int]: ...
