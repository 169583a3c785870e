"""Rollouts of simulated versions, the small edition of benchmarks/rollouts.py: good versions go through, bad ones are rolled back in time.

Seeds are those of the runs that a failure prints.
"""

from dataclasses import replace

import pytest
import rollouts
from rollouts import AT_LIMIT, CANDIDATES, EXAMPLE, INCUMBENT, LIMIT, simulate

from batchmill.rollout.engine import COMPLETE, ROLL_BACK
from batchmill.rollout.plan import Plan

SEEDS = range(5)
BRIEFLY = {**LIMIT, "steps": [step for step in LIMIT["steps"] if step["share"] != 1]}     # drawing the 99% beside it takes most of the time
BY_NAME = {version.name: version for version in CANDIDATES}


def test_over_200_rollouts_of_versions_at_the_limit_no_more_are_rolled_back_than_declared():
    """Each of its tests is as likely to fail as it may be: a version that breaks no gate can be no closer to breaking all of them."""
    plan, incumbent = rollouts.in_looks(BRIEFLY, 250), replace(INCUMBENT, errors=AT_LIMIT.errors)
    runs = [simulate(plan, AT_LIMIT, seed, incumbent) for seed in range(200)]
    assert sum(run.outcome == ROLL_BACK for run in runs) <= plan.alpha * len(runs), [run for run in runs if run.outcome == ROLL_BACK]
    assert sum(run.outcome == COMPLETE for run in runs) >= (1 - plan.alpha) * len(runs)


def test_a_version_that_is_beyond_every_limit_is_rolled_back_by_the_same_plan():
    """So the test above can fail."""
    plan, beyond = rollouts.in_looks(BRIEFLY, 250), replace(AT_LIMIT, errors=0.1, agreement=0.9, shadow_errors=0.1, slower=1.5, accuracy=0.5)
    assert all(simulate(plan, beyond, seed).outcome == ROLL_BACK for seed in SEEDS)


@pytest.mark.parametrize(("name", "gate", "samples"), [
    ("2x slower", "latency_ratio.mean", 150),
    ("2x slower, not in the shadow", "latency_ratio.mean", 4_000),                  # the shadow's part of that is 2,000 and more, until 99% agreement is proven
    ("1% errors, not in the shadow", "error_rate.rise", 7_000),
    ("fails on one input in fifty", "shadow_errors", 1_000),
    ("drifted: 90% agree", "agreement", 400),
    ("worse by 5 points", "quality", 20_000),                                       # half of which come back with a label
])
def test_a_bad_version_is_rolled_back_in_time(name, gate, samples):
    plan = rollouts.in_looks(EXAMPLE)
    runs = [simulate(plan, BY_NAME[name], seed) for seed in SEEDS[: 2 if samples > 10_000 else 5]]
    assert {run.outcome for run in runs} == {ROLL_BACK}, runs
    assert all(run.samples <= samples and run.gate == gate for run in runs), runs


@pytest.mark.parametrize(("name", "plan"), [("better by 2 points", rollouts.in_looks(EXAMPLE)), ("equal", rollouts.in_looks(Plan().as_dict()))])
def test_a_good_version_goes_through_all_steps(name, plan):
    runs = [simulate(plan, BY_NAME[name], seed) for seed in SEEDS[:2]]
    assert {(run.outcome, run.step) for run in runs} == {(COMPLETE, "100%")}, runs
