"""A million numbers between JSON and tensors, bit for bit as json and numpy have them: as double, then cast; what is out of range is refused."""

import json
import math
import os
import random
from itertools import compress

import numpy as np
import pytest

from batchmill.core import json_codec
from reference.json_codec import NUMPY, WORDS, one

COUNT = int(os.environ.get("BATCHMILL_NUMBERS", "1000000"))
SEED = int(os.environ.get("BATCHMILL_FUZZ_SEED") or "11")
ROW = 50_000            # numbers of one request
REFUSED_MAX = 3000      # of a kind, as each takes a request of its own
FIVES = [5**power for power in range(1077)]
DTYPES = {name: np.dtype(code) for name, code in NUMPY.items()}
INTEGERS = [name for name, dtype in DTYPES.items() if dtype.kind in "iu"]


def doubles(rng, count):
    """Of any bits, in any magnitude."""
    bits = np.frombuffer(rng.randbytes(8 * count), np.float64)
    return bits[np.isfinite(bits)]


def floats(rng, count):
    bits = np.frombuffer(rng.randbytes(4 * count), np.float32)
    return bits[np.isfinite(bits)]


def shortest(rng, count):
    """As briefly as they read back."""
    return [*map(repr, doubles(rng, count // 2).tolist()), *map(repr, floats(rng, count // 2).astype(np.float64).tolist())]


def long_ones(rng, count):
    """17 to 60 digits, with and without an exponent."""
    values = np.exp2(np.frombuffer(rng.randbytes(4 * count), np.uint32) / 2**25 - 64).tolist()  # 2^-64 to 2^64
    forms = [f"%.{digits}{form}" for digits in (17, 20, 25, 40, 60) for form in "efg"]
    return [forms[index % len(forms)] % value for index, value in enumerate(values)]


def digits(rng, count):
    """Any digits, with exponents from below the smallest number to above the largest one."""
    found = []
    for _ in range(count):
        size = rng.randrange(1, 31)
        point = rng.randrange(size + 1)
        text = f"{rng.randrange(10**size):0{size}d}"
        whole = text[:point].lstrip("0") or "0"
        found.append(f"{'-' * rng.randrange(2)}{whole}{'.' * (point < size)}{text[point:]}e{rng.randrange(-350, 312)}")
    return found


def exact(mantissa, exponent):
    """All digits of mantissa * 2**exponent."""
    return f"{mantissa << exponent}" if exponent >= 0 else f"{mantissa * FIVES[-exponent]}e{exponent}"


def halfway(rng, count, bits, least, most):
    """All digits of what lies in the middle between two neighbours that have so many bits; and a trace more, and a trace less."""
    found = []
    for index in range(count // 3):
        exponent = rng.randrange(least, most) if index % 4 else least
        top = rng.randrange(2**(bits - 1), 2**bits) if index % 4 else rng.randrange(1, 2**rng.randrange(1, bits + 1))    # else denormal
        text, _, power = exact(2 * top + 1, exponent - 1).partition("e")
        shift = int(power or 0) - 2
        found += [f"{text}00e{shift}", f"{text}01e{shift}", f"-{int(text) - 1}99e{shift}"]
    return found


def denormals(rng, count):
    """Of doubles and of floats, down to what is zero."""
    found = [repr(value) for value in np.frombuffer(rng.randbytes(8 * (count // 3)), np.uint64).__rshift__(12).view(np.float64).tolist()]
    found += [repr(float(value)) for value in np.frombuffer(rng.randbytes(4 * (count // 3)), np.uint32).__rshift__(9).view(np.float32).tolist()]
    return found + [f"{rng.randrange(1, 10**17)}e{rng.randrange(-345, -300) + 285 * rng.randrange(2)}" for _ in range(count // 3)]


def whole(rng, count):
    """Integers beside powers of two, which a double or a float has or has not."""
    powers = [sign * 2**bits for bits in (24, 25, 31, 32, 52, 53, 54, 63, 64, 127, 128) for sign in (1, -1)]
    return [str(rng.choice(powers) + rng.randrange(-5000, 5001)) for _ in range(count)]


def at_the_edges():
    """Where a datatype ends, where zero begins, and forms that are easily misread."""
    ends = [np.finfo(np.float64).max, np.finfo(np.float32).max, 3.4028235677973366e38, 3.4028235677973362e38, 5e-324, 2.0**-149, 2.0**-150, 2.0**-126]
    found = []
    for end in map(float, ends):
        for value in (end, math.nextafter(end, 0), math.nextafter(end, math.inf)):
            found += [repr(value), f"{value:.16e}", f"{value:.30e}"] if math.isfinite(value) else []
    for mantissa in ("1", "9.99", "1.7976931348623158", "1.7976931348623159", "2.4703282292062327", "2.4703282292062328", "4.9406564584124654"):
        found += [f"{mantissa}e{power}" for power in (-400, -325, -324, -323, -308, -46, -45, -38, 0, 22, 23, 37, 38, 39, 307, 308, 309, 400)]
    found += ["0", "-0", "0.0", "-0.0", "0e5", "-0E-5", "0e999999999999", "-0.000e-999999999999", "1e-999999999999", "1E+5", "1e+00005", "1e-0"]
    found += ["1e999999999999", "0." + "0" * 400 + "1e400", "1" + "0" * 400 + "e-400", "0." + "0" * 400 + "1e999", "9" * 5000, "9" * 5000 + "e-5000",
              "1" + "0" * 400 + "e-99999999999", exact(2**54 - 1, 970), exact(2**54 - 1, 970) + ".0",
              f"{2**1024 - 2**970 - 1}", "179769313486231580793e288"]
    return found + ["-" + text for text in found if text[0] != "-"]


def kinds(count):
    """The texts of at least so many numbers, by kind."""
    rng = random.Random(SEED)
    part = count // 100
    return {"at the edges": at_the_edges(), "shortest": shortest(rng, 36 * part), "long": long_ones(rng, 20 * part), "digits": digits(rng, 10 * part),
            "halfway between doubles": halfway(rng, 5 * part, 53, -1074, 971), "halfway between floats": halfway(rng, 15 * part, 24, -149, 104),
            "denormal": denormals(rng, 12 * part), "whole": whole(rng, 5 * part)}


def decoded(texts, datatype):
    """The elements that our decoder makes of some texts, in one request."""
    body = one(f"[{','.join(texts)}]", datatype, f"[{len(texts)}]")
    return np.frombuffer(json_codec.decode(body)["inputs"][0][3], DTYPES[datatype])


def check_read(texts, wanted, datatype):
    """Bit for bit; wanted: as numpy has them."""
    for start in range(0, len(texts), ROW):
        got, right = decoded(texts[start:start + ROW], datatype), wanted[start:start + ROW]
        if got.tobytes() != right.tobytes():
            index = next(index for index in range(len(right)) if got[index].tobytes() != right[index].tobytes())
            pytest.fail(f"seed {SEED}: {texts[start + index]} as {datatype}: {got[index]!r}, {right[index]!r} wanted")


def check_refused(texts, datatype):
    for text in texts[:REFUSED_MAX]:
        try:
            got = decoded([text], datatype)
        except ValueError as error:
            assert f"a number in the range of {datatype} wanted" in str(error), (SEED, text)
        else:
            pytest.fail(f"seed {SEED}: {text} as {datatype}: {got!r}, a refusal wanted")


@pytest.fixture(scope="module")
def texts():
    found = kinds(COUNT)
    assert sum(map(len, found.values())) >= 0.98 * COUNT
    return found


def test_floats_are_read_as_json_and_numpy_read_them(texts):
    for given in texts.values():
        wide = np.array(json.loads(f"[{','.join(given)}]", parse_int=float), np.float64)
        with np.errstate(over="ignore"):
            narrow = wide.astype(np.float32)
        for datatype, values in (("FP64", wide), ("FP32", narrow)):
            fine = np.isfinite(values)
            check_read(list(compress(given, fine)), values[fine], datatype)
            check_refused(list(compress(given, ~fine)), datatype)


def integers(rng, count):
    """Around each type's limits, around what doubles hold, and of any size."""
    edges = [0, *(sign * 2**bits for bits in (7, 8, 15, 16, 31, 32, 53, 63, 64) for sign in (1, -1))]
    values = [rng.choice(edges) + rng.randrange(-20, 21) for _ in range(count // 2)]
    values += [(1 - 2 * rng.randrange(2)) * rng.getrandbits(rng.randrange(1, 66)) for _ in range(count // 2)]
    return values + [edge + step for edge in edges for step in (-1, 0, 1)] + [10**19, 10**20 - 1, 10**20, 18446744073709551616, 10**21, -(10**40)]


def test_integers_are_read_as_json_and_numpy_read_them_and_never_wrapped():
    values = integers(random.Random(SEED), COUNT // 10)
    assert json.loads(f"[{','.join(map(str, values))}]") == values
    for datatype in INTEGERS:
        info = np.iinfo(DTYPES[datatype])
        fine = [value for value in values if info.min <= value <= info.max]
        check_read([*map(str, fine), "-0"], np.array([*fine, 0], DTYPES[datatype]), datatype)
        check_refused([str(value) for value in reversed(values) if not info.min <= value <= info.max], datatype)


@pytest.mark.parametrize("datatype", INTEGERS)
@pytest.mark.parametrize("text", ["1.0", "0.0", "1e2", "1E0", "-0.0", "9007199254740993.0"])
def test_a_number_with_a_point_or_an_exponent_is_no_integer(datatype, text):
    with pytest.raises(ValueError, match=f"{text} given, {datatype} wanted"):
        decoded([text], datatype)


def test_a_float_is_read_as_a_double_and_then_cast():
    text = "1.00000005960464477539062500001"    # a trace above the middle of two floats: which one a double cannot tell any more
    assert decoded([text], "FP32")[0] == np.float32(np.float64(text)) == 1.0
    assert json.loads(text) == 1 + 2**-24


def read_back(datatype, values):
    """What json reads where our encoder wrote these elements, as doubles or integers."""
    found = []
    for start in range(0, len(values), ROW):
        row = values[start:start + ROW]
        body, _ = json_codec.encode_response(b"m", b"1", b"", [(b"y", datatype.encode(), [len(row)], row.tobytes(), False)])
        found += json.loads(body, parse_constant=pytest.fail)["outputs"][0]["data"]
    return found


@pytest.mark.parametrize(("datatype", "unsigned"), [("FP32", np.uint32), ("FP64", np.uint64)])
def test_floats_are_written_so_that_json_reads_the_same_bits(datatype, unsigned):
    rng, dtype = random.Random(SEED), DTYPES[datatype]
    bits = np.frombuffer(rng.randbytes(COUNT * dtype.itemsize // 2), unsigned)
    denormal = bits[:COUNT // 20] >> (9 if datatype == "FP32" else 12)
    whole_ones = np.exp2(np.arange(-160.0, 128.0)).astype(dtype)
    near = (whole_ones.view(unsigned)[:, None] + np.arange(-3, 4).astype(unsigned)).ravel()
    values = np.concatenate([bits, denormal, near, bits[:COUNT // 20].astype(dtype).view(unsigned)]).view(dtype)
    read = np.array([WORDS[value] if isinstance(value, str) else value for value in read_back(datatype, values)], np.float64).astype(dtype)
    same = (read.view(unsigned) == values.view(unsigned)) | (np.isnan(read) & np.isnan(values))     # JSON carries no NaN payload
    assert same.all(), (SEED, values[~same][:5], read[~same][:5])


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_every_half_is_written_as_the_float_that_it_is(datatype):
    bits = np.arange(2**16, dtype=np.uint16)
    values = bits.view(np.float16).astype(np.float32) if datatype == "FP16" else (bits.astype(np.uint32) << 16).view(np.float32)
    read = np.array([WORDS[value] if isinstance(value, str) else value for value in read_back(datatype, bits)], np.float64).astype(np.float32)
    assert ((read.view(np.uint32) == values.view(np.uint32)) | (np.isnan(read) & np.isnan(values))).all()


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_are_written_so_that_json_reads_the_same(datatype):
    dtype, rng = DTYPES[datatype], random.Random(SEED)
    info = np.iinfo(dtype)
    values = np.array([0, info.min, info.max, info.min + 1, info.max - 1, *(10**power for power in range(19) if 10**power <= info.max)], dtype)
    values = np.concatenate([values, np.frombuffer(rng.randbytes(COUNT // 20 * dtype.itemsize), dtype)])
    assert read_back(datatype, values) == values.tolist()
