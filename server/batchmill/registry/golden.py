"""golden.npz: inputs, and the outputs that a version must reproduce before it may go live.

Arrays `in:<name>` and `out:<name>`, rows along axis 0. Every input is wanted, and at least one output. Only versions that have
such a file make this module, and numpy with it, be imported. Nothing in the file is unpickled.
"""

from __future__ import annotations

import difflib
import itertools
import math
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchmill.backends import LoadedModel, RawTensor
from batchmill.errors import GoldenFailed
from batchmill.registry.prove import OUTLIER, Row, Samples, element_ends

Array = NDArray[Any]
_MAX_BYTES = 1 << 30  # unpacked: what a load may take for a while beside the model itself
_TIMED_RUNS = 100
_TIMED_SECS = 10.0  # after which fewer runs must do
_NUMBERS = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "<i1", "INT16": "<i2", "INT32": "<i4",
    "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_KINDS = {"b": "booleans", "i": "integers", "u": "integers", "f": "floats", "U": "texts", "S": "texts"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Floats are equal within atol + rtol * |expected|, everything else exactly. p99_ms of one run; None: any."""

    rtol: float
    atol: float
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Golden:
    """What the file holds, by name, held against a model's signature. Inputs are little-endian and contiguous."""

    inputs: Mapping[str, RawTensor]
    outputs: Mapping[str, Array]


def read(path: Path, model: LoadedModel) -> Golden:
    """GoldenFailed says what is wrong with the file."""
    arrays = unpack(path)
    ins = {key[3:]: array for key, array in arrays.items() if key.startswith("in:")}
    outs = {key[4:]: array for key, array in arrays.items() if key.startswith("out:")}
    for key in arrays:
        if not key.startswith(("in:", "out:")):
            raise GoldenFailed(f"array {key[:100]!r}: a name like in:<input> or out:<output> wanted")
    outputs = {name: datatype for name, datatype, _, _ in model.outputs}
    check_names("in:", ins, [name for name, *_ in model.inputs])
    check_names("out:", outs, list(outputs))
    for name, *_ in model.inputs:
        if name not in ins:
            raise GoldenFailed(f'no array "in:{name}": every input is wanted')
    if not outs:
        raise GoldenFailed("no output to reproduce: an array out:<output> is wanted")
    for name, array in outs.items():
        if _KINDS.get(array.dtype.kind) != kind_of(datatype := outputs[name]):
            raise GoldenFailed(f'output "{name}": {array.dtype} given, {kind_of(datatype)} wanted')
        if not array.size:
            raise GoldenFailed(f'output "{name}": no values to compare')
    inputs = {name: encoded(name, datatype, shape, ins[name]) for name, datatype, shape, _ in model.inputs}
    return Golden(inputs, {name: texts(array) if array.dtype.kind in "US" else array for name, array in outs.items()})


def unpack(path: Path) -> dict[str, Array]:
    try:
        if not path.is_file():
            raise GoldenFailed(f"{path.name} is no file")
        with zipfile.ZipFile(path) as packed:
            if sum(member.file_size for member in packed.infolist()) > _MAX_BYTES:
                raise GoldenFailed(f"{path.name} holds more than {_MAX_BYTES >> 20} MiB")
        with np.load(path, allow_pickle=False) as arrays:
            found = {key: arrays[key] for key in arrays.files}
    except (OSError, ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error) as error:
        raise GoldenFailed(f"{path.name} is not readable: {str(error) or type(error).__name__}") from None
    for key, array in found.items():
        if not isinstance(array, np.ndarray):
            raise GoldenFailed(f"{key[:100]!r} is no array")
    return found


def check_names(prefix: str, given: Mapping[str, Array], known: list[str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f'did you mean "{prefix}{near[0]}"?' if near else f"the model has {', '.join(known)}"
            raise GoldenFailed(f'array "{prefix}{name[:100]}": the model has no such {"input" if prefix == "in:" else "output"}; {hint}')


def check_shape(what: str, given: tuple[int, ...], wanted: list[int]) -> None:
    """A fixed first axis may be given several times: its rows are run in turns."""
    fits = len(given) == len(wanted) and all(b in (-1, a) for a, b in zip(given[1:], wanted[1:], strict=True))
    if fits and given and wanted[0] > 0:
        fits = given[0] % wanted[0] == 0
    if not fits:
        raise GoldenFailed(f"{what}: shape {[*given]} given, {[*wanted]} wanted")


def kind_of(datatype: str) -> str:
    return "texts" if datatype == "BYTES" else _KINDS[np.dtype(_NUMBERS.get(datatype, "<f4")).kind]


def texts(array: Array) -> Array:
    """The same, of bytes objects."""
    found = np.empty(array.shape, object)
    for index, one in np.ndenumerate(array):
        found[index] = one if isinstance(one, bytes) else str(one).encode()
    return found


def encoded(name: str, datatype: str, shape: list[int], array: Array) -> RawTensor:
    """An input as the model takes it. Datatypes must be equal; BF16, which numpy lacks, is given as FP32."""
    check_shape(f'input "{name}"', array.shape, shape)
    sizes = list(array.shape)
    if datatype == "BYTES" and array.dtype.kind in "US":
        return datatype, sizes, b"".join(struct.pack("<I", len(one)) + one for one in texts(array).flat)
    wanted = np.dtype(_NUMBERS.get(datatype, "<f4"))
    if datatype == "BYTES" or array.dtype.newbyteorder("<") != wanted:
        raise GoldenFailed(f'input "{name}": {array.dtype} given, {"texts" if datatype == "BYTES" else wanted} wanted')
    values = np.ascontiguousarray(array, wanted)
    return datatype, sizes, to_bfloat16(values) if datatype == "BF16" else values.tobytes()


def to_bfloat16(values: Array) -> bytes:
    """Rounded to the nearest, ties to even; NaN stays NaN."""
    bits = values.view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2").tobytes()


def decoded(tensor: RawTensor) -> Array:
    datatype, shape, raw = tensor
    if datatype == "BYTES":
        found = np.empty(math.prod(shape), object)
        ends = [0, *element_ends(raw)]
        found[:] = [raw[start + 4 : end] for start, end in itertools.pairwise(ends)]
        return found.reshape(shape)
    if datatype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    return np.frombuffer(raw, _NUMBERS[datatype]).reshape(shape)


# What the batching proof takes from it.
def samples(golden: Golden) -> Samples | None:
    """Rows for the proof, with neighbours made of them; None: there is no row along axis 0."""
    sizes = {shape[0] if shape else 0 for _, shape, _ in golden.inputs.values()}
    if len(sizes) != 1 or not (count := sizes.pop()):
        return None
    rows = [rows_between(golden.inputs, at % count, at % count + 1) for at in range(3)]

    def neighbour(change: Any) -> Row:
        return {name: (datatype, shape, changed(datatype, shape, raw, change)) for name, (datatype, shape, raw) in rows[0].items()}

    return Samples(
        rows,
        outlier=neighbour(lambda values: values * OUTLIER + OUTLIER if values.dtype.kind == "f" else values),
        nan=neighbour(lambda values: np.full_like(values, np.nan) if values.dtype.kind == "f" else values),
        large_index=neighbour(lambda values: np.clip(values, 127, None) if values.dtype.kind in "iu" else values),
    )


def rows_between(inputs: Mapping[str, RawTensor], start: int, end: int) -> Row:
    found: Row = {}
    for name, (datatype, shape, raw) in inputs.items():
        ends = [0, *element_ends(raw)] if datatype == "BYTES" else range(0, len(raw) + 1, len(raw) // (math.prod(shape) or 1) or 1)
        each = math.prod(shape[1:])
        found[name] = datatype, [end - start, *shape[1:]], raw[ends[start * each] : ends[end * each]]
    return found


def changed(datatype: str, shape: list[int], raw: bytes, change: Any) -> bytes:
    if datatype == "BYTES":
        return raw
    values = decoded((datatype, shape, raw))
    with np.errstate(over="ignore"):
        after = np.ascontiguousarray(change(values), values.dtype)
    return to_bfloat16(after) if datatype == "BF16" else after.tobytes()


# The gate.
def check(golden: Golden, model: LoadedModel, limits: Limits, batch_rows: int) -> None:
    """Runs the inputs and compares. batch_rows: at most so many rows together; 0: the version is not batched. Raises GoldenFailed."""
    computed: dict[str, list[Array]] = {name: [] for name in golden.outputs}
    feeds = list(in_turns(golden, model, batch_rows))
    for feed in feeds:
        for name, tensor in run(model, feed, list(golden.outputs)).items():
            computed[name].append(decoded(tensor))
    for name, expected in golden.outputs.items():
        parts = computed[name]
        whole = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if whole.shape != expected.shape:
            raise GoldenFailed(f'output "{name}": shape {[*whole.shape]} computed, {[*expected.shape]} expected')
        compare(name, whole, expected, limits)
    if limits.p99_ms is not None:
        alone = [rows_between(golden.inputs, at, at + 1) for at in range(row_count(golden))] if batch_rows else feeds
        check_time(model, alone, limits.p99_ms)


def row_count(golden: Golden) -> int:
    return next((shape[0] for _, shape, _ in golden.inputs.values()), 0)


def run(model: LoadedModel, feed: Row, outputs: list[str] | None = None) -> dict[str, RawTensor]:
    try:
        return model.run(feed, outputs)
    except (RuntimeError, ValueError) as error:
        raise GoldenFailed(f"the inputs do not run: {error}") from None


def in_turns(golden: Golden, model: LoadedModel, batch_rows: int) -> Iterator[Row]:
    """The inputs cut as the model takes them: batches of a batched version, turns of a model whose first axis has one fixed size."""
    firsts = {shape[0] if shape else 0 for _, _, shape, _ in (*model.inputs, *model.outputs)}
    step = batch_rows or (max(firsts) if len(firsts) == 1 and min(firsts) > 0 else 0)
    if not step:
        yield dict(golden.inputs)
        return
    sizes = {f"in:{name}": shape[0] for name, (_, shape, _) in golden.inputs.items()}
    sizes |= {f"out:{name}": array.shape[0] for name, array in golden.outputs.items()}
    first = min(sizes, key=lambda key: sizes[key])
    for key, count in sizes.items():
        if count != sizes[first]:
            raise GoldenFailed(f'array "{key}" has {count} rows, "{first}" has {sizes[first]}')
    count = sizes[first]
    for start in range(0, count, step):
        yield rows_between(golden.inputs, start, min(start + step, count))


def compare(name: str, computed: Array, expected: Array, limits: Limits) -> None:
    if kind_of_array(computed) != "floats":
        wrong = computed != expected
        if np.any(wrong):
            where = place(wrong, np.argmax(wrong))
            raise GoldenFailed(f'output "{name}": {shown(computed[where])} at {[*where]}, {shown(expected[where])} expected; {count_of(wrong)}')
        return
    a, b = computed.astype(np.float64), expected.astype(np.float64)
    lost = np.isnan(a) != np.isnan(b)
    if np.any(lost):
        where = place(lost, np.argmax(lost))
        raise GoldenFailed(f'output "{name}": {shown(a[where])} at {[*where]}, {shown(b[where])} expected; {count_of(lost)}')
    with np.errstate(invalid="ignore"):
        distance = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        allowed = limits.atol + limits.rtol * np.where(np.isfinite(b), np.abs(b), 0.0)
    wrong = distance > allowed
    if np.any(wrong):
        where = place(wrong, np.argmax(np.where(wrong, distance, -1.0)))
        raise GoldenFailed(
            f'output "{name}" max-abs {distance[where]:.1e} > {allowed[where]:.1e} at {[*where]}: '
            f"{shown(a[where])} computed, {shown(b[where])} expected; {count_of(wrong)}"
        )


def kind_of_array(array: Array) -> str:
    return _KINDS.get(array.dtype.kind, "texts")


def place(wrong: Array, flat: Any) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(flat, wrong.shape))


def shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else repr(value)[:60] if isinstance(value, bytes) else str(value)


def count_of(wrong: Array) -> str:
    return f"{int(np.count_nonzero(wrong))} of {wrong.size} values are wrong"


def check_time(model: LoadedModel, feeds: list[Row], p99_ms: float) -> None:
    """Runs one after another; of a batched version one row a run, as a lone request is."""
    took: list[float] = []
    end = time.monotonic() + _TIMED_SECS
    for at in range(-3, _TIMED_RUNS):
        began = time.perf_counter()
        run(model, feeds[at % len(feeds)])
        if at >= 0:
            took.append((time.perf_counter() - began) * 1000)
        if took and time.monotonic() > end:
            break
    found = p99(took)
    if found > p99_ms:
        raise GoldenFailed(f"p99 {found:.3g} ms of {len(took)} runs > p99_ms {p99_ms:g}")


def p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]
