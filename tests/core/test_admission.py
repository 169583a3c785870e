"""Whether a request is taken in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reference import admission as reference
from reference.predictor import curves

MS = 1_000_000
DURATIONS = st.integers(0, 100 * MS)


ARGUMENTS = st.tuples(st.integers(1, 100), st.integers(0, 1000), st.integers(0, 1000), DURATIONS, st.integers(1, 64), st.integers(1, 4), DURATIONS,
                      st.sampled_from([0.5, 1.0, 4.0]), DURATIONS, DURATIONS, DURATIONS, DURATIONS, st.booleans())


@given(st.dictionaries(st.sampled_from([1, 2, 4, 8]), st.integers(1, 10 * MS)), ARGUMENTS)
def test_the_verdict_equals_that_of_its_obvious_twin(run_ns_by_rows, arguments):
    curve, twin = curves(run_ns_by_rows)
    verdict, *predicted = curve.judge(*arguments)
    expected, *twins = reference.judge(twin, *arguments, twin.row_ns)
    assert verdict == expected
    assert predicted == pytest.approx(twins)


ROW = {2**at: 2 * MS * 2**at for at in range(8)}    # 2 ms a row; guarded 3 ms


@pytest.mark.parametrize(("ahead", "busy_ms", "parallel", "finish_by_ms", "fresh", "expected"), [
    (0, 0, 1, 2, True, "taken"),
    (0, 0, 1, 1, True, "hopeless"),         # not even alone
    (9, 0, 1, 1, False, "hopeless"),
    (0, 0, 1, 1, False, "taken"),           # which nobody has seen for long: another look
    (4, 0, 1, 13, True, "taken"),           # 8 until its turn, which may become 10, 3 for itself
    (4, 0, 1, 12, True, "unmeetable"),
    (4, 0, 1, 12, False, "unmeetable"),     # those ahead will be a look
    (4, 0, 2, 12, True, "taken"),           # two at once
    (4, 4, 1, 17, True, "unmeetable"),      # what runs now comes first
    (4, 4, 1, 18, True, "taken"),
])
def test_who_cannot_be_answered_in_time_is_told_so(ahead, busy_ms, parallel, finish_by_ms, fresh, expected):
    curve = curves(ROW)[0]
    verdict, *_ = curve.judge(1, ahead, ahead, ahead * 2 * MS, 1, parallel, busy_ms * MS, 1, 0, 0, finish_by_ms * MS, 0, fresh)
    assert verdict == expected


def test_nobody_is_predicted_to_wait_longer_than_the_bound():
    curve = curves(ROW)[0]
    assert [curve.judge(1, rows, rows, rows * 2 * MS, 1, 1, 0, 1, 2000 * MS, 0, 0, 0, True)[0] for rows in (1000, 1001)] == ["taken", "too long"]
    assert curve.judge(1, 600, 600, 1200 * MS, 1, 1, 0, 2, 2000 * MS, 0, 0, 0, True)[0] == "too long"    # waits have been twice what was predicted


def test_an_objective_that_even_a_lone_run_misses_refuses_no_lone_run():
    curve = curves(ROW)[0]
    assert curve.judge(1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1 * MS, True)[0] == "taken"
    assert curve.judge(1, 3, 3, 6 * MS, 1, 1, 0, 1, 0, 0, 0, 10 * MS, True)[0] == "unmeetable"
