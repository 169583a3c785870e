"""What to load and what to let go: a pure function of what lies in the folder and what is kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from batchmill.registry import policy
from batchmill.registry.layout import Stamp
from batchmill.registry.policy import VersionPolicy


@dataclass(frozen=True, slots=True)
class Kept:
    """A version that was loaded, or tried. stamp: of its folder at the last try. ready: it serves, though that try may have failed."""

    stamp: Stamp
    ready: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Version numbers, ascending. load: new or changed. drop: to unload, or to forget. pinned: serve, but get no default traffic."""

    load: tuple[int, ...]
    drop: tuple[int, ...]
    pinned: frozenset[int]


def decide(
    present: Mapping[int, Stamp], kept: Mapping[int, Kept], loading: Collection[int], versions: VersionPolicy, labelled: Collection[int]
) -> Plan:
    """The policy chooses among the versions that are not known to be broken: when the newest is, the one before it goes on or is loaded.

    While a wanted version is not ready yet, as many others go on serving in its place; only the removal of a version's own
    folder ends it at once.
    """
    broken = {number for number, one in kept.items() if not one.ready and one.stamp == present.get(number)}
    wanted = set(policy.wanted(set(present) - broken, versions))
    pinned = (set(present) & set(labelled)) - wanted
    load = [n for n in wanted | pinned if n not in loading and (n not in kept or kept[n].stamp != present[n])]
    ready = {number for number, one in kept.items() if one.ready}
    missing = len(wanted - ready)
    others = sorted((ready & set(present)) - wanted - pinned)
    stand_ins = set(others[-missing:]) if missing else set()
    drop = [n for n in kept if n not in present or (kept[n].ready and n not in wanted | pinned | stand_ins)]
    return Plan(tuple(sorted(load)), tuple(sorted(drop)), frozenset(pinned))
