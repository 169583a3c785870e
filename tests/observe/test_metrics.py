"""What scrapers are told."""

from types import SimpleNamespace

from endpoints.statuses import STATS, UNUSED
from prometheus_client.parser import text_string_to_metric_families

from batchmill.observe.metrics import Metrics

SERVER = SimpleNamespace(stats=lambda: {"connections": 3, "in_flight": 2, "pending_bytes": 7, "refused": {"connections": 1}, "requests": {"NOT_FOUND": 4}})


def version(name, number, stats=STATS):
    return SimpleNamespace(name=name, version=number, stats=lambda: stats)


def samples(*versions):
    text = Metrics(SERVER, lambda: versions).render().decode()
    return {(one.name, *(one.labels[label] for label in sorted(one.labels))): one.value for family in text_string_to_metric_families(text) for one in family.samples}


def test_counters_and_gauges_are_those_of_the_data_plane():
    found = samples(version("m", "1"))
    assert {key: found[key] for key in found if "duration" not in key[0]} == {
        ("batchmill_connections",): 3, ("batchmill_in_flight_requests",): 2, ("batchmill_pending_bytes",): 7,
        ("batchmill_refused_requests_total", "not_found"): 4, ("batchmill_refused_connections_total",): 1,
        ("batchmill_requests_total", "m", "ok", "1"): 2, ("batchmill_requests_total", "m", "invalid_argument", "1"): 1,
        ("batchmill_rows_total", "m", "1"): 5, ("batchmill_batches_total", "m", "1"): 2, ("batchmill_queue_rows", "m", "1"): 4,
    }


def test_histograms_are_cumulative_and_in_seconds():
    found = samples(version("m", "1"))
    for stage in ("request", "queue", "compute"):
        name = f"batchmill_{stage}_duration_seconds"
        assert [found[f"{name}_bucket", bound, "m", "1"] for bound in ("0.001", "0.002", "0.004", "+Inf")] == [1, 1, 3, 3]
        assert (found[f"{name}_sum", "m", "1"], found[f"{name}_count", "m", "1"]) == (0.006, 3)


def test_versions_that_answered_nothing_have_no_series():
    found = samples(version("m", "1"), version("idle", "1", UNUSED))
    assert not any("idle" in key for key in found)


def test_names_are_escaped():
    assert ("batchmill_rows_total", 'a"b\\c', "1") in samples(version('a"b\\c', "1"))
