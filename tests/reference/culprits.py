"""What batches cost in which some rows are guilty: every outcome of every batch, by its probability."""

from collections.abc import Callable
from itertools import product


def cost_ns(guilty: tuple[bool, ...], run_ns: Callable[[int], float], failed: float) -> float:
    if not any(guilty):
        return run_ns(len(guilty))
    own, middle = failed * run_ns(len(guilty)), len(guilty) // 2
    if not middle:
        return own
    return own + cost_ns(guilty[:middle], run_ns, failed) + cost_ns(guilty[middle:], run_ns, failed)


def row_cost_ns(size: int, share: float, run_ns: Callable[[int], float], failed: float) -> float:
    total = 0.0
    for guilty in product((False, True), repeat=size):
        total += share ** sum(guilty) * (1 - share) ** (size - sum(guilty)) * cost_ns(guilty, run_ns, failed)
    return total / size
