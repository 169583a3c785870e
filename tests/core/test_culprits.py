"""How large batches are while some requests make those fail that they are in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core.policy_probe import sizes
from batchmill.core.probe import culprits
from reference.culprits import row_cost_ns
from reference.predictor import curves

US = 1000
GAINS = {1: 232 * US, 2: 394 * US, 4: 628 * US, 8: 1160 * US, 16: 2144 * US}     # an encoder's


@given(st.dictionaries(st.sampled_from([1, 2, 4, 8]), st.integers(US, 1000 * US), min_size=1), st.integers(1, 15), st.floats(0, 1), st.floats(0, 1))
def test_the_size_is_the_one_that_costs_least_when_all_outcomes_are_weighed(run_ns_by_rows, max_rows, share, failed):
    curve, twin = curves(run_ns_by_rows)
    found = curve.cheapest_rows(max_rows, share, failed)
    costs = {size: row_cost_ns(size, share, twin.expected_ns, failed) for size in (1, 2, 4, 8) if size <= max_rows}
    assert found <= max_rows
    assert costs[max(size for size in costs if size <= found)] <= min(costs.values()) * 1.005


@pytest.mark.parametrize(("share", "failed", "expected"), [
    (0, 1, 16),
    (0.0005, 1, 16),        # few: as if there were none
    (1 / 16, 1, 2),         # a run gets to its end before it fails
    (1 / 16, 0.05, 8),      # it fails at once: to find the guilty costs little
    (1 / 4, 1, 1),
    (1, 1, 1),
])
def test_the_more_are_guilty_and_the_later_runs_fail_the_smaller_are_batches(share, failed, expected):
    assert curves(GAINS)[0].cheapest_rows(16, share, failed) == expected


def test_where_batches_gain_nothing_requests_run_alone():
    assert curves({size: size * 100 * US for size in (1, 2, 4, 8)})[0].cheapest_rows(64, 0.01, 1) == 1


def test_nothing_is_known_of_run_times():
    assert curves({})[0].cheapest_rows(64, 0.01, 1) == 1


def test_the_share_follows_what_comes_and_is_forgotten_after_it():
    assert culprits([(16, 1, [])] * 100)[0] == pytest.approx(1 / 16, rel=0.1)
    assert culprits([(1, at % 16 == 0, []) for at in range(2000)])[0] == pytest.approx(1 / 16, rel=0.1)
    assert culprits([(1, 1, [])] * 5000)[0] == pytest.approx(1, rel=0.01)
    assert culprits([(16, 1, [])] * 100 + [(16, 0, [])] * 100)[0] == 0
    assert culprits([(16, 0, [])])[0] == 0


def test_one_guilty_request_hardly_counts():
    share, _ = culprits([(16, 1, [])])
    assert curves(GAINS)[0].cheapest_rows(16, share, 1) == 16


def test_how_far_runs_get_before_they_fail_is_learned():
    assert culprits([])[1] == 1
    assert culprits([(16, 1, [0.1, 0.2, 0.1])] * 20)[1] == pytest.approx(0.13, abs=0.02)
    assert culprits([(16, 1, [7.0])])[1] == 1       # it was the machine that took so long


def test_where_only_large_batches_fail_they_are_smaller_for_a_while():
    second = 10**9
    assert sizes([(second, 0), (2 * second, 64), (3 * second, 32), (12 * second, 0), (14 * second, 0)], 64) == [0, 32, 16, 16, 0]
    assert sizes([(second, 1)], 64) == [1]
