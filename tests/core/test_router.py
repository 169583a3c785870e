"""Who gets a request, and whether it fits the model: the router against its obvious twins."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import probe, rehearsal
from reference import queue as reference

NAMES = st.sampled_from([b"m", b"n", b"m@blue", b"a@b@c"])
NUMBERS = st.sampled_from([b"1", b"2", b"3"])
LABELS = st.sampled_from([b"blue", b"c", b"b@c"])
ROUTES = st.lists(
    st.tuples(NAMES, st.lists(NUMBERS, unique=True), st.just(b"") | NUMBERS, st.dictionaries(LABELS, NUMBERS)),
    max_size=4, unique_by=lambda route: route[0],
)  # fmt: skip


@given(ROUTES, NAMES | st.sampled_from([b"n@c", b"m@", b"@"]), st.just(b"") | NUMBERS, st.just(b"") | LABELS)
def test_pick_equals_its_obvious_twin(routes, model, version, label):
    try:
        got = probe.pick(routes, model, version, label)
    except LookupError as error:
        assert str(error)
        got = None
    assert got == reference.pick(routes, model, version, label)


def test_a_label_whose_version_is_not_ready_says_so():
    routes = [(b"m", [b"2"], b"2", {b"blue": b"1"})]
    with pytest.raises(LookupError, match='label "blue" of model "m" names version 1, which is not ready'):
        probe.pick(routes, b"m", b"", b"blue")
    with pytest.raises(LookupError, match='model "m" has no label "c"'):
        probe.pick(routes, b"m", b"", b"c")


SIGNATURE = st.lists(
    st.tuples(st.sampled_from([b"x", b"y", b"z"]), st.sampled_from(sorted(reference.SIZES)), st.lists(st.sampled_from([-1, 1, 2, 3]), min_size=1, max_size=3)),
    min_size=1, max_size=3, unique_by=lambda spec: spec[0],
)  # fmt: skip


@st.composite
def requests(draw):
    """A signature and a request that fits it, or nearly."""
    signature, batched = draw(SIGNATURE), draw(st.booleans())
    if batched:
        signature = [(name, datatype, [-1, *shape[1:]]) for name, datatype, shape in signature]
    rows = draw(st.integers(0, 4))
    given_tensors = []
    for name, datatype, wanted in signature:
        shape = [draw(st.integers(0, 3)) if size < 0 else size for size in wanted]
        if batched:
            shape[0] = rows
        given_tensors.append([name, datatype, shape, bytes(math.prod(shape) * reference.SIZES[datatype])])
    for _ in range(draw(st.integers(0, 1))):
        spoil(draw, given_tensors)
    return signature, batched, [tuple(one) for one in draw(st.permutations(given_tensors))]


def spoil(draw, tensors):
    one = tensors[draw(st.integers(0, len(tensors) - 1))]
    match draw(st.integers(0, 5)):
        case 0:
            one[0] = draw(st.sampled_from([b"x", b"y", b"w"]))
        case 1:
            one[1] = draw(st.sampled_from(sorted(reference.SIZES)))
        case 2:
            one[2][draw(st.integers(0, len(one[2]) - 1))] = draw(st.sampled_from([-1, 0, 5, 1 << 40, 1 << 62]))
        case 3:
            one[2].append(1)
        case 4:
            one[3] += b"1"
        case 5:
            tensors.append([*one])


@given(requests(), st.lists(st.sampled_from([b"o", b"p", b"q"]), max_size=3))
def test_check_equals_its_obvious_twin(case, asked):
    signature, batched, tensors = case
    outputs = [(b"o", b"FP32", [-1]), (b"p", b"FP32", [-1])]
    try:
        got = rehearsal.check(signature, outputs, batched, tensors, asked)
    except ValueError as error:
        assert str(error)
        got = None
    assert got == reference.fits(signature, outputs, batched, tensors, asked)


@pytest.mark.parametrize("shape", [[1 << 62, 4], [(1 << 60) + 2, 16], [1 << 32, 1 << 32], [1 << 63 - 1, 2, 2]])
def test_a_shape_whose_product_wraps_is_refused(shape):
    with pytest.raises(ValueError, match="do not fit"):
        rehearsal.check([(b"x", b"FP32", [-1] * len(shape))], [], False, [(b"x", b"FP32", shape, bytes(128))])
