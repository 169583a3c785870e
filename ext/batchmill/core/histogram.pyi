from collections.abc import Sequence
from typing import TypedDict, type_check_only

CODE_NAMES: tuple[str, ...]
STAGES: tuple[str, ...]

@type_check_only
class Difference(TypedDict):
    ok: int
    failed: int
    rows: int
    stages: dict[str, dict[tuple[int, int], int]]

def difference(newer: bytes, older: bytes) -> Difference: ...
def recorded(values_ns: Sequence[int]) -> bytes: ...
def bucket_bounds(ns: int) -> tuple[int, int]: ...
