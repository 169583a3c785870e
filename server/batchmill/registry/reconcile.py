"""What to load and what to let go: a pure function of what lies in the folder and what is kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from batchmill.registry import policy
from batchmill.registry.layout import Stamp
from batchmill.registry.policy import VersionPolicy


@dataclass(frozen=True, slots=True)
class Kept:
    """A version that was loaded, or tried. stamp: of its folder at the last try. ready: it serves, though that try may have failed.

    interface: compared for equality alone.
    """

    stamp: Stamp
    ready: bool
    interface: object = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Version numbers, ascending. load: new or changed. drop: to unload, or to forget. pinned: serve, but get no default traffic.

    on_hold: of these, those whose inputs or outputs differ from those of the version in service, and that no label names.
    """

    load: tuple[int, ...]
    drop: tuple[int, ...]
    pinned: frozenset[int]
    on_hold: frozenset[int] = frozenset()


def decide(
    present: Mapping[int, Stamp], kept: Mapping[int, Kept], loading: Collection[int], versions: VersionPolicy, labelled: Collection[int],
    in_service: int = 0, hold: bool = True, routed: Collection[int] = (), trial: bool = False,
) -> Plan:  # fmt: skip
    """The policy chooses among the versions that are not known to be broken: when the newest is, the one before it goes on or is loaded.

    While a wanted version is not ready yet, as many others go on serving in its place, and one when there is none to want. The
    removal of a version's own folder ends it at once, unless it is the one in service and its successor still has to be loaded, or routed:
    named by the model's route.

    in_service: the version that gets default traffic; 0: none yet. hold: newer ones are held against it. trial: they get none until a
    rollout or a call gives them some, as long as it is there to be compared with, whatever the policy names.
    """
    broken = {number for number, one in kept.items() if not one.ready and one.stamp == present.get(number)}
    wanted = set(policy.wanted(set(present) - broken, versions))
    trial = trial and in_service in set(present) - broken and max(wanted, default=0) > in_service
    labelled = {*labelled, in_service} if trial else set(labelled)
    pinned = (set(present) & labelled) - wanted
    load = [n for n in wanted | pinned if n not in loading and (n not in kept or kept[n].stamp != present[n])]
    ready = {number for number, one in kept.items() if one.ready}
    differing = differing_from(in_service, kept, ready & set(present)) if hold and (trial or is_wanted(in_service, versions)) else set()
    held = {number for number in ready & set(present) if number > in_service} if trial else differing
    missing = len(wanted - (ready - held))
    others = sorted((ready & set(present)) - wanted - (pinned - {in_service}) - held)
    stand_ins = set(others[-missing:]) if missing else set()
    if not wanted:  # all that the policy names is broken or not there yet
        stand_ins = {in_service} & set(others) or set(others[-1:])
    pinned -= stand_ins  # the version in service serves on until its successor does, though a label alone wants it now
    last = {in_service} & ready - set(present) if wanted and not ready & (wanted | stand_ins) else set()
    last |= set(routed) & ready - set(present)
    drop = [n for n in kept if n not in last and (n not in present or (kept[n].ready and n not in wanted | pinned | stand_ins))]
    on_hold = differing & wanted - labelled
    pinned = pinned - {in_service} if trial else pinned
    return Plan(tuple(sorted(load)), tuple(sorted(drop)), frozenset(pinned | (held & wanted)), frozenset(on_hold))


def differing_from(in_service: int, kept: Mapping[int, Kept], serving: Collection[int]) -> set[int]:
    """The newer ones of those that serve whose inputs or outputs are others."""
    if in_service not in serving:
        return set()
    return {number for number in serving if number > in_service and kept[number].interface != kept[in_service].interface}


def is_wanted(in_service: int, versions: VersionPolicy) -> bool:
    """A policy that names its versions, and not this one, has chosen others in its place."""
    return versions.kind != "specific" or in_service in versions.numbers
