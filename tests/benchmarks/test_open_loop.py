import numpy as np
import open_loop
import pytest
from open_loop import Segment, arrivals, bursty, evaluate, mixed, recovery_secs, schedule, series, steps

MS = 1_000_000


def results(*rows):
    """Of (due ms, done ms or 0, status)."""
    made = np.zeros(len(rows), open_loop.RESULT)
    for record, (due, done, status) in zip(made, rows, strict=True):
        record["due_ns"] = record["taken_ns"] = record["sent_ns"] = due * MS
        record["done_ns"], record["status"] = done * MS, status
    return made


def test_arrivals_have_the_rate_of_their_segment_and_are_in_order():
    due = arrivals([Segment(10, 1000), Segment(10, 5000)], seed=1)
    assert (np.diff(due.astype(np.int64)) >= 0).all()
    assert (due < 10e9).sum() == pytest.approx(10_000, rel=0.03)
    assert (due >= 10e9).sum() == pytest.approx(50_000, rel=0.03)
    assert due[-1] < 20e9


def test_gaps_of_poisson_arrivals_are_exponential():
    gaps = np.diff(schedule("poisson", 1000, 50, seed=3).astype(float))
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.03)
    assert (gaps > gaps.mean()).mean() == pytest.approx(np.exp(-1), abs=0.01)


def test_a_segment_without_a_rate_has_no_arrivals():
    due = arrivals([Segment(1, 1000), Segment(1, 0), Segment(1, 1000)], seed=1)
    assert not ((due > 1e9 + 1) & (due < 2e9 - 1)).any()


@pytest.mark.parametrize("shape", open_loop.SHAPES)
def test_a_seed_reproduces_its_schedule_and_another_makes_another(shape):
    assert (schedule(shape, 500, 3, seed=7) == schedule(shape, 500, 3, seed=7)).all()
    assert schedule(shape, 500, 3, seed=7)[:100].tolist() != schedule(shape, 500, 3, seed=8)[:100].tolist()


def test_bursts_are_ten_times_the_rate_between_them_and_the_mean_is_the_rate_asked_for():
    segments = bursty(1000, 60, seed=5)
    quiet, loud = segments[0::2], segments[1::2]
    assert {round(segment.rate / quiet[0].rate) for segment in loud} == {10}
    assert sum(segment.seconds for segment in segments) == pytest.approx(60)
    assert sum(segment.seconds * segment.rate for segment in segments) == pytest.approx(60_000)
    assert np.mean([segment.seconds for segment in loud]) == pytest.approx(0.05, rel=0.25)


def test_another_rate_has_the_same_bursts():
    lengths = [[segment.seconds for segment in bursty(rate, 5, seed=5)] for rate in (10, 1000)]
    assert lengths[0] == lengths[1]


def test_steps_share_the_time():
    assert steps(100, 9) == [Segment(3, 100), Segment(3, 500), Segment(3, 100)]


def test_payloads_are_drawn_by_weight():
    which = mixed(30_000, [2, 0, 1], seed=1)
    assert np.bincount(which, minlength=3).tolist() == pytest.approx([20_000, 0, 10_000], rel=0.03)


def test_good_is_an_answer_within_the_objective_of_its_due_time():
    outcome = evaluate(results((0, 10, 0), (0, 11, 0), (5, 15, 0), (5, 6, 3), (5, 0, -1)), 10, 2.0)
    assert (outcome.offered, outcome.goodput) == (2.5, 1.0)
    assert outcome.late == pytest.approx(1 / 3)
    assert outcome.failed == pytest.approx(2 / 5)
    assert outcome.good_share == pytest.approx(2 / 5)


def test_an_answer_that_is_no_success_is_not_good_however_fast():
    assert evaluate(results((0, 1, 8), (0, 1, 13)), 10, 1.0).goodput == 0


def test_a_request_never_answered_is_neither_good_nor_refused():
    outcome = evaluate(results((0, 0, -1), (0, 0, 0)), 10, 1.0)
    assert (outcome.goodput, outcome.refused, outcome.p99_ms) == (0, 0, 0)


def test_a_deadline_told_before_it_has_passed_is_a_refusal_and_one_told_after_is_not():
    outcome = evaluate(results((0, 2, 4), (0, 100, 4), (0, 3, 8), (0, 4, 14)), 100, 1.0, deadline_ms=100)
    assert (outcome.refused, outcome.expired, outcome.failed) == (0.75, 0.25, 0)
    assert outcome.refusal_p99_ms == 4


def test_answers_are_delivered_when_they_come_not_when_they_are_due():
    made = results((900, 1100, 0), (1500, 1600, 0), (1900, 2100, 0), (1500, 1600, 8), (1000, 1900, 0))
    assert open_loop.delivered(made, 500, 1.0, 2.0) == 2


def test_percentiles_are_of_the_answers_that_are_ok():
    outcome = evaluate(results(*((0, done, 0) for done in range(1, 101)), *((0, 1000, 8) for _ in range(50))), 10, 1.0)
    assert (outcome.p50_ms, outcome.p99_ms, outcome.p999_ms) == (51, 100, 100)


def test_lag_is_by_how_much_the_tool_came_late():
    made = results(*((0, 9, 0),) * 10)
    made["taken_ns"][0] = 5 * MS
    assert evaluate(made, 10, 1.0).lag_p99_ms == 5
    load = open_loop.Load(made, 0, 0.0, 0, 0, 5000.0, 0.0)
    assert load.too_slow(objective_ms=49)
    assert not load.too_slow(objective_ms=51)


def test_a_tool_that_is_busy_all_the_time_reads_answers_late():
    made = results((1000, 1001, 0), (2000, 2001, 0))
    assert [open_loop.Load(made, 0, secs, 0, 0, 0.0, 0.0).too_slow(objective_ms=50) for secs in (1.8, 1.95)] == [False, True]


def test_a_series_has_a_bin_for_each_time_even_when_nothing_is_due_in_it():
    bins = series(results((10, 11, 0), (20, 21, 0), (250, 290, 0)), 10, 0.3)
    assert [outcome.offered for outcome in bins] == pytest.approx([20, 0, 10])
    assert [outcome.goodput for outcome in bins] == pytest.approx([20, 0, 0])


@pytest.mark.parametrize(("good", "wanted"), [
    ("1100111", 0.0),  # overload in bins 2 and 3, that end at 0.4 s
    ("1100011", 0.1),
    ("1100101", 0.2),
    ("0011111", 0.0),
    ("1100110", 0.3),
])
def test_recovery_lasts_until_the_last_bin_in_which_requests_came_to_harm(good, wanted):
    bins = series(results(*((100 * place + 50, 100 * place + (51 if fine == "1" else 99), 0) for place, fine in enumerate(good))), 10, 0.7)
    assert recovery_secs(bins, 0.4) == pytest.approx(wanted)
