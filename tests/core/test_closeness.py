"""Closeness in C, held against numpy's."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core.closeness import close

FLOATS = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": ml_dtypes.bfloat16}


@given(st.sampled_from(sorted(FLOATS)), st.lists(st.tuples(st.floats(width=16), st.sampled_from([0, 1e-3, -1e-2, 1e-6, np.inf, np.nan])),
                                                 max_size=20), st.sampled_from([0, 1e-4, 1e-2]), st.sampled_from([0, 1e-5, 1e-1]))
def test_floats_are_close_when_numpy_says_so(datatype: str, pairs: list[tuple[float, float]], rtol: float, atol: float) -> None:
    a = np.array([x for x, _ in pairs]).astype(FLOATS[datatype])
    b = np.array([x + d for x, d in pairs]).astype(FLOATS[datatype])
    wanted = bool(np.isclose(a.astype(np.float64), b.astype(np.float64), rtol, atol, equal_nan=True).all())
    assert close(a.tobytes(), b.tobytes(), datatype, rtol, atol) == wanted


def test_every_half_has_its_value() -> None:
    halves = np.arange(65536, dtype=np.uint16)
    for other in (np.roll(halves, 1), halves ^ 1, halves ^ 0x8000):
        for index in range(0, 65536, 97):
            a, b = halves[index:index + 1].view(np.float16), other[index:index + 1].view(np.float16)
            wanted = bool(np.isclose(a.astype(float), b.astype(float), 1e-3, 0, equal_nan=True)[0])
            assert close(a.tobytes(), b.tobytes(), "FP16", 1e-3, 0) == wanted


@pytest.mark.parametrize("datatype", ["INT8", "INT64", "BOOL", "BYTES", "UINT32"])
def test_all_but_floats_must_be_equal(datatype: str) -> None:
    assert close(bytes(8), bytes(8), datatype, 1, 1)
    assert not close(bytes(8), bytes(7) + b"\1", datatype, 1, 1)


def test_sizes_must_be_equal_and_nothing_is_close_to_nothing() -> None:
    assert not close(bytes(4), bytes(8), "FP32", 1, 1)
    assert close(b"", b"", "FP32", 0, 0)


def test_an_unknown_datatype_is_refused() -> None:
    with pytest.raises(ValueError, match="no datatype 'FP8'"):
        close(b"", b"", "FP8", 0, 0)
