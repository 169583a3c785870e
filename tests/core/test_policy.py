"""The whole policy, from arrival to answer: against its twin step by step, and by what it promises under load."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from batchmill.core import policy_probe
from reference import policy as reference
from reference.simulator import START_NS, Request, Simulation

MS, SECOND = 1_000_000, 1_000_000_000

# The compiled policy and its twin, through the same events.
VERSIONS = st.lists(st.fixed_dictionaries({}, optional={
    "max_batch_size": st.sampled_from([1, 4, 8]), "max_queue_delay_ns": st.sampled_from([2 * MS, 30 * MS]), "preferred": st.sampled_from([(2,), (2, 6)]),
    "instances": st.integers(1, 3), "weight": st.sampled_from([0.5, 2.0]), "max_wait_ns": st.sampled_from([10 * MS, 50 * MS]),
    "objective_ns": st.sampled_from([15 * MS, 40 * MS]), "target": st.sampled_from([0.5, 1.0]), "max_rows": st.integers(1, 40),
    "default_timeout_ns": st.sampled_from([20 * MS, 100 * MS]),
    "careful_rows": st.sampled_from([0, 1, 4]), "priority_levels": st.integers(1, 3), "default_priority": st.integers(1, 3), "delays": st.booleans(),
}), min_size=1, max_size=3)  # fmt: skip
LEFT_US = st.sampled_from([0, 0, 0, 1, 5_000, 20_000, 60_000])
COMING = st.lists(st.tuples(
    st.sampled_from([0, 0, 100, 1_000, 4_000, 30_000]), st.integers(0, 5) | st.just(9), st.integers(0, 2), st.sampled_from([(), (3,), (4,), (40,)]),
    LEFT_US, LEFT_US, st.integers(0, 4), LEFT_US), max_size=80)  # fmt: skip
CHANGES = st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 2), VERSIONS.map(lambda versions: versions[0])), max_size=3)  # when, of which
COSTS_US = st.tuples(st.sampled_from([20, 1_000, 5_000]), st.sampled_from([0, 100, 3_000]), st.sampled_from([0.0, 0.1, 0.9]))


def requests_of(coming, versions):
    at_ns, requests = START_NS, []
    for pause_us, rows, version, shape, left_us, timeout_us, priority, cancel_us in coming:
        at_ns += pause_us * 1000
        deadline_ns, cancel_ns = (at_ns + one * 1000 if one else 0 for one in (left_us, cancel_us))
        requests.append(Request(at_ns, rows, version % versions, shape, deadline_ns, timeout_us, priority, cancel_ns))
    return requests


def simulated(policy, executors, versions, coming, costs_us, changes, seed):
    """What was decided, and the state of all versions after each event."""
    chance, states = random.Random(seed), []
    base_us, row_us, noise = costs_us
    for place, limits in enumerate(versions):
        policy.add(place == 1, **limits)

    def run_ns(version, rows, shape, _):
        return (base_us + row_us * rows * (len(shape) + 1)) * 1000 * chance.uniform(1 - noise, 1 + noise)

    simulation = Simulation(policy, executors, run_ns, looks=lambda: states.append([policy.state(place) for place in range(len(versions))]))
    for at_us, place, limits in changes:
        simulation.at(START_NS + at_us * 1000, lambda place=place, limits=limits: policy.set(place % len(versions), **limits))
    simulation.run(requests_of(coming, len(versions)), len(versions), START_NS + 10 * SECOND)
    return simulation.decisions, states


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 3), VERSIONS, COMING, COSTS_US, CHANGES, st.integers(0, 1000))
def test_the_policy_decides_as_its_twin_does(executors, versions, coming, costs_us, changes, seed):
    decisions, states = simulated(policy_probe.Policy(executors), executors, versions, coming, costs_us, changes, seed)
    expected, twins = simulated(reference.Policy(executors), executors, versions, coming, costs_us, changes, seed)
    for got, wanted in zip(decisions, expected, strict=True):
        assert got == wanted
    assert states == twins


def busy_day(seed):
    """Many more requests than hypothesis sends: enough for every reason to close a batch and every verdict."""
    chance = random.Random(seed)
    versions = [{"instances": 2, "max_batch_size": 8, "objective_ns": 25 * MS, "max_rows": 10}, {"weight": 2.0, "max_wait_ns": 40 * MS, "priority_levels": 3},
                {"max_queue_delay_ns": 2 * MS, "delays": True}]  # fmt: skip
    coming = [(int(chance.expovariate(1 / 2000)), chance.choice([0, 1, 1, 1, 2, 5, 9]), chance.randrange(3), chance.choice([(), (3,), (40,)]),
               chance.choice([0, 0, chance.randrange(1, 90_000)]), chance.choice([0, 0, 5_000]), chance.randrange(4),
               chance.choice([0] * 9 + [chance.randrange(1, 20_000)])) for _ in range(600)]  # fmt: skip
    return 2, versions, coming, (1_000, 1_500, 0.2), [], seed


def test_busy_days_are_decided_as_by_the_twin():
    verdicts, reasons = set(), set()
    for seed in range(20):
        executors, *day = busy_day(seed)
        decisions, states = simulated(policy_probe.Policy(executors), executors, *day)
        assert (decisions, states) == simulated(reference.Policy(executors), executors, *day), f"seed {seed}"
        verdicts |= {one[3] for one in decisions if one[1] == "arrive"}
        reasons |= {one[5] for one in decisions if one[1] == "start"}
    assert verdicts == {*policy_probe.VERDICTS}
    assert reasons == {"full", "idle", "linger", "deadline", "delay", "shape", "turn"}
