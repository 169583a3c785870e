"""Rows of different lengths in one run, against numpy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import rehearsal
from reference import padding as reference
from reference.proto import message

# BF16 travels as any two bytes.
DTYPES = {"BOOL": "?", "UINT8": "u1", "INT16": "<i2", "FP16": "<f2", "BF16": "<u2", "FP32": "<f4", "UINT32": "<u4", "INT64": "<i8", "FP64": "<f8"}
TENSOR = st.tuples(st.sampled_from(list(DTYPES)), st.lists(st.integers(0, 3), min_size=1, max_size=3), st.integers(0, 3))  # datatype, other axes, padded axis


def requests_of(lengths):
    return st.lists(st.tuples(st.integers(0, 3), lengths), min_size=1, max_size=5)


def tensor(drawn):
    """(datatype, shape of a row with a place for the length, axis; 0: none)."""
    datatype, sizes, axis = drawn
    axis = min(axis, len(sizes))
    return datatype, [*sizes[: axis - 1], None, *sizes[axis:]] if axis else sizes, axis


def array(random, datatype, sizes, rows, length):
    shape = [rows, *(length if size is None else size for size in sizes)]
    return random.integers(0, 2 if datatype == "BOOL" else 100, shape).astype(DTYPES[datatype])


def specs(tensors):
    return [(b"t%d" % at, datatype.encode(), [-1, *(-1 if size is None else size for size in sizes)]) for at, (datatype, sizes, _) in enumerate(tensors)]


def raw(array, datatype):
    return datatype.encode(), list(array.shape), array.tobytes()


def run(inputs, outputs, values, edges, requests, computed):
    """(arrays fed, arrays by request and output, bytes of padding)."""
    fed = []

    def model(given):
        fed.extend(np.frombuffer(data, DTYPES[datatype]).reshape(shape) for datatype, shape, data in given)
        return [raw(one, datatype) for one, (datatype, _, _) in zip(computed(fed), outputs, strict=True)]

    given = [[(b"t%d" % at, *raw(one, inputs[at][0])) for at, one in enumerate(request)] for request in requests]
    padding = [(axis, value.tobytes()) for (*_, axis), value in zip(inputs, values, strict=True)], [axis for *_, axis in outputs], edges
    frames, extra = rehearsal.run_batch(specs(inputs), specs(outputs), padding, given, model)
    answers = []
    for frame in frames:
        answer = message("ModelInferResponse").FromString(frame[5:])
        answers.append([np.frombuffer(data, DTYPES[one.datatype]).reshape(list(one.shape))
                        for one, data in zip(answer.outputs, answer.raw_output_contents, strict=True)])
    return fed, answers, extra


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@given(st.lists(TENSOR, min_size=1, max_size=3).map(lambda some: [*map(tensor, some)]), st.lists(TENSOR, min_size=1, max_size=2).map(lambda some: [*map(tensor, some)]),
       requests_of(st.integers(5, 8)) | requests_of(st.integers(6, 8)) | requests_of(st.integers(0, 9)), st.sampled_from([[], [2, 5, 8], [4], [9]]), st.randoms())
def test_a_batch_is_what_numpy_makes_of_it(inputs, outputs, shapes, edges, seed):
    inputs[0] = ("INT64", [3, None, 2], 2)
    random = np.random.default_rng(seed.getrandbits(32))
    rows, lengths = [max(1, count) if len(shapes) > 1 else count for count, _ in shapes], [length for _, length in shapes]
    requests = [[array(random, datatype, sizes, *shape) for datatype, sizes, _ in inputs] for shape in zip(rows, lengths, strict=True)]
    values = [array(random, datatype, [], 1, 1)[0] for datatype, _, _ in inputs]
    length = reference.run_length(lengths, edges)
    whole = [array(random, datatype, sizes, sum(rows), length) for datatype, sizes, _ in outputs]
    shares = rows != [0] and len({reference.bucket_of(one, edges) for one in lengths}) == 1
    try:
        fed, answers, extra = run(inputs, outputs, values, edges, requests, lambda _: whole)
    except LookupError:
        assert not shares
        return
    assert shares
    expected = reference.fed(requests, [axis for *_, axis in inputs], values, length)
    assert_equal(fed, expected)
    assert extra == sum(one.nbytes for one in expected) - sum(one.nbytes for request in requests for one in request)
    for found, wanted in zip(answers, reference.answers(whole, rows, lengths, [axis for *_, axis in outputs]), strict=True):
        assert_equal(found, wanted)


TOKENS, PER_TOKEN = ("INT64", [None], 1), ("FP32", [None, 2], 1)


def ids(*lengths):
    return [[np.arange(length).reshape(1, length)] for length in lengths]


def test_a_lone_request_is_padded_to_its_edge_and_cut_back():
    fed, answers, extra = run([TOKENS], [PER_TOKEN], [np.int64(-7)], [4, 8], ids(3), lambda fed: [np.stack([fed[0]] * 2, -1).astype("<f4")])
    assert_equal(fed, [np.array([[0, 1, 2, -7]])])
    assert_equal(answers[0], [np.array([[[0, 0], [1, 1], [2, 2]]], "<f4")])
    assert extra == 8


@pytest.mark.parametrize("edges", [[], [5], [2]])
def test_a_lone_request_that_fills_its_run_is_not_copied_nor_cut(edges):
    fed, answers, extra = run([TOKENS], [PER_TOKEN], [np.int64(0)], edges, ids(5), lambda _: [np.ones((1, 3, 2), "<f4")])
    assert_equal([fed[0].shape, answers[0][0].shape], [(1, 5), (1, 3, 2)])
    assert extra == 0


@pytest.mark.parametrize("shape", [(2, 7, 2), (2, 2)])
def test_an_output_without_the_length_of_the_padded_inputs_fails_the_run(shape):
    with pytest.raises(ValueError, match=r'output "t0" does not have the length of the padded inputs: its shape is \[2,'):
        run([TOKENS], [PER_TOKEN], [np.int64(0)], [], ids(7, 8), lambda _: [np.ones(shape, "<f4")])


def test_padded_inputs_of_different_lengths_are_refused_by_name():
    with pytest.raises(ValueError, match='input "t1" of m/1: length 4 along axis 1 given, 3 wanted, as of "t0"'):
        run([TOKENS, TOKENS], [PER_TOKEN], [np.int64(0)] * 2, [], [[np.zeros((1, 3), "<i8"), np.zeros((1, 4), "<i8")]], None)


def test_a_tensor_without_elements_may_be_of_any_length():
    wide = ("FP32", [None, 0], 1)
    fed, _, _ = run([wide], [("FP32", [1], 0)], [np.float32(0)], [], [[np.zeros((1, 1 << 50, 0), "<f4")]], lambda _: [np.zeros((1, 1), "<f4")])
    assert fed[0].shape == (1, 1 << 50, 0)
