"""Log-linear histograms."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import histogram


@given(st.lists(st.integers(0, 2**38)), st.lists(st.integers(0, 2**38)))
def test_the_difference_of_two_snapshots_is_what_was_recorded_between_them(before, since):
    found = histogram.difference(histogram.recorded(before + since), histogram.recorded(before))
    assert found["stages"]["decode"] == Counter(map(histogram.bucket_bounds, since))
    assert list(found["stages"]["decode"]) == sorted(found["stages"]["decode"])
    assert not any(found["stages"][stage] for stage in histogram.STAGES if stage != "decode")


@given(st.integers(1000, 60 * 10**9))
def test_a_bucket_is_at_most_a_tenth_wide_between_1_us_and_60_s(ns):
    low, high = histogram.bucket_bounds(ns)
    assert low <= ns < high
    assert (high - low) / 2 <= 0.05 * ns
