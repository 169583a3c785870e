"""When a version is spared requests, and when it gets them again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import breaker
from reference import breaker as reference

SECOND = 1_000_000_000


def states(*steps, failures=0.5, window=10, open_for=5, least=4):
    """What is said to each step, times in seconds: a time asks, (time, requests, failures) tells."""
    steps = [(one * SECOND,) if isinstance(one, int) else (one[0] * SECOND, *one[1:]) for one in steps]
    found = breaker.drive(failures, window * SECOND, open_for * SECOND, least, steps)
    return [state if said is None else said for said, state in found]


@pytest.mark.parametrize(("steps", "wanted"), [
    ([(0, 4, 1), 0], ["closed", True]),                                      # a quarter is less than half
    ([(0, 4, 2), 0], ["open", False]),
    ([(0, 3, 3), 0], ["closed", True]),                                      # too few to say
    ([(0, 3, 3), (1, 1, 0), 1], ["closed", "open", False]),
    ([(0, 3, 3), (11, 1, 0), 11], ["closed", "closed", True]),               # the failures are out of the window
    ([(0, 4, 4), 4, 5, 5, 5, 5, 5, 5], ["open", False, *[True] * 5, False]),  # as many trials, and no more
    ([(0, 4, 4), 5, (6, 1, 0), (6, 4, 0), 6], ["open", True, "half_open", "closed", True]),
    ([(0, 4, 4), 5, (6, 1, 0), (6, 1, 1), 6, 10, 11], ["open", True, "half_open", "open", False, False, True]),
    ([(0, 4, 4), *[5] * 6, 9, 10], ["open", *[True] * 5, False, False, True]),  # nobody told of the trials: others
    ([(0, 4, 4), (1, 100, 0), 1], ["open", "open", False]),                  # what ran before it opened says nothing
])
def test_the_states_and_their_ways(steps, wanted):
    assert states(*steps) == wanted


STEPS = st.lists(st.tuples(st.integers(0, 3), st.none() | st.tuples(st.integers(1, 6), st.integers(0, 6))), max_size=60)


@given(STEPS, st.sampled_from([0.1, 0.5, 1.0]), st.integers(1, 30), st.integers(1, 8), st.integers(1, 20))
def test_a_breaker_equals_its_twin(drawn, failures, window_ns, open_ns, least):
    twin, steps, wanted, now = reference.Breaker(failures, window_ns, open_ns, least), [], [], 0
    for passed, came in drawn:
        now += passed
        steps.append((now,) if came is None else (now, came[0], min(came)))
        said = twin.admits(now) if came is None else twin.record(came[0], min(came), now)
        wanted.append((said, twin.state))
    assert breaker.drive(failures, window_ns, open_ns, least, steps) == wanted
