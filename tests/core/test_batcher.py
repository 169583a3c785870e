"""When to close a batch, and how large it may be."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import batcher
from reference import batcher as reference
from reference.predictor import curves

TIMES = st.integers(0, 10**12)
PREFERRED = st.just([]) | st.lists(st.integers(1, 64), max_size=8).map(lambda sizes: sorted(set(sizes)))
ARGUMENTS = st.tuples(st.integers(1, 100), TIMES, TIMES | st.just(0), TIMES, st.integers(1, 100), st.sampled_from([0, 1000, 10**6]), PREFERRED,
                      st.booleans(), st.integers(0, 100), TIMES, st.integers(0, 10**10))
MS = 1_000_000


@given(ARGUMENTS)
def test_plan_equals_its_obvious_twin(arguments):
    assert batcher.decide(*arguments) == reference.decide(*arguments)


@pytest.mark.parametrize(("rows", "now_ns", "expected_rows", "closes", "reason"), [
    (1, 1000, 0, True, "idle"),             # idle: at once
    (8, 1000, 8, True, "idle"),             # as many as can be expected: at once
    (7, 1000, 8, False, "linger"),          # one caller is about to come back: linger
    (7, 1_000_000, 8, True, "linger"),      # but not for long
    (64, 1000, 80, True, "full"),
])
def test_an_idle_instance_starts_at_once_and_lingers_only_for_callers_about_to_return(rows, now_ns, expected_rows, closes, reason):
    assert batcher.decide(rows, 500, 0, now_ns, 64, 0, [], False, expected_rows, 900, 29_000_000)[:2] == (closes, reason)


@pytest.mark.parametrize(("rows", "now_us", "start_by_us", "preferred", "draining", "expected"), [
    (3, 50, 0, [], False, (False, "delay", 100_000)),       # waits for company
    (3, 100, 0, [], False, (True, "delay", 0)),             # as long as it may
    (3, 50, 1060, [], False, (False, "deadline", 60_000)),  # but not so long that the most urgent would be late, even if it is woken late
    (3, 60, 1060, [], False, (True, "deadline", 0)),
    (3, 60, 500, [], False, (True, "deadline", 0)),
    (4, 50, 0, [4, 8], False, (True, "full", 0)),           # a preferred size is worth no wait
    (3, 50, 0, [4, 8], False, (False, "delay", 100_000)),
    (3, 50, 0, [], True, (True, "drain", 0)),               # nobody comes any more
])
def test_the_queue_delay_is_waited_for_company(rows, now_us, start_by_us, preferred, draining, expected):
    assert batcher.decide(rows, 0, start_by_us * 1000, now_us * 1000, 64, 100_000, preferred, draining, 0, 0, 0) == expected


RISING = st.lists(st.integers(1, 10 * MS), min_size=0, max_size=8).map(lambda steps: {2**at: sum(steps[: at + 1]) for at in range(len(steps))})


@given(RISING, st.integers(1, 200), st.integers(1, 200), PREFERRED, st.integers(-1, 20 * MS), st.integers(-1, 20 * MS))
def test_the_size_equals_that_of_its_obvious_twin(run_ns_by_rows, rows, max_batch_size, preferred, slack_ns, turn_ns):
    curve, twin = curves(run_ns_by_rows)
    expected = reference.size_of(twin, rows, max_batch_size, preferred, slack_ns, turn_ns)
    assert curve.size_of(rows, max_batch_size, preferred, slack_ns, turn_ns) == expected


SMALL = {2**at: 3_000 + 200 * 2**at for at in range(8)}                             # 15 times as many rows a second in batches
FLAT = {2**at: 16 * MS * 2**at for at in range(8)}                                  # a row costs what it costs
KNEE = {2**at: (2.0 + 3.5 * 2**at) * MS for at in range(8)}                         # 1.5 times


@pytest.mark.parametrize(("run_ns_by_rows", "rows", "slack_ms", "expected"), [
    (SMALL, 50, -1, (64, "idle")),          # all that wait
    (SMALL, 500, -1, (64, "full")),
    (FLAT, 7, -1, (1, "full")),             # together they would only wait for each other
    (KNEE, 60, -1, (16, "full")),           # nearly all that a batch gains
    (KNEE, 100, -1, (32, "full")),          # many wait: all of it, but for what runs differ by anyway
    (KNEE, 100, 60, (10, "deadline")),      # no more than the most urgent has time for
    (KNEE, 100, 1, (32, "full")),           # which it has not, whatever is done
    ({}, 100, 1, (64, "full")),             # nothing is known
])
def test_a_batch_is_as_large_as_is_worth_while_and_in_time(run_ns_by_rows, rows, slack_ms, expected):
    assert curves(run_ns_by_rows)[0].size_of(rows, 64, [], slack_ms * MS, -1) == expected


def test_no_batch_keeps_others_from_their_turn_for_long():
    assert curves(KNEE)[0].size_of(100, 64, [], -1, 30 * MS) == (5, "turn")
    assert curves(FLAT)[0].size_of(100, 64, [], -1, 3 * MS) == (1, "turn")


@given(st.floats(0.25, 1), st.booleans(), st.floats(0.001, 1))
def test_the_share_of_the_time_that_a_batch_may_take_moves_as_that_of_its_obvious_twin(share, late, target):
    assert batcher.share_after(share, late, target) == pytest.approx(reference.share_after(share, late, target))


@pytest.mark.parametrize("target", [0.8, 0.9, 0.95, 0.99])
def test_the_share_settles_where_the_target_is_held(target):
    """Of batches that take all they may, and whose runs are off by up to 60%, as many are late as the target lets."""
    chance, share, late = random.Random(7), 1.0, []
    for _ in range(60_000):
        late.append(share * chance.uniform(0.4, 1.6) > 1)
        share = batcher.share_after(share, late[-1], target)
    assert sum(late[10_000:]) / 50_000 == pytest.approx(1 - target, rel=0.15)


@pytest.mark.parametrize("target", [0.9, 0.99, 1])
def test_the_share_stays_in_its_bounds_and_comes_back_whatever_the_target(target):
    share = 1.0
    for _ in range(50):
        share = batcher.share_after(share, True, target)
    assert share == 0.25
    for _ in range(7500):
        share = batcher.share_after(share, False, target)
    assert share == pytest.approx(1)
