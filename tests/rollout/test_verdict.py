"""Which of two versions is better: what is said, and when nothing can be said yet."""

import math

import pytest

from batchmill.rollout import verdict
from batchmill.rollout.evidence import Moments
from batchmill.rollout.verdict import Tally


@pytest.mark.parametrize(("interval", "wanted"), [
    ((0.001, 0.1), "better"),
    ((-0.1, -0.001), "worse"),
    ((-0.009, 0.1), "not_worse"),
    ((-0.01, -0.0), "not_worse"),
    ((-0.011, 0.1), "undecided"),
    ((-math.inf, math.inf), "undecided"),
])
def test_what_an_interval_says(interval, wanted):
    assert verdict.verdict_of(interval, 0.01) == wanted


def accuracy(judged, correct, first_s=1, last_s=9):
    return Tally(judged, correct, first_s=first_s, last_s=last_s)


def only(found):
    (one,) = found
    return one


def test_a_difference_that_is_large_enough_for_its_count_is_told_in_words():
    assert only(verdict.verdicts("2", accuracy(2000, 1900), "1", accuracy(2000, 1700))).text().startswith("2 is better than 1 (accuracy +0.1000; ")
    assert only(verdict.verdicts("2", accuracy(2000, 1700), "1", accuracy(2000, 1900))).text().startswith("2 is worse than 1 (accuracy -0.1000; ")
    assert only(verdict.verdicts("2", accuracy(20, 19), "1", accuracy(20, 17))).text().startswith("2 and 1: undecided (accuracy +0.1000; ")
    assert only(verdict.verdicts("2", accuracy(200_000, 190_000), "1", accuracy(200_000, 190_000))).text().startswith("2 is not worse than 1 by more than 1% (")


def test_rewards_are_compared_from_a_hundred_on():
    few, many = Tally(rewards=Moments(99, 2.0, 1.0)), Tally(rewards=Moments(5000, 2.0, 1.0))
    other = Tally(rewards=Moments(5000, 1.0, 1.0))
    assert only(verdict.verdicts("2", few, "1", other)).as_dict()["interval"] is None
    assert only(verdict.verdicts("2", many, "1", other)).says == "better"


def test_the_last_generation_in_which_two_versions_were_told_of_is_compared():
    """Added up, 2 would look worse: it had most of its requests when all were hard."""
    tallies = {("1", 1): accuracy(2000, 1800), ("2", 1): accuracy(50, 46), ("1", 2): accuracy(5000, 2500), ("2", 2): accuracy(20_000, 12_000), ("2", 3): accuracy(10, 1)}
    told = verdict.told("m", tallies, "1", None)
    assert told["compared_generation"] == 2
    assert only(told["verdicts"])["verdict"] == "better"
    assert verdict.told("m", tallies, "1", 1)["verdicts"][0]["verdict"] == "undecided"
    assert verdict.told("m", tallies, "1", 3)["verdicts"] == []


def test_the_version_with_the_traffic_is_compared_with_and_else_the_oldest():
    tallies = {(number, 0): accuracy(100, 90) for number in ("10", "9", "11")}
    assert {one["than"] for one in verdict.told("m", tallies, "10", None)["verdicts"]} == {"10"}
    assert {one["than"] for one in verdict.told("m", tallies, "7", None)["verdicts"]} == {"9"}


def test_versions_that_were_not_in_traffic_together_are_said_to_be_so():
    tallies = {("1", 0): accuracy(100, 90, 1, 5), ("2", 0): accuracy(100, 90, 6, 9)}
    assert "not in traffic" in verdict.told("m", tallies, "1", None)["verdicts"][0]["note"]


def test_nothing_told_is_no_verdict():
    assert verdict.told("m", {}, "1", None) == {"model": "m", "versions": [], "compared_generation": None, "verdicts": [], "level": 0.05}
