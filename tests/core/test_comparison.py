"""How far two answers are apart, held against numpy's word."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core.comparison import compare
from reference import comparison as reference

FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": ml_dtypes.bfloat16}
SHAPES = [(), (0,), (1,), (2,), (7,), (3, 1), (2, 5), (3, 6), (2, 2, 9), (2, 700)]
CHANGES = [0.0, 0.0, 0.0, 1e-6, 1e-3, -0.5, 2.0, np.nan, np.inf, -np.inf]


@st.composite
def pairs(draw):
    """Two arrays of one shape, of few different values, so that there are equals among the greatest."""
    shape, seed = draw(st.sampled_from(SHAPES)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    values = draw(st.lists(st.floats(-1e3, 1e3, width=16) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0]), min_size=1, max_size=8))
    a = rng.choice(np.array(values), shape)
    changes = draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=6))
    return np.asarray(a), np.asarray(a + rng.choice(np.array(changes), shape))


def told(a, b, datatype, **settings):
    return compare((a.tobytes(), datatype, a.shape), (b.tobytes(), datatype, b.shape), **settings)


@given(pairs(), st.sampled_from(sorted(FLOATS)), st.sampled_from([0.0, 1e-3, 0.1]), st.sampled_from([1e-5, 0.3]), st.booleans())
def test_floats_are_as_far_apart_as_numpy_says(pair, datatype, rtol, atol, by_argmax):
    with np.errstate(all="ignore"):
        a, b = (one.astype(FLOATS[datatype]) for one in pair)
    found = told(a, b, datatype, rtol=rtol, atol=atol, by_argmax=by_argmax)
    wanted = reference.compare(a, b, rtol, atol, by_argmax)
    for key, value in wanted.items():
        if key == "excess" and math.isfinite(value):
            assert found[key] == pytest.approx(value, rel=1e-9), key
        elif key in ("cosine", "max_abs", "max_rel", "top_same"):
            assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-9), key
        elif key != "agrees" or abs(wanted["excess"] - 1) > 1e-9:
            assert found[key] == value, key


@pytest.mark.parametrize("datatype", ["INT8", "UINT64", "BOOL"])
def test_all_but_floats_agree_when_they_are_equal(datatype):
    width = {"INT8": 1, "UINT64": 8, "BOOL": 1}[datatype]
    raw = bytes([1] * width * 3)
    assert compare((raw, datatype, [3]), (raw, datatype, [3]))["agrees"]
    other = compare((raw, datatype, [3]), (raw[:-1] + b"\0", datatype, [3]))
    assert (other["agrees"], other["equal"], other["excess"]) == (False, False, math.inf)


def test_strings_agree_when_they_are_equal_whatever_their_lengths():
    a, b = b"\1\0\0\0a\1\0\0\0b", b"\1\0\0\0a\2\0\0\0bc"
    assert compare((a, "BYTES", [2]), (a, "BYTES", [2]))["agrees"]
    assert not compare((a, "BYTES", [2]), (b, "BYTES", [2]))["agrees"]
    assert not compare((a, "BYTES", [2]), (b, "BYTES", [2]))["shapes_differ"]


@pytest.mark.parametrize(("datatype", "shape"), [("FP32", [1, 2]), ("FP32", [2, 1]), ("INT32", [2])])
def test_another_shape_or_datatype_never_agrees(datatype, shape):
    found = compare((bytes(8), "FP32", [2]), (bytes(8), datatype, shape))
    assert found["shapes_differ"]
    assert not found["agrees"]


def test_what_only_one_has_of_nan_and_infinity_cannot_be_measured_and_what_both_have_is_equal():
    a = np.array([1, np.nan, np.inf, -np.inf], np.float32)
    b = np.array([1.5, np.nan, np.inf, -np.inf], np.float32)
    same = told(a, b, "FP32")
    assert (same["finite"], same["max_abs"]) == (True, 0.5)
    other = told(a, np.array([1, np.nan, -np.inf, -np.inf], np.float32), "FP32")
    assert (other["finite"], other["max_abs"], other["excess"], other["agrees"]) == (False, 0, math.inf, False)


def test_by_argmax_rows_agree_though_their_values_do_not():
    a, b = np.array([[1, 2, 3], [9, 1, 1]], np.float32), np.array([[0, 0, 1], [2, 1, 0]], np.float32)
    assert told(a, b, "FP32", by_argmax=True)["agrees"]
    assert not told(a, b, "FP32")["agrees"]
    assert not told(a, b[::-1].copy(), "FP32", by_argmax=True)["agrees"]
