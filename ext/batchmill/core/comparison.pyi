from collections.abc import Sequence
from typing import Any

Tensor = tuple[bytes, str, Sequence[int]]

def compare(answered: Tensor, candidate: Tensor, *, rtol: float = 1e-3, atol: float = 1e-5, by_argmax: bool = False) -> dict[str, Any]: ...
