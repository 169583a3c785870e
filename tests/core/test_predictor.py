"""The online model of run times."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import policy_probe
from reference.predictor import Curve

RUNS = st.lists(st.tuples(st.integers(1, 40_000), st.integers(0, 10**10)), max_size=80)


@given(RUNS, st.integers(1, 40_000))
def test_a_curve_equals_its_obvious_twin(runs, rows):
    curve, twin = policy_probe.Curve(), Curve()
    for size, run_ns in runs:
        curve.learn(size, run_ns)
        twin.learn(size, run_ns)
    knots, *found = curve.state()
    assert {2**at: ns for at, ns in enumerate(knots) if ns} == pytest.approx(twin.knots)
    assert found == pytest.approx([twin.spread, twin.row_ns, twin.best_rows, twin.knee_rows, twin.next_rows])
    assert curve.expected_ns(rows) == pytest.approx(twin.expected_ns(rows))
    assert curve.guarded_ns(rows) == pytest.approx(twin.guarded_ns(rows))


KNOTS = st.lists(st.just(0.0) | st.floats(1, 1e12), min_size=1, max_size=16).filter(any)


@given(KNOTS, st.floats(0, 5), RUNS, st.integers(1, 40_000))
def test_a_recalled_curve_equals_its_obvious_twin(knots, spread, runs, rows):
    curve, twin = policy_probe.Curve(), Curve()
    for one in (curve, twin):
        one.recall(knots, spread)
        for size, run_ns in runs:
            one.learn(size, run_ns)
    found = curve.state()
    assert {2**at: ns for at, ns in enumerate(found[0]) if ns} == pytest.approx(twin.knots)
    assert found[1:] == pytest.approx((twin.spread, twin.row_ns, twin.best_rows, twin.knee_rows, twin.next_rows))
    assert curve.expected_ns(rows) == pytest.approx(twin.expected_ns(rows))


@given(RUNS.filter(bool), st.integers(1, 40_000))
def test_a_curve_recalled_predicts_what_the_one_that_learned_did(runs, rows):
    curve, again = policy_probe.Curve(), policy_probe.Curve()
    for size, run_ns in runs:
        curve.learn(size, run_ns)
    knots, spread, *rest = curve.state()
    again.recall(knots, spread)
    assert again.state()[:2] == (knots, spread)
    assert again.state()[2:5] == tuple(rest[:3])
    assert again.guarded_ns(rows) == curve.guarded_ns(rows)


def test_what_is_recalled_is_not_fresh_until_a_run_confirms_it():
    curve = policy_probe.Curve()
    curve.recall([1e6, 2e6], 0.1)
    assert not curve.is_fresh(1)
    curve.learn(1, 1e6, now_ns=1)
    assert curve.is_fresh(2)


def test_a_first_run_much_faster_than_recalled_tells_of_all_sizes():
    curve = policy_probe.Curve()
    curve.recall([1e9, 2e9, 4e9], 0.1)
    curve.learn(1, 1e6)
    assert [curve.expected_ns(rows) for rows in (1, 2, 4)] == pytest.approx([1e6, 2e6, 4e6])


def served(truth, runs, noise=0.05, outliers=0.0, seed=1):
    """A curve that has learned from so many runs of 1 to 64 rows."""
    chance, curve = random.Random(seed), policy_probe.Curve()
    for _ in range(runs):
        rows = chance.randint(1, 64)
        run_ns = truth(rows) * chance.uniform(1 - noise, 1 + noise)
        curve.learn(rows, run_ns * (20 if chance.random() < outliers else 1))
    return curve


TRUTHS = {"small": lambda rows: 3000 + 200 * rows, "convnet": lambda rows: 16e6 * rows, "encoder": lambda rows: 2e6 + 3.5e6 * rows}


@pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS)
def test_what_was_served_a_few_hundred_times_is_predicted_within_a_tenth(truth):
    curve = served(truth, 500)
    for rows in range(1, 65):
        assert curve.expected_ns(rows) == pytest.approx(truth(rows), rel=0.1)


@pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS)
def test_runs_that_the_machine_held_up_move_it_little(truth):
    curve = served(truth, 1000, outliers=0.02)
    for rows in range(4, 65):
        assert curve.expected_ns(rows) == pytest.approx(truth(rows), rel=0.25)


def test_a_model_that_becomes_slower_is_believed_after_some_tens_of_runs():
    curve = served(TRUTHS["encoder"], 500)
    for _ in range(40):
        curve.learn(8, 2 * TRUTHS["encoder"](8))
    assert curve.expected_ns(8) == pytest.approx(2 * TRUTHS["encoder"](8), rel=0.1)


def test_a_first_run_that_was_held_up_is_forgotten_after_a_few():
    curve = policy_probe.Curve()
    for run_ns in (20e6, *[1e6] * 8):
        curve.learn(1, run_ns)
    assert curve.expected_ns(1) < 1.7e6


def test_what_was_never_measured_is_guessed_from_what_was_and_never_for_nothing():
    curve = policy_probe.Curve()
    assert curve.expected_ns(5) == 0
    curve.learn(4, 1000)
    assert (curve.expected_ns(1), curve.expected_ns(8)) == (1000, 2000)     # no more, and in proportion
    curve.learn(2, 900)
    assert curve.expected_ns(8) == 1000 + 4 * 50
    curve.learn(2, 1000)
    assert curve.expected_ns(400) > 1000 * 10


def test_wider_rows_cost_what_the_scale_says():
    curve = policy_probe.Curve()
    curve.learn(4, 1000)
    assert curve.expected_ns(4, 2.5) == 2500
