"""Proves that a version may be batched: rows that run together must come out as rows that run alone.

Three kinds of neighbours are tried: ordinary rows, a row fifty times larger (dynamic quantisation scales by the largest
value, and passes on ordinary rows), and a row of NaN. Rows of golden.npz are the sample where there is one, otherwise small
integers, because random ones fall outside of embedding tables; for the same reason integers stay small where floats are large.
Equal means rtol 1e-4 and atol 1e-5 for floats, exactly for everything else.
"""

from __future__ import annotations

import array
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from batchmill.backends import Backend, LoadedModel, RawTensor

RTOL, ATOL = 1e-4, 1e-5
CODES = {"UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "FP32": "f", "FP64": "d"}
FLOATS = {"FP16", "BF16", "FP32", "FP64"}
INTEGERS = set(CODES) - FLOATS
OUTLIER = 50
_FREE_AXIS = 4  # the size tried for a free axis that is not the batch
_MAX_ELEMENTS = 4 << 20  # of one sample row; larger ones would make a start slow

Row = dict[str, RawTensor]  # by input or output


@dataclass(frozen=True, slots=True)
class Proof:
    batched: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Samples:
    """Rows to prove with. outlier: one of large floats; nan: one of floats that are NaN; large_index: one of larger integers."""

    ordinary: list[Row]
    outlier: Row
    nan: Row
    large_index: Row


def prove(backend: Backend, model: LoadedModel, mode: str, golden: Samples | None = None) -> Proof:
    """mode: model.yaml's batching.mode. golden: rows that the model is known to take."""
    if mode == "off":
        return Proof(False, "batching is off in model.yaml")
    for name, _, shape, _ in (*model.inputs, *model.outputs):
        if not shape or shape[0] != -1:
            return Proof(False, f'the first axis of "{name}" is not free')
    if not model.inputs:
        return Proof(False, "the model has no inputs")
    if mode == "on":
        return Proof(True, "declared in model.yaml")
    for width in (_FREE_AXIS, 1):
        try:
            return compare(backend, model, golden or made_up(model, width))
        except (RuntimeError, ValueError):
            continue
    return Proof(False, "no sample input runs; model.yaml may declare `batching: {mode: on}`")


def made_up(model: LoadedModel, width: int) -> Samples:
    ordinary = [sample(model, width, seed) for seed in range(3)]
    large, index = sample(model, width, 7, floats=OUTLIER), sample(model, width, 7, integers=OUTLIER)
    return Samples(ordinary, large, sample(model, width, 0, floats=math.nan), index)


def compare(backend: Backend, model: LoadedModel, samples: Samples) -> Proof:
    """Raises RuntimeError or ValueError when the sample does not run."""
    ordinary = samples.ordinary
    alone = [model.run(row) for row in ordinary]
    failure = differs(backend, model, ordinary, alone)
    if failure:
        return Proof(False, f"rows run together differ from rows run alone: {failure}")
    datatypes = {datatype for _, datatype, _, _ in model.inputs}
    proved = "proved: rows run together equal rows run alone"

    def beside(neighbour: Row) -> tuple[str, str]:
        """(the output in which a row differs beside that neighbour, the error when that does not run)."""
        try:
            return differs(backend, model, [*ordinary, neighbour], alone), ""
        except (RuntimeError, ValueError) as error:
            return "", str(error)

    if datatypes & FLOATS:
        failure, error = beside(samples.outlier)
        if failure or error:
            return Proof(False, f"a row changes beside a large row: {failure}" if failure else f"not proved: no run beside a large row: {error}")
        failure, error = beside(samples.nan)
        if failure:
            return Proof(False, f"a row changes beside a row of NaN: {failure}")
        if error:  # NaN cannot change a row beside it when it fails the run: such a batch is run again in parts
            proved += f"; a row of NaN fails its run: {error}"
    if datatypes & INTEGERS:
        failure, _ = beside(samples.large_index)
        if failure:  # that it does not run tells nothing: a large index may be outside of a table
            return Proof(False, f"a row changes beside a large row: {failure}")
    return Proof(True, proved)


def differs(backend: Backend, model: LoadedModel, rows: list[Row], alone: list[Row]) -> str:
    """The first output of the rows run together that is not as that of the first rows run alone; empty when there is none."""
    together = model.run(stack(rows))
    for number, outputs in enumerate(alone):
        for name, (datatype, shape, raw) in outputs.items():
            whole_shape, whole = together[name][1], together[name][2]
            if not shape or shape[0] != 1 or not whole_shape or whole_shape[0] != len(rows):
                return f'output "{name}" does not have one row for each row of the inputs'
            if whole_shape[1:] != shape[1:]:
                return f'output "{name}" changes its shape with the batch'
            part = cut(datatype, whole, number, len(rows))
            if not backend.close(part, raw, datatype, RTOL, ATOL):
                return f'output "{name}"'
    return ""


def stack(rows: list[Row]) -> Row:
    return {
        name: (datatype, [len(rows), *shape[1:]], b"".join(row[name][2] for row in rows))
        for name, (datatype, shape, _) in rows[0].items()
    }  # fmt: skip


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


def sample(model: LoadedModel, width: int, seed: int = 0, *, floats: float = 1.0, integers: int = 1) -> Row:
    """An input of small integers, times what its kind of datatype is given: one row where axis 0 is free, else the static shape."""
    row: Row = {}
    for name, datatype, shape, _ in model.inputs:
        sizes = [size if size >= 0 else width if axis else 1 for axis, size in enumerate(shape)]
        count = math.prod(sizes)
        if count > _MAX_ELEMENTS:
            raise ValueError("a row is too large to sample")
        row[name] = datatype, sizes, sample_values(datatype, count, seed, floats if datatype in FLOATS else integers)
    return row


def sample_values(datatype: str, count: int, seed: int, factor: float) -> bytes:
    small = [(seed * 7 + index * 3) % 5 for index in range(count)]
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", 1) + b"abcde"[value : value + 1] for value in small)
    if datatype == "BOOL":
        return bytes(value & 1 for value in small)
    if datatype == "FP16":
        return struct.pack(f"<{count}e", *[value * factor for value in small])
    if datatype == "BF16":
        return b"".join(struct.pack("<f", value * factor)[2:] for value in small)
    if datatype in FLOATS:
        return array.array(CODES[datatype], [value * factor for value in small]).tobytes()
    return array.array(CODES[datatype], [min(127, value * int(factor)) for value in small]).tobytes()
