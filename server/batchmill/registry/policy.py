"""Which versions of a model are wanted: pure functions of what is there, the version policy and the labels."""

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
    """The version numbers that may get default traffic, oldest first."""
    if policy.kind == "all":
        return sorted(present)
    if policy.kind == "specific":
        return sorted(set(present) & set(policy.numbers))
    return sorted(present)[-policy.count :]


def pinned(present: Collection[int], policy: VersionPolicy, labelled: Collection[int]) -> list[int]:
    """The version numbers to load for their labels alone, oldest first."""
    return sorted((set(present) & set(labelled)) - set(wanted(present, policy)))


def problem_of(present: Collection[int], policy: VersionPolicy) -> str:
    """Why none of these is wanted; empty when one is."""
    if not present:
        return "no version folder with a model.onnx"
    if wanted(present, policy):
        return ""
    return f"versions.policy wants none of the versions that are there: {', '.join(map(str, sorted(present)))}"
