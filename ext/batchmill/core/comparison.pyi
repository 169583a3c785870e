from collections.abc import Sequence
from typing import Any

def compare(
    answered: tuple[bytes, str, Sequence[int]],
    candidate: tuple[bytes, str, Sequence[int]],
    *,
    rtol: float = 1e-3,
    atol: float = 1e-5,
    by_argmax: bool = False,
) -> dict[str, Any]: ...
