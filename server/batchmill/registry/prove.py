"""Proves that a version may be batched: rows that run together must come out as rows that run alone.

Three kinds of neighbours are tried: ordinary rows, a row fifty times larger (dynamic quantisation scales by the largest
value, and passes on ordinary rows), and a row of NaN. Small integers are the sample, because random ones fall outside of
embedding tables. Equal means rtol 1e-4 and atol 1e-5 for floats, exactly for everything else.
"""

from __future__ import annotations

import array
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from batchmill.backends import Backend, LoadedModel, RawTensor

RTOL, ATOL = 1e-4, 1e-5
_CODES = {"UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "FP32": "f", "FP64": "d"}
_FREE_AXIS = 4  # the size tried for a free axis that is not the batch
_MAX_ELEMENTS = 4 << 20  # of one sample row; larger ones would make a start slow

Row = dict[str, tuple[list[int], bytes]]  # by input: shape without the batch axis, raw bytes


@dataclass(frozen=True, slots=True)
class Proof:
    batched: bool
    reason: str


def prove(backend: Backend, model: LoadedModel, mode: str) -> Proof:
    """mode: model.yaml's batching.mode."""
    if mode == "off":
        return Proof(False, "batching is off in model.yaml")
    for name, _, shape, _ in (*model.inputs, *model.outputs):
        if not shape or shape[0] != -1:
            return Proof(False, f'the first axis of "{name}" is not free')
    if mode == "on":
        return Proof(True, "declared in model.yaml")
    if not model.inputs:
        return Proof(False, "the model has no inputs")
    for width in (_FREE_AXIS, 1):
        try:
            return compare(backend, model, width)
        except (RuntimeError, ValueError):
            continue
    return Proof(False, "no sample input runs; model.yaml may declare `batching: {mode: on}`")


def compare(backend: Backend, model: LoadedModel, width: int) -> Proof:
    ordinary = [sample_row(model, width, seed, 1) for seed in range(3)]
    outlier = sample_row(model, width, 5, 50)
    failure = differs(backend, model, ordinary, range(3))
    if failure:
        return Proof(False, f"rows run together differ from rows run alone: {failure}")
    neighbours = [("beside a large row", outlier)]
    if any(datatype in ("FP16", "FP32", "FP64") for _, datatype, _, _ in model.inputs):
        neighbours.append(("beside a row of NaN", sample_row(model, width, 0, float("nan"))))
    for words, neighbour in neighbours:
        try:
            failure = differs(backend, model, [*ordinary, neighbour], range(3))
        except (RuntimeError, ValueError):
            continue  # a large index may be outside of a table: it tells nothing
        if failure:
            return Proof(False, f"a row changes {words}: {failure}")
    return Proof(True, "proved: rows run together equal rows run alone")


def differs(backend: Backend, model: LoadedModel, rows: list[Row], checked: range) -> str:
    """The first output in which a checked row differs; empty when none does."""
    together = model.run({name: stack(datatype, [row[name] for row in rows]) for name, datatype, _, _ in model.inputs})
    for number in checked:
        alone = model.run({name: stack(datatype, [rows[number][name]]) for name, datatype, _, _ in model.inputs})
        for name, (datatype, shape, raw) in alone.items():
            whole_shape, whole = together[name][1], together[name][2]
            if not shape or shape[0] != 1 or not whole_shape or whole_shape[0] != len(rows):
                return f'output "{name}" does not have one row for each row of the inputs'
            if whole_shape[1:] != shape[1:]:
                return f'output "{name}" changes its shape with the batch'
            part = cut(datatype, whole, number, len(rows))
            if not backend.close(part, raw, datatype, RTOL, ATOL):
                return f'output "{name}"'
    return ""


def stack(datatype: str, rows: list[tuple[list[int], bytes]]) -> RawTensor:
    return datatype, [len(rows), *rows[0][0]], b"".join(raw for _, raw in rows)


def cut(datatype: str, whole: bytes, number: int, rows: int) -> bytes:
    """The bytes of one row of a raw tensor."""
    if datatype != "BYTES":
        size = len(whole) // rows
        return whole[number * size : (number + 1) * size]
    ends = [0, *element_ends(whole)]
    each = (len(ends) - 1) // rows
    return whole[ends[number * each] : ends[(number + 1) * each]]


def element_ends(whole: bytes) -> Iterator[int]:
    at = 0
    while at < len(whole):
        at += 4 + int(struct.unpack_from("<I", whole, at)[0])
        yield at


def sample_row(model: LoadedModel, width: int, seed: int, scale: float) -> Row:
    """One row of small integers for each input, times scale where the datatype can hold it."""
    row: Row = {}
    for name, datatype, shape, _ in model.inputs:
        sizes = [size if size >= 0 else width for size in shape[1:]]
        count = 1
        for size in sizes:
            count *= size
        if count > _MAX_ELEMENTS:
            raise ValueError("a row is too large to sample")
        row[name] = sizes, sample_values(datatype, count, seed, scale)
    return row


def sample_values(datatype: str, count: int, seed: int, scale: float) -> bytes:
    small = [(seed * 7 + index * 3) % 5 for index in range(count)]
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", 1) + b"abcde"[value : value + 1] for value in small)
    if datatype == "BOOL":
        return bytes(value & 1 for value in small)
    if datatype in ("FP16", "BF16"):
        values = [value * scale for value in small]
        if datatype == "FP16":
            return struct.pack(f"<{count}e", *values)
        return b"".join(struct.pack("<f", value)[2:] for value in values)
    if datatype in ("FP32", "FP64"):
        return array.array(_CODES[datatype], [value * scale for value in small]).tobytes()
    factor = 1 if scale != scale else int(scale)  # integers have no NaN
    return array.array(_CODES[datatype], [min(127, value * factor) for value in small]).tobytes()
