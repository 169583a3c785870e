"""Rows of different lengths: the padding that model.yaml declares for them, held against the model's inputs and outputs, and proved.

The proof: rows of different lengths that are filled up to one length and run together come out, cut to their own, as rows that run
alone. A model that does not look at its mask is caught. Samples are rows of golden.npz where there is one; else ones, small numbers and
negative ones, of which each counts that runs alone: ones are indices of any table and what masks are made of, negative ones show a
maximum over the padding. What runs together must equal what runs alone as in prove.py.
"""

from __future__ import annotations

import difflib
import math
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress

from batchmill.backends import Backend, LoadedModel, Padding, RawTensor, Signature
from batchmill.errors import ModelError
from batchmill.registry.prove import ATOL, CODES, FLOATS, RTOL, Proof, Row, Samples, cut, sample, stack
from batchmill.registry.settings import DeclaredPadding, PaddedInput

_KEY = "model.yaml: batching.padding"
_LONGEST = 512  # an edge beyond is not tried: attention costs its square
_UP_TO = 8  # where there is no edge to try
_FREE_AXIS = 4  # the size of free axes that are not padded

Lengths = tuple[int, ...]


# What is declared, and the model.
def padding_of(declared: DeclaredPadding, model: LoadedModel) -> Padding:
    """In the order of the model's inputs and outputs. ModelError names the key that does not fit them."""
    by_name = {one.name: one for one in declared.inputs}
    axes = dict(declared.outputs)
    check_names("inputs", by_name, model.inputs)
    check_names("outputs", axes, model.outputs)
    inputs, outputs = [], []
    for name, datatype, shape, _ in model.inputs:
        one = by_name.get(name)
        if one:
            check_axis(f"inputs.{name}", one.axis, datatype, shape)
        inputs.append((one.axis, element(one, datatype)) if one else (0, b""))
    for name, datatype, shape, _ in model.outputs:
        if name in axes:
            check_axis(f"outputs.{name}", axes[name], datatype, shape)
        outputs.append(axes.get(name, 0))
    return Padding(tuple(inputs), tuple(outputs), declared.edges)


def check_names(kind: str, given: Mapping[str, object], known: Signature) -> None:
    names = [name for name, *_ in known]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
            raise ModelError(f"{_KEY}.{kind}.{name[:100]}: the model has no such {kind[:-1]}; {hint}")


def check_axis(key: str, axis: int, datatype: str, shape: list[int]) -> None:
    if datatype == "BYTES":
        raise ModelError(f"{_KEY}.{key}: tensors of BYTES are not padded")
    if axis >= len(shape) or shape[axis] >= 0:
        free = [at for at, size in enumerate(shape) if at and size < 0]
        wanted = f"one of {', '.join(map(str, free))}, which are free," if free else "a free axis, of which there is none,"
        raise ModelError(f"{_KEY}.{key}: axis {axis} given, {wanted} wanted: its shape is {shape}")


def element(one: PaddedInput, datatype: str) -> bytes:
    """The value to fill up with, raw."""
    value = one.value
    try:
        if isinstance(value, bool) != (datatype == "BOOL") and value not in (0, 1):
            raise ValueError
        if datatype not in FLOATS and value != int(value):
            raise ValueError
        return packed(datatype, value)
    except (ValueError, OverflowError, struct.error):
        raise ModelError(f"{_KEY}.inputs.{one.name}.value: {value!r} given, {datatype} wanted") from None


def packed(datatype: str, value: float) -> bytes:
    """An element; floats are rounded to the nearest. OverflowError or struct.error: it does not fit."""
    if datatype == "BF16":
        bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
        return struct.pack("<I", bits + 0x7FFF + (bits >> 16 & 1))[2:] if value == value else b"\xc0\x7f"
    if datatype in FLOATS:
        return struct.pack("<e" if datatype == "FP16" else "<" + CODES[datatype], value)
    return bytes([bool(value)]) if datatype == "BOOL" else struct.pack("<" + CODES[datatype], int(value))


def told(padding: Padding, model: LoadedModel) -> str:
    """What is padded to what, in words."""
    names = [name for (name, *_), (axis, _) in zip(model.inputs, padding.inputs, strict=True) if axis]
    *some, last = map(str, padding.edges or (0,))
    to = f"the next of {', '.join(some)} and {last}" if some else last if padding.edges else "the longest of a batch"
    return f"{', '.join(names)} padded to {to}"


# The proof.
def prove_padding(backend: Backend, model: LoadedModel, padding: Padding, proof: Proof, mode: str, golden: Samples | None = None) -> Proof:
    """proof: of rows of one length. mode: model.yaml's batching.mode. ModelError where padding changes what a row gives."""
    if not proof.batched:
        return Proof(False, f"{proof.reason}; batching.padding has no effect so")
    ran, failure = False, ""
    for rows, target in samples(model, padding, golden):
        tried = []
        for row in rows:
            try:
                tried.append((row, model.run(row)))
            except (RuntimeError, ValueError) as error:
                failure = failure or str(error)
        ran = ran or len(tried) > 0
        if tried and (reason := differs(backend, model, padding, tried, target)):
            raise ModelError(f"{_KEY}: {reason}. Does it look at a mask that is padded, with the right value? Without this key it serves")
    if not ran and mode != "on":
        free = [name for (name, _, shape, _), (axis, _) in zip(model.inputs, padding.inputs, strict=True) if not axis and -1 in shape[1:]]
        hint = f"; {', '.join(free)}, with a free axis too, is not among {_KEY}.inputs" if free else ""
        raise ModelError(f"{_KEY}: not proved: no sample runs{hint}; where you know it to be right, declare `mode: on`: {failure}")
    return Proof(True, f"{proof.reason}; {told(padding, model)}{', proved too' if ran else ', as declared'}")


def differs(backend: Backend, model: LoadedModel, padding: Padding, tried: list[tuple[Row, Row]], target: int) -> str:
    """What is not as it shall be when rows are filled up to one length and run together; empty: nothing. tried: rows, and what they give alone."""
    lengths = [length_of(model, padding, row) for row, _ in tried]
    try:
        together = model.run(stack([resized_inputs(model, padding, row, target) for row, _ in tried]))
    except (RuntimeError, ValueError) as error:
        return f"rows of {', '.join(map(str, lengths))} padded to {target} do not run together: {error}"
    for number, (length, (_, alone)) in enumerate(zip(lengths, tried, strict=True)):
        for (name, *_), axis in zip(model.outputs, padding.outputs, strict=True):
            datatype, shape, whole = together[name]
            if not shape or shape[0] != len(tried):
                return f'output "{name}" does not have one row for each row of the inputs'
            if axis and (len(shape) <= axis or shape[axis] != target):
                return f'output "{name}" of rows padded to {target} does not have that length along axis {axis}: its shape is {shape}'
            part: RawTensor = datatype, [1, *shape[1:]], cut(datatype, whole, number, len(tried))
            change = change_of(backend, resized(part, axis, length) if axis else part, alone[name])
            if change:
                hint = "; where it has the padded length, name it in batching.padding.outputs" if not axis and change.startswith(" from") else ""
                return f'padding changes output "{name}"{change}, of a row of {length} padded to {target}{hint}'
    return ""


def change_of(backend: Backend, padded: RawTensor, alone: RawTensor) -> str:
    """How a tensor changed, as the end of a sentence; empty: it has not."""
    if padded[1] != alone[1]:
        return f" from shape {alone[1]} to {padded[1]}"
    if backend.close(padded[2], alone[2], padded[0], RTOL, ATOL):
        return ""
    if padded[0] == "BYTES":
        return " to another text"
    from batchmill.registry.golden import decoded  # and numpy, which only a version that fails needs

    return f" by {abs(decoded(padded).astype('f8') - decoded(alone).astype('f8')).max():.1e}"


def resized(tensor: RawTensor, axis: int, length: int, filling: bytes = b"") -> RawTensor:
    """Cut, or filled up, along an axis that has at least one index."""
    datatype, shape, raw = tensor
    stretches = math.prod(shape[:axis])
    whole = len(raw) // (stretches or 1)
    inner = whole // shape[axis]
    more = filling * (max(0, length - shape[axis]) * inner // (len(filling) or 1))
    parts = (raw[at * whole : at * whole + min(length, shape[axis]) * inner] + more for at in range(stretches))
    return datatype, [*shape[:axis], length, *shape[axis + 1 :]], b"".join(parts)


def resized_inputs(model: LoadedModel, padding: Padding, row: Row, length: int) -> Row:
    padded = {name: one for (name, *_), one in zip(model.inputs, padding.inputs, strict=True) if one[0]}
    return {name: resized(tensor, padded[name][0], length, padded[name][1]) if name in padded else tensor for name, tensor in row.items()}


# Samples.
def samples(model: LoadedModel, padding: Padding, golden: Samples | None) -> Iterator[tuple[list[Row], int]]:
    """Rows of different lengths, and what they are to be padded to."""
    if golden is not None and (length := length_of(model, padding, golden.ordinary[0])) > 1:
        shorter = zip(golden.ordinary, (length, length - 1, (length + 1) // 2), strict=True)
        rows = [resized_inputs(model, padding, row, size) for row, size in shorter]
        yield rows, next((edge for edge in padding.edges if edge >= length), length)
        return
    for lengths in lengths_to_try(padding.edges):
        for kind in ("ones", "small", "negative"):
            with suppress(ValueError):  # a row is too large to sample
                yield [made_up(model, padding, length, seed, kind) for seed, length in enumerate(lengths)], lengths[-1]


def length_of(model: LoadedModel, padding: Padding, row: Row) -> int:
    """Of a row whose padded inputs all have it; else 0."""
    found = {row[name][1][axis] for (name, *_), (axis, _) in zip(model.inputs, padding.inputs, strict=True) if axis}
    return found.pop() if len(found) == 1 else 0


def lengths_to_try(edges: Lengths) -> Iterator[Lengths]:
    """Of rows of one bucket each time, ascending: of the first, and of the longest that may be tried."""
    tried = [edge for edge in edges if 1 < edge <= _LONGEST] or [_UP_TO]
    for edge in sorted({tried[0], tried[-1]}):
        shortest = max((one for one in edges if one < edge), default=0 if edges else _UP_TO // 2) + 1
        yield shortest, (shortest + edge) // 2, edge


def made_up(model: LoadedModel, padding: Padding, length: int, seed: int, kind: str) -> Row:
    row = sample(model, _FREE_AXIS, seed)
    for (name, datatype, shape, _), (axis, filling) in zip(model.inputs, padding.inputs, strict=True):
        if axis:
            sizes = [1, *(length if at == axis else size if size >= 0 else _FREE_AXIS for at, size in enumerate(shape[1:], 1))]
            row[name] = datatype, sizes, values(datatype, math.prod(sizes), seed, "ones" if "mask" in name.lower() else kind, filling)
    return row


def values(datatype: str, count: int, seed: int, kind: str, filling: bytes) -> bytes:
    """Ones that are not the value that is filled up with; small: from -2 to 2, or of integers from 0 to 4; negative: from -5 to -1."""
    one = packed(datatype, 1)
    if kind == "ones" or datatype == "BOOL" or (kind == "negative" and datatype.startswith("UINT")):
        return (one if one != filling else bytes(len(one))) * count
    least = -5 if kind == "negative" else -2 if datatype in FLOATS else 0
    five = b"".join(packed(datatype, least + (seed * 7 + index * 3) % 5) for index in range(5))
    return (five * (count // 5 + 1))[: count * len(one)]
