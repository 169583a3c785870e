"""Which versions of a model are wanted: a pure function of what is there and the version policy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """latest: the newest `count`; all; specific: those of `numbers`."""

    kind: str = "latest"
    count: int = 1
    numbers: tuple[int, ...] = ()


def wanted(present: Collection[int], policy: VersionPolicy) -> list[int]:
    """The version numbers to load, oldest first."""
    if policy.kind == "all":
        return sorted(present)
    if policy.kind == "specific":
        return sorted(set(present) & set(policy.numbers))
    return sorted(present)[-policy.count :]
