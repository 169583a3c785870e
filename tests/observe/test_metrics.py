"""What scrapers are told."""

from types import SimpleNamespace

import pytest
from endpoints.statuses import UNUSED
from endpoints.statuses import served_version as version
from prometheus_client.parser import text_string_to_metric_families

from batchmill.observe.metrics import Metrics

SERVER = SimpleNamespace(stats=lambda: {"connections": 3, "in_flight": 2, "pending_bytes": 7, "refused": {"connections": 1},
                                        "access_log_dropped": 5, "requests": {"NOT_FOUND": 4}})


def samples(*versions):
    text = Metrics(SERVER, lambda: versions).render().decode()
    return {(one.name, *(one.labels[label] for label in sorted(one.labels))): one.value for family in text_string_to_metric_families(text) for one in family.samples}


def test_counters_and_gauges_are_those_of_the_data_plane():
    found = samples(version("m", "1"))
    assert {key: found[key] for key in found if "duration" not in key[0] and "batch_rows" not in key[0]} == {
        ("batchmill_connections",): 3, ("batchmill_in_flight_requests",): 2, ("batchmill_pending_bytes",): 7,
        ("batchmill_refused_requests_total", "not_found"): 4, ("batchmill_refused_connections_total",): 1,
        ("batchmill_access_log_dropped_requests_total",): 5,
        ("batchmill_requests_total", "m", "ok", "1"): 2, ("batchmill_requests_total", "m", "invalid_argument", "1"): 1,
        ("batchmill_request_failures_total", "m", "run_failed", "1"): 1,
        ("batchmill_rows_total", "m", "1"): 5, ("batchmill_batches_total", "m", "1"): 2, ("batchmill_failed_batches_total", "m", "1"): 1,
        ("batchmill_request_bytes_total", "m", "1"): 100, ("batchmill_response_bytes_total", "m", "1"): 50,
        ("batchmill_queue_rows", "m", "1"): 4, ("batchmill_queue_oldest_seconds", "m", "1"): 0.002,
        ("batchmill_version_in_flight_requests", "m", "1"): 6,
    }


@pytest.mark.parametrize(("stage", "labels"), [("request", ("m", "grpc", "1")), *((stage, ("m", "1")) for stage in ("decode", "queue", "assembly", "compute", "encode"))])
def test_histograms_are_cumulative_and_in_seconds(stage, labels):
    found = samples(version("m", "1"))
    name = f"batchmill_{stage}_duration_seconds"
    series = {key[1]: value for key, value in found.items() if key[0] == f"{name}_bucket" and key[2:] == labels}
    assert [series[bound] for bound in ("1.6384e-05", "3.2768e-05", "6.5536e-05", "+Inf")] == [1, 1, 3, 3]
    assert len(series) == 21
    assert (found[f"{name}_sum", *labels], found[f"{name}_count", *labels]) == (0.00012, 3)


def test_batch_sizes_are_a_histogram_of_rows():
    found = samples(version("m", "1"))
    assert [found["batchmill_batch_rows_bucket", bound, "m", "1"] for bound in ("1.0", "2.0", "4.0", "+Inf")] == [0, 1, 2, 2]
    assert (found["batchmill_batch_rows_sum", "m", "1"], found["batchmill_batch_rows_count", "m", "1"]) == (5, 2)


def test_versions_that_answered_nothing_have_no_series():
    found = samples(version("m", "1"), version("idle", "1", UNUSED))
    assert not any("idle" in key for key in found)


def test_names_are_escaped():
    assert ("batchmill_rows_total", 'a"b\\c', "1") in samples(version('a"b\\c', "1"))
