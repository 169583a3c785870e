"""The slow, obvious twin of the text for Prometheus: prometheus-client's families, filled one event at a time."""

from __future__ import annotations

from collections import Counter

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

CODES = ("ok", "cancelled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists", "permission_denied", "resource_exhausted",
         "failed_precondition", "aborted", "out_of_range", "unimplemented", "internal", "unavailable", "data_loss", "unauthenticated")
BOUNDS_NS = [2**bits for bits in (*range(14, 31), 32, 34)]
CLOSE_REASONS = ("full", "idle", "linger", "deadline", "delay", "shape", "turn", "drain")
LABELS = ["model", "version"]


def buckets(values, bounds, shown, edge=lambda value: value):
    """Cumulative; a value counts where the upper edge of its fine bucket falls."""
    return [*((shown(bound), sum(edge(value) <= bound for value in values)) for bound in bounds), ("+Inf", len(values))]


def text(versions, triton, edge):
    """versions: (name, version, requests, batches), as in batchmill.core.probe. edge: upper edge of a duration's fine bucket, ns."""
    return generate_latest(filled(families(triton), [version for version in versions if version[2]], triton, edge))


def families(triton):
    found = {}
    for name, extra in (("requests", ["outcome"]), ("request_failures", ["reason"]), ("rows", []), ("batches", []), ("failed_batches", []), ("inline_batches", []), ("padding_bytes", []),
                        ("closed_batches", ["reason"]), ("closed_rows", ["reason"]), ("closed_wait_seconds", ["reason"]),
                        ("request_bytes", []), ("response_bytes", [])):
        found[name] = CounterMetricFamily(f"batchmill_{name}", "-", labels=[*LABELS, *extra])
    for name in ("queue_rows", "queue_requests", "version_in_flight_requests", "queue_oldest_seconds"):
        found[name] = GaugeMetricFamily(f"batchmill_{name}", "-", labels=LABELS)
    found["batch_rows"] = HistogramMetricFamily("batchmill_batch_rows", "-", labels=LABELS)
    for stage in ("decode", "queue", "assembly", "compute", "encode"):
        found[stage] = HistogramMetricFamily(f"batchmill_{stage}_duration_seconds", "-", labels=LABELS)
    found["total"] = HistogramMetricFamily("batchmill_request_duration_seconds", "-", labels=[*LABELS, "protocol"])
    if triton:
        for name in ("request_success", "count", "exec_count", "pending_request_count", "request_duration_us", "queue_duration_us",
                     "compute_input_duration_us", "compute_infer_duration_us", "compute_output_duration_us"):
            found[f"nv_{name}"] = GaugeMetricFamily(f"nv_inference_{name}", "-", labels=LABELS)
        found["nv_failure"] = GaugeMetricFamily("nv_inference_request_failure", "-", labels=[*LABELS, "reason"])
    return found


def filled(found, versions, triton, edge):
    def durations(family, labels, values):
        family.add_metric(labels, buckets(values, BOUNDS_NS, lambda bound: repr(bound / 1e9), edge), sum(values) / 1e9)

    for name, version, requests, batches in versions:
        labels = [name.decode(), version.decode()]
        outcomes = Counter(CODES[code] for _, code, *_ in requests)
        for outcome in {"ok", *outcomes}:
            found["requests"].add_metric([*labels, outcome], outcomes[outcome])
        for reason, count in Counter(one[2].decode().lower() for one in requests if one[1]).items():
            found["request_failures"].add_metric([*labels, reason], count)
        for key, value in (("rows", sum(one[1] for one in batches)), ("batches", len(batches)), ("failed_batches", 0), ("inline_batches", 0), ("padding_bytes", 0),
                           ("request_bytes", sum(one[7] for one in requests)), ("response_bytes", sum(one[8] for one in requests)),
                           ("queue_rows", 0), ("queue_requests", 0), ("version_in_flight_requests", 0), ("queue_oldest_seconds", 0)):
            found[key].add_metric(labels, value)
        for reason in {one[6] for one in batches}:
            closed = [one for one in batches if one[6] == reason]
            for key, value in (("batches", len(closed)), ("rows", sum(one[1] for one in closed)), ("wait_seconds", sum(one[7] for one in closed) / 1e9)):
                found[f"closed_{key}"].add_metric([*labels, CLOSE_REASONS[reason]], value)
        rows = [min(one[1], 1024) for one in batches]
        found["batch_rows"].add_metric(labels, buckets(rows, [2**power for power in range(11)], str), sum(rows))
        for stage, values in (("decode", [one[4] for one in requests]), ("queue", [one[5] for one in requests]),
                              ("assembly", [one[3] for one in batches]), ("compute", [one[4] for one in batches]), ("encode", [one[5] for one in batches])):
            durations(found[stage], labels, values)
        for number, protocol in enumerate(("grpc", "rest")):
            if totals := [one[6] for one in requests if one[3] == number and not one[1]]:
                durations(found["total"], [*labels, protocol], totals)
        if triton:
            add_triton(found, labels, outcomes, requests, batches)
    registry = CollectorRegistry()
    registry.register(type("Families", (), {"collect": lambda self: list(found.values())})())
    return registry


def add_triton(found, labels, outcomes, requests, batches):
    sums = {"request_success": outcomes["ok"], "count": sum(one[1] for one in batches), "exec_count": len(batches), "pending_request_count": 0,
            "request_duration_us": sum(one[6] for one in requests if not one[1]) // 1000, "queue_duration_us": sum(one[5] for one in requests if not one[1]) // 1000,
            **{f"compute_{stage}_duration_us": sum(one[2] * one[at] for one in batches) // 1000 for at, stage in ((3, "input"), (4, "infer"), (5, "output"))}}
    for name, value in sums.items():
        found[f"nv_{name}"].add_metric(labels, value)
    reasons = {"REJECTED": outcomes["resource_exhausted"] + outcomes["unavailable"], "CANCELED": outcomes["cancelled"], "BACKEND": outcomes["internal"]}
    reasons["OTHER"] = sum(outcomes.values()) - outcomes["ok"] - sum(reasons.values())
    for reason, value in reasons.items():
        found["nv_failure"].add_metric([*labels, reason], value)
