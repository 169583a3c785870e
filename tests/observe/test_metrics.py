"""What scrapers are told of the server and of changes; tests/core/test_exposition.py has what they are told of versions."""

from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from batchmill.audit import Audit
from batchmill.chain import Event
from batchmill.observe.changes import Changes
from batchmill.observe.metrics import Metrics
from batchmill.store import Store

SERVER = SimpleNamespace(stats=lambda: {"connections": 3, "in_flight": 2, "pending_bytes": 7, "refused": {"connections": 1},
                                        "access_log_dropped": 5, "requests": {"NOT_FOUND": 4}})


def samples(changes=None, audit=None):
    text = Metrics(SERVER, list, changes or Changes(), audit or Audit(Store())).render().decode()
    return {(one.name, *(one.labels[label] for label in sorted(one.labels))): one.value for family in text_string_to_metric_families(text) for one in family.samples}


def counts(changes):
    return {key[0].removeprefix("batchmill_version_"): value for key, value in samples(changes).items() if key[1:2] == ("m",)}


def test_the_servers_figures_are_those_of_the_data_plane():
    found = samples()
    assert {key: value for key, value in found.items() if "duration" not in key[0]} == {
        ("batchmill_connections",): 3, ("batchmill_in_flight_requests",): 2, ("batchmill_pending_bytes",): 7,
        ("batchmill_refused_requests_total", "not_found"): 4, ("batchmill_refused_connections_total",): 1,
        ("batchmill_access_log_dropped_requests_total",): 5,
        ("batchmill_audit_waiting_entries",): 0, ("batchmill_audit_lost_entries_total",): 0, ("batchmill_audit_broken",): 0,
    }


def test_loads_are_counted_by_outcome_and_failures_by_what_stopped_them():
    changes = Changes()
    changes.published({"m": None}, {("m", "1"): "failed"}, 0.0)
    for reason in ("", "golden: output y max-abs 3 > 1", "quarantined: the server died", "model.onnx: truncated", "load: no"):
        changes.loaded("m", reason, 0.02)
    found = samples(changes)
    assert {key[1:]: value for key, value in found.items() if key[0] == "batchmill_version_loads_total"} == {("m", "ready"): 1, ("m", "failed"): 4}
    failures = {key[1:]: value for key, value in found.items() if key[0] == "batchmill_version_failures_total"}
    assert failures == {("m", "golden"): 1, ("m", "quarantined"): 1, ("m", "load"): 2}
    assert [found["batchmill_version_load_duration_seconds_bucket", bound, "failed"] for bound in ("0.01", "0.03", "+Inf")] == [0, 4, 4]
    assert found["batchmill_version_load_duration_seconds_sum", "ready"] == 0.02
    assert found["batchmill_version_state", "m", "failed", "1"] == 1


def test_a_swap_is_default_traffic_that_goes_to_another_version():
    changes, one, two = Changes(), object(), object()
    for served in (None, one, one, two, None, one):
        changes.published({"m": served}, {}, 0.001)
    assert counts(changes)["swaps_total"] == 1  # neither the first version nor one after none
    assert samples(changes)["batchmill_route_swap_duration_seconds_count",] == 6


def test_retirements_are_timed():
    changes = Changes()
    changes.published({"m": object()}, {}, 0.0)
    changes.retired("m", 0.2)
    assert counts(changes)["retirements_total"] == 1
    assert samples(changes)["batchmill_version_drain_duration_seconds_sum",] == 0.2


def test_a_model_that_has_left_the_registry_has_no_series():
    changes = Changes()
    changes.published({"m": object()}, {("m", "1"): "ready"}, 0.0)
    changes.loaded("m", "", 0.1)
    changes.loaded("m", "golden: no", 0.1)
    changes.retired("m", 0.1)
    changes.published({}, {}, 0.0)
    changes.retired("m", 0.1)
    assert not any("m" in key[1:] for key in samples(changes))


def test_an_audit_trail_that_was_changed_is_told():
    audit = Audit(Store())
    audit.record(Event("a"))
    audit._memory._entries[0]["model"] = "other"
    audit.verify()
    assert samples(audit=audit)["batchmill_audit_broken",] == 1
