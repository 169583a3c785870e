from collections.abc import Iterable

def drive(
    failures: float, window_ns: int, open_ns: int, min_requests: int, steps: Iterable[tuple[int, ...]]
) -> list[tuple[bool | None, str]]: ...
