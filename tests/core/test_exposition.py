"""The text for Prometheus, against the one that prometheus-client makes of the same events."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from batchmill.core.histogram import bucket_bounds
from batchmill.core.probe import metrics_text
from reference import metrics as reference

THREADS, NS, BYTES = st.integers(0, 3), st.integers(0, 2**36), st.integers(0, 2**40)
REASONS = st.sampled_from([b"QUEUE_FULL", b"RUN_FAILED", b"MODEL_NOT_FOUND"])
REQUEST = st.tuples(THREADS, st.integers(0, 16), REASONS, st.integers(0, 1), NS, NS, NS, BYTES, BYTES)
BATCH = st.tuples(THREADS, st.integers(1, 3000), st.integers(1, 100), NS, NS, NS, st.integers(0, 7), NS)
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=8)
VERSIONS = st.lists(st.tuples(NAMES.map(str.encode), st.sampled_from([b"1", b"20"]), st.lists(REQUEST, max_size=8), st.lists(BATCH, max_size=8)),
                    max_size=4, unique_by=lambda version: version[:2])  # fmt: skip


def told(text):
    """{(sample, labels): value} and {family: kind}; sums of seconds to the nanosecond."""
    samples, kinds = {}, {}
    for family in text_string_to_metric_families(text.decode()):
        kinds[family.name] = family.type
        for one in family.samples:
            name = one.name.removesuffix("_total") if one.name.startswith("nv_") else one.name  # the parser's, which takes them for OpenMetrics
            key = name, frozenset((label, "Inf" if value == "+Inf" else float(value)) if label == "le" else (label, value) for label, value in one.labels.items())
            assert key not in samples, "a series is told twice"
            samples[key] = round(one.value * 1e9) if one.name.endswith(("seconds_sum", "oldest_seconds", "wait_seconds_total")) else one.value
    return samples, kinds


@settings(deadline=None)
@given(VERSIONS, st.booleans())
def test_the_text_is_that_of_prometheus_client(versions, triton):
    ours, kinds = told(metrics_text(versions, triton))
    theirs, their_kinds = told(reference.text(versions, triton, lambda ns: bucket_bounds(ns)[1]))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, rel=1e-12, abs=1), key  # they add durations as doubles
    # prometheus-client would name a counter ..._total, which Triton's have not.
    assert {name: kind for name, kind in kinds.items() if not name.startswith("nv_")} == {name: kind for name, kind in their_kinds.items() if not name.startswith("nv_")}


def test_counts_are_exact_and_a_version_that_answered_nothing_is_not_told():
    samples, _ = told(metrics_text([(b"m", b"1", [(0, 0, b"", 0, 9, 9, 20_000, 1, 2)] * 3, []), (b"idle", b"1", [], [(0, 1, 1, 1, 1, 1, 0, 1)])], False))
    assert samples["batchmill_requests_total", frozenset({("model", "m"), ("version", "1"), ("outcome", "ok")})] == 3
    assert not any(("model", "idle") in labels for _, labels in samples)


def test_a_histogram_has_at_most_twenty_buckets():
    samples, _ = told(metrics_text([(b"m", b"1", [(0, 0, b"", 0, 9, 9, 9, 1, 2)], [])], False))
    for name in ("decode", "queue", "assembly", "compute", "encode"):
        assert sum(sample == f"batchmill_{name}_duration_seconds_bucket" for sample, _ in samples) == 20
