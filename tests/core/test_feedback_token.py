"""Tokens of answers: sealed so that nobody else can make one, and what they carry."""

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import feedback_token
from reference import feedback_token as reference

KEY = bytes(range(16))
# The first of the vectors in the reference code of SipHash-2-4 (vectors_sip64): of the bytes 0, 1, 2 ... with the key 00..0f.
VECTORS = (
    "310e0edd47db6f72", "fd67dc93c539f874", "5a4fa9d909806c0d", "2d7efbd796666785", "b7877127e09427cf", "8da699cd64557618",
    "cee3fe586e46c9cb", "37d1018bf50002ab", "6224939a79f5f593", "b0e4a90bdf82009e", "f3b9dd94c5bb5d7a", "a7ad6b22462fb3f4",
    "fbe50e86bc8f1e75", "903d84c02756ea14", "eef27a8e90ca23f7", "e545be4961ca29a1",
)  # fmt: skip
U32, U64 = st.integers(0, (1 << 32) - 2), st.integers(0, (1 << 64) - 1)
FIELDS = st.tuples(st.text(max_size=40).filter(lambda text: text.isprintable()), U64, U32, U32, st.none() | U32, U64)
INTEGERS = ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64")
DTYPES = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8", "BOOL": "?"} | {name: f"<{name[0].lower()}{int(name.lstrip('UINT')) // 8}" for name in INTEGERS}


@pytest.fixture(autouse=True)
def key():
    feedback_token.set_key(KEY)


@pytest.mark.parametrize(("size", "wanted"), [*enumerate(VECTORS)])
def test_the_hash_is_that_of_the_published_vectors(size, wanted):
    data = bytes(range(size))
    assert feedback_token.hashed(KEY, data).to_bytes(8, "little").hex() == wanted
    assert reference.sip_hash(KEY, data).to_bytes(8, "little").hex() == wanted


@given(st.binary(min_size=16, max_size=16), st.binary(max_size=100))
def test_the_hash_equals_its_twin(key, data):
    assert feedback_token.hashed(key, data) == reference.sip_hash(key, data)


@given(FIELDS)
def test_a_token_equals_its_twin_and_is_read_as_it_was_made(fields):
    model, *rest = fields
    token = feedback_token.sealed(KEY, model, *rest)
    assert token == reference.sealed(KEY, model, *rest)
    assert len(token) == 48
    assert feedback_token.read(model, token) == tuple(rest)


@given(FIELDS, st.integers(0, 36 * 8 - 1))
def test_a_token_with_any_bit_changed_is_none(fields, bit):
    model, *rest = fields
    raw = bytearray(base64.urlsafe_b64decode(feedback_token.sealed(KEY, model, *rest)))
    raw[bit // 8] ^= 1 << bit % 8
    assert feedback_token.read(model, base64.urlsafe_b64encode(raw).decode()) is None


@given(FIELDS)
def test_a_token_of_another_model_or_key_is_none(fields):
    model, *rest = fields
    assert feedback_token.read(f"{model}x", feedback_token.sealed(KEY, model, *rest)) is None
    assert feedback_token.read(model, feedback_token.sealed(bytes(16), model, *rest)) is None


@given(st.text(max_size=60) | st.text("AZaz09-_=+/ ", min_size=48, max_size=48))
def test_what_is_no_token_is_none(text):
    assert feedback_token.read("m", text) is None


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_key_has_16_bytes(size):
    with pytest.raises(ValueError, match="16 bytes"):
        feedback_token.set_key(bytes(size))


@given(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(1, 4), max_size=3), st.randoms(use_true_random=False))
def test_the_class_that_an_output_says_equals_its_twin(datatype, shape, random):
    values = [random.choice([-3, -1, 0, 1, 2, 5, 100, *([float("nan"), float("inf")] if datatype.startswith("FP") else [])])
              for _ in range(int(np.prod(shape)) if shape else 1)]  # fmt: skip
    if datatype.startswith("U") or datatype == "BOOL":
        values = [abs(value) for value in values]
    array = np.array(values).astype(DTYPES[datatype]).reshape(shape)
    assert feedback_token.predicted(datatype, shape, array.tobytes()) == reference.predicted(array)


@pytest.mark.parametrize(("datatype", "shape", "array", "wanted"), [
    ("FP32", [1, 3], np.array([0.1, 0.7, 0.2], "<f4"), 1),
    ("FP32", [3], np.array([0.7, 0.7, 0.2], "<f4"), 0),        # the first of equal ones
    ("FP32", [2, 2], np.array([1, 2, 3, 4], "<f4"), None),     # two rows
    ("FP32", [1, 1], np.array([0.9], "<f4"), None),            # one number is no choice
    ("FP32", [1, 2], np.array([np.nan, np.nan], "<f4"), None),
    ("BF16", [1, 2], np.array([0x3F80, 0x4000], "<u2"), 1),    # 1 and 2
    ("INT64", [1], np.array([7], "<i8"), 7),
    ("INT64", [1], np.array([-7], "<i8"), None),
    ("INT64", [1, 2], np.array([7, 8], "<i8"), None),
])
def test_which_outputs_say_a_class(datatype, shape, array, wanted):
    assert feedback_token.predicted(datatype, shape, array.tobytes()) == wanted


def test_texts_say_none():
    assert feedback_token.predicted("BYTES", [0], b"") is None
