"""What callers rely on: names, datatypes and shapes of a version's inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping

from batchmill.backends import Signature
from batchmill.registry.status import ModelStatus, VersionStatus

Interface = tuple[Mapping[str, tuple[str, tuple[int, ...]]], Mapping[str, tuple[str, tuple[int, ...]]]]
"""Inputs and outputs: datatype and shape by name. Their order and the names of axes do not count."""


def interface(version: VersionStatus) -> Interface:
    return by_name(version.inputs), by_name(version.outputs)


def by_name(tensors: Signature) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    return {name: (datatype, tuple(shape)) for name, datatype, shape, _ in tensors}


def difference(old: Interface, new: Interface) -> str:
    """The first thing in which they differ: `input "x": FP32 [-1,8] before, FP32 [-1,9] now`; empty when they are equal."""
    for what, before, now in zip(("input", "output"), old, new, strict=True):
        for name in (*before, *now):
            if before.get(name) != now.get(name):
                return f'{what} "{name}": {shown(before.get(name))} before, {shown(now.get(name))} now'
    return ""


def shown(tensor: tuple[str, tuple[int, ...]] | None) -> str:
    return f"{tensor[0]} [{','.join(map(str, tensor[1]))}]" if tensor else "not there"


def hold_of(status: ModelStatus, version: VersionStatus, in_service: int) -> str:
    """Why a version gets no default traffic; empty when it is as the one in service, or when there is none."""
    standard = status.versions.get(str(in_service))
    differing = difference(interface(standard), interface(version)) if standard else ""
    return differing and f"on hold beside version {in_service}, which keeps the default traffic (signature_change: hold): {differing}"


def refusal_of(status: ModelStatus, fresh: VersionStatus, in_service: int) -> str:
    """Why a version that was loaded anew may not take the place of the one that serves under its number; empty: it may."""
    if fresh.state == "READY" and int(fresh.number) == in_service and status.settings.signature_change == "hold":
        changed = difference(interface(status.versions[fresh.number]), interface(fresh))
        return changed and f"{changed} (signature_change: hold)"
    return fresh.reason
