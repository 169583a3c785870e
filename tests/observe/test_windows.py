"""Latencies of the last seconds, against a list of all events."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchmill.core.histogram import bucket_bounds, recorded
from batchmill.observe import windows
from batchmill.observe.windows import TICK_SECS, WINDOWS, Windows
from reference import windows as reference

SLACK = {"10s": 1, "1m": 6, "5m": 31}  # ticks that a window may be longer than its name


class Source:
    """Counts what happened until now. Its durations are those of decode."""

    def __init__(self):
        self.events = []
        self.now = 0.0

    def happened(self):
        return reference.within(self.events, -1.0, self.now)

    @property
    def answered(self):
        return len(self.happened())

    def snapshot(self):
        return recorded(self.happened())


def histories(source, windows_of, until):
    """Ticks until then; yields after each."""
    for tick in range(int(until // TICK_SECS) + 1):
        source.now = tick * TICK_SECS
        windows_of.tick([source], source.now)


EVENTS = st.lists(st.tuples(st.floats(0.0, 900.0, exclude_min=True).map(lambda secs: round(secs, 1)), st.integers(1000, 10**9)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.floats(0.0, 900.0), st.lists(st.floats(20.0, 21.0), max_size=5))
def test_a_window_counts_what_happened_in_the_seconds_it_tells(events, until, burst):
    source, seen = Source(), Windows()
    source.events = [*events, *((time, 5000) for time in burst)]
    histories(source, seen, until)
    source.now = now = round(until, 1)
    for name, window in seen.read(source, now).items():
        wanted = reference.within(source.events, now - window["seconds"] - 0.05, now)
        slightly_less = reference.within(source.events, now - window["seconds"] + 0.05, now)
        counted = window["stages"].get("decode", {"count": 0})["count"]
        assert len(slightly_less) <= counted <= len(wanted)
        assert window["seconds"] <= WINDOWS[name] + SLACK[name] * TICK_SECS + 0.1
        assert window["seconds"] >= min(WINDOWS[name], now) - 0.1


@settings(deadline=None)
@given(st.lists(st.integers(1000, 6 * 10**10), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_a_quantile_is_within_five_per_cent_of_the_sorted_list(durations, share):
    buckets = dict(sorted(Counter(map(bucket_bounds, durations)).items()))
    assert windows.quantile(buckets, share) == pytest.approx(reference.quantile(sorted(durations), share), rel=0.05)


def test_few_snapshots_are_kept_of_a_version_that_is_asked_all_the_time():
    source, seen = Source(), Windows()
    source.events = [(time / 2, 1000) for time in range(4000)]
    histories(source, seen, 2000.0)
    assert len(seen._histories[source]) <= 20


def test_a_version_that_left_is_forgotten():
    source, seen = Source(), Windows()
    seen.tick([source], 0.0)
    seen.tick([], 2.0)
    assert not seen._histories
    assert seen.read(source, 3.0)["10s"]["seconds"] == 0.0
