"""plan(): when to close a batch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import batcher
from reference import batcher as reference

TIMES = st.integers(0, 10**12)


ARGUMENTS = st.tuples(st.integers(1, 100), TIMES, TIMES, st.integers(1, 100), st.sampled_from([0, 1000, 10**6]), st.integers(0, 100),
                      TIMES, st.integers(0, 10**10))


@given(ARGUMENTS)
def test_plan_equals_its_obvious_twin(arguments):
    assert batcher.decide(*arguments) == reference.decide(*arguments)


@pytest.mark.parametrize(("rows", "now_ns", "expected_rows", "closes"), [
    (1, 1000, 0, True),          # idle: at once
    (8, 1000, 8, True),          # as many as can be expected: at once
    (7, 1000, 8, False),         # one caller is about to come back: linger
    (7, 1_000_000, 8, True),     # but not for long
    (64, 1000, 80, True),        # full
])
def test_an_idle_instance_starts_at_once_and_lingers_only_for_callers_about_to_return(rows, now_ns, expected_rows, closes):
    assert batcher.decide(rows, 500, now_ns, 64, 0, expected_rows, 900, 29_000_000)[0] is closes
