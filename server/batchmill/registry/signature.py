"""What callers rely on: names, datatypes and shapes of a version's inputs and outputs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from batchmill.backends import Signature
from batchmill.registry.settings import DeclaredTensor
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


def contradicted(declared: Iterable[DeclaredTensor], inputs: Signature, outputs: Signature) -> str:
    """The first thing in which config.pbtxt and the model differ; empty when there is none. The model's free axes take any size."""
    for tensor in declared:
        known = by_name(inputs if tensor.kind == "input" else outputs)
        what = f'{tensor.where}: {tensor.kind} "{tensor.name[:100]}"'
        if tensor.name not in known:
            near = difflib.get_close_matches(tensor.name, known, 1)
            return f"{what}: the model has no such {tensor.kind}; " + (f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}")
        datatype, shape = known[tensor.name]
        if tensor.datatype and tensor.datatype != datatype:
            return f"{what}: {tensor.datatype} given, {datatype} in the model"
        if tensor.dims is not None and not any(fits(dims, shape) for dims in readings(tensor.dims, tensor.batch)):
            hint = {"with": "max_batch_size > 0, so that dims leave out the batch axis", "without": "max_batch_size is 0, so that dims hold all axes"}
            return f"{what}: dims {[*tensor.dims]} given, shape {[*shape]} in the model" + (f"; {hint[tensor.batch]}" if tensor.batch in hint else "")
    return ""


def readings(dims: tuple[int, ...], batch: str) -> list[tuple[int, ...]]:
    with_axis = (-1, *dims)
    return [with_axis] if batch == "with" else [dims] if batch == "without" else [dims, with_axis]


def fits(dims: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(dims) == len(shape) and all(b in (-1, a) for a, b in zip(dims, shape, strict=True))
