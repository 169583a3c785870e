"""Who is served next among the versions that have work, against a twin and by what is promised."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchmill.core import policy_probe
from reference import policy as reference
from reference.simulator import START_NS, Request, Simulation

MS, SECOND = 1_000_000, 1_000_000_000
VERSIONS = st.integers(0, 2)
LIMITS = st.fixed_dictionaries({
    "max_batch_size": st.sampled_from([1, 4, 64]), "max_queue_delay_ns": st.sampled_from([0, 0, 2 * MS]), "preferred": st.sampled_from([(), (2, 8)]),
    "instances": st.integers(1, 2), "weight": st.sampled_from([0.5, 1.0, 3.0]), "careful_rows": st.sampled_from([0, 1, 4]),
    "objective_ns": st.sampled_from([0, 50 * MS]), "target": st.sampled_from([0.5, 0.99]),
})  # fmt: skip


class Turns(RuleBasedStateMachine):
    """Whatever happens in whatever order, the compiled turns and their twin decide the same and come to the same state."""

    def __init__(self):
        super().__init__()
        self.real, self.twin = policy_probe.Policy(2), reference.Policy(2)
        self.now_ns, self.number = START_NS, 0
        self.running = []

    def both(self, call, *arguments, **named):
        got = getattr(self.real, call)(*arguments, **named)
        assert got == getattr(self.twin, call)(*arguments, **named)
        return got

    @initialize(limits=st.tuples(LIMITS, LIMITS, LIMITS))
    def begin(self, limits):
        for version in range(3):
            self.both("add", version == 1, **limits[version])

    @rule(version=VERSIONS, rows=st.integers(0, 9), shape=st.sampled_from([(), (3,), (40,)]), left_ms=st.sampled_from([0, 30, 200]))
    def come(self, version, rows, shape, left_ms):
        self.number += 1
        self.both("arrive", version, self.number, rows, shape, self.now_ns, self.now_ns + left_ms * MS if left_ms else 0)
        self.both("offer", version)

    @rule()
    def take_turns(self):
        version, _, reason = self.both("next_turn", self.now_ns)
        if version is not None:
            batch, *_ = self.both("start", version, reason, self.now_ns)
            self.running.append((version, batch))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 9), run_us=st.integers(1, 60_000))
    def end(self, which, run_us):
        version, batch = self.running.pop(which % len(self.running))
        self.both("end", version, batch, run_us * 1000.0, self.now_ns)

    @rule(version=VERSIONS, run_us=st.integers(1, 100))
    def run_on_an_io_thread(self, version, run_us):
        rows, *_ = self.real.state(version)
        if rows and self.real.state(version)[4] < self.twin.versions[version].limits.instances:
            self.both("run_here", version, run_us * 1000.0, self.now_ns)

    @rule(version=VERSIONS, limits=LIMITS)
    def change_limits(self, version, limits):
        self.both("set", version, **limits)

    @rule(number=st.integers(1, 40))
    def cancel(self, number):
        self.both("cancel", number)

    @rule(version=VERSIONS)
    def sweep(self, version):
        self.both("sweep", version, self.now_ns)

    @rule(pause_us=st.integers(1, 30_000))
    def time_passes(self, pause_us):
        self.now_ns += pause_us * 1000

    @rule()
    def a_second_passes(self):
        self.now_ns += SECOND

    @invariant()
    def the_same_state(self):
        for version in range(len(self.twin.versions)):
            assert self.real.state(version) == self.twin.state(version)
            assert self.real.turn_ns(version, self.now_ns) == self.twin.turn_ns(version, self.now_ns)


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)


# What is promised.
def endless(version, rows, until_ns, from_ns=START_NS, every_ns=MS):
    """More requests than can be served."""
    return [Request(at_ns, rows, version) for at_ns in range(from_ns, until_ns, every_ns)]


def shared(versions, run_ms, executors=1, noise=0.1, seed=1):
    """A simulation of versions with these limits, where a row of each takes so long."""
    chance, policy = random.Random(seed), policy_probe.Policy(executors)
    for limits in versions:
        policy.add(False, max_rows=10**9, **limits)
    return Simulation(policy, executors, lambda version, rows, *_: rows * run_ms[version] * MS * chance.uniform(1 - noise, 1 + noise))


@pytest.mark.parametrize(("run_ms", "rows"), [(2.0, 1), (15.0, 1), (40.0, 1), (0.5, 8)])
def test_a_version_with_endless_work_delays_another_by_one_of_its_batches(run_ms, rows):
    until_ns = START_NS + 20 * SECOND
    simulation, chance = shared([{}, {}], [run_ms, 0.5]), random.Random(2)
    seldom = [Request(START_NS + chance.randrange(20) * SECOND + chance.randrange(SECOND), 1, 1) for _ in range(20)]
    simulation.run(endless(0, rows, until_ns) + seldom, 2, until_ns + SECOND)
    delays_ns = [one.started_ns - one.at_ns for one in seldom]
    assert max(delays_ns) <= simulation.longest_ns[0] + 2 * simulation.longest_ns[1]    # some of them come together


@pytest.mark.parametrize("run_ms", [(5.0, 5.0), (12.0, 3.0), (1.0, 18.0)])
def test_twice_the_weight_gets_twice_the_run_time(run_ms):
    until_ns = START_NS + 60 * SECOND
    simulation = shared([{"weight": 2.0}, {"weight": 1.0}], run_ms)
    simulation.run([one for version in (0, 1) for one in endless(version, 1, until_ns, every_ns=int(run_ms[version] * MS))], 2, until_ns)
    assert simulation.busy_ns[0] / simulation.busy_ns[1] == pytest.approx(2, rel=0.05)


def test_who_was_idle_gets_no_credit_for_it():
    until_ns, late_ns = START_NS + 12 * SECOND, START_NS + 10 * SECOND
    simulation = shared([{}, {}], [5.0, 5.0])
    simulation.run(endless(0, 1, until_ns) + endless(1, 1, until_ns, late_ns), 2, until_ns)
    assert simulation.busy_ns[1] == pytest.approx(SECOND, rel=0.05)     # half of the two seconds


def with_rows(versions, rows):
    """A policy whose versions take 1 ms for a run and 1 ms for each row, and have rows waiting."""
    policy = policy_probe.Policy(1)
    for version in range(versions):
        policy.add(False)
        for at in range(7):
            policy.learn(version, (), 2**at, (1 + 2**at) * MS, START_NS)
        for number in range(rows):
            policy.arrive(version, version * rows + number, 1, (), START_NS)
        policy.offer(version)
    return policy


def test_a_batch_is_cut_to_20_ms_while_others_have_work_and_not_when_alone():
    for versions, turn_ns, told in ((1, -1, (64, "full")), (2, 20 * MS, (12, "turn"))):
        policy = with_rows(versions, 128)
        version, _, reason = policy.next_turn(START_NS)
        assert policy.turn_ns(version, START_NS) == turn_ns
        assert policy.start(version, reason, START_NS)[2:4] == told


def test_for_a_second_after_another_was_served_a_version_is_not_alone():
    policy = with_rows(2, 1)
    for _ in range(2):
        version, _, reason = policy.next_turn(START_NS)
        batch, *_ = policy.start(version, reason, START_NS)
        policy.end(version, batch, 1.0 * MS, START_NS)
    assert [policy.turn_ns(version, START_NS + SECOND - 1) for version in (0, 1)] == [20 * MS, 20 * MS]
    assert policy.turn_ns(version, START_NS + SECOND) == -1


def test_after_a_batch_of_wide_rows_the_linger_is_by_their_curve():
    policy = policy_probe.Policy(1)
    policy.add(True)
    policy.learn(0, (1,), 2, 0.064 * MS, START_NS)
    policy.learn(0, (1000,), 2, 64.0 * MS, START_NS)
    for number in range(2):
        policy.arrive(0, number, 1, (1000,), START_NS)
    policy.offer(0)
    version, _, reason = policy.next_turn(START_NS)
    batch, numbers, *_ = policy.start(version, reason, START_NS)
    assert numbers == [0, 1]
    policy.end(version, batch, 64.0 * MS, START_NS + 64 * MS)
    policy.arrive(0, 2, 1, (1000,), START_NS + 64 * MS)
    policy.offer(0)
    assert policy.next_turn(START_NS + 64 * MS) == (None, START_NS + 65 * MS, "")   # 1/64 of what two wide rows take


@pytest.mark.parametrize("seed", range(5))
def test_a_free_instance_is_not_left_idle_while_anybody_has_rows_but_to_linger(seed):
    chance, instances = random.Random(seed), (1, 2, 3)
    simulation = shared([{"instances": count} for count in instances], [2.0, 5.0, 1.0], executors=4)
    requests = [Request(START_NS + chance.randrange(5 * SECOND), chance.randint(1, 5), chance.randrange(3)) for _ in range(2000)]
    idle = []

    def look():
        policy = simulation.policy
        states = [policy.state(version) for version in range(3)]
        if simulation.busy < 4 and any(state[0] and state[4] < count for state, count in zip(states, instances, strict=True)):
            idle.append(policy.next_turn(simulation.now_ns)[1] - simulation.now_ns)

    simulation.looks = look
    simulation.run(requests, 3, START_NS + 20 * SECOND)
    assert all(0 < wait_ns <= 4 * MS for wait_ns in idle)
    assert all(one.answered_ns for one in requests)
