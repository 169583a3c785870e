"""Which version a model's rollout policy begins with, and why others wait: pure functions of what is there and of what was seen before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batchmill.registry.layout import version_key
from batchmill.registry.status import ModelStatus, VersionStatus


@dataclass(frozen=True, slots=True)
class Waiting:
    """A version that is newer than the one in service and gets no traffic, and why."""

    version: str
    reason: str


def next_of(model: ModelStatus, seen: Mapping[str, str], incumbent: str, running: str = "") -> tuple[str, tuple[Waiting, ...]]:
    """The version that a rollout is to begin with (empty: none), and why others wait; newest first.

    seen: files, by version, that no rollout begins with by itself. incumbent: the version in service. running: the candidate of the
    rollout that runs; empty: none does. The newest goes first, also where it still loads, and those before it are passed over.
    """
    first, waiting, has_traffic = "", list[Waiting](), {running, *(number for _, number in model.naming.shares)}
    for version in reversed(model.versions.values()):
        number = version.number
        if int(number) <= int(incumbent) or number in has_traffic:
            continue
        reason = reason_against(model, version, seen)
        if reason or first or running:
            waiting.append(Waiting(number, reason or (f"version {first} is newer" if first else f"the rollout of version {running} comes first")))
        if not reason or version.state == "LOADING":
            first = first or number
    return "" if running or any(one.version == first for one in waiting) else first, tuple(waiting)


def reason_against(model: ModelStatus, version: VersionStatus, seen: Mapping[str, str]) -> str:
    """Of the version itself; empty: a rollout may begin with it."""
    number = version.number
    if version.state != "READY":
        return "it is loading" if version.state == "LOADING" else f"it failed: {version.reason}"
    if version.hold:
        return version.hold
    if seen.get(number) == files_of(model, number):
        call = f"batchmill rollout start {model.name} {number}"
        return f"it was tried, or there when a call moved the traffic; a change of its files or `{call}` begins a rollout of it"
    return ""


def files_of(model: ModelStatus, number: str) -> str:
    """By which the files of a version are known again, in another process, too."""
    return version_key(model.name, number, model.versions[number].stamp)
