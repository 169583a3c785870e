"""/metrics: the data plane's counters and histograms through prometheus-client's collector interface, read at scrape time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from batchmill.core.reactor import Server
from batchmill.core.router import Version

if TYPE_CHECKING:
    from batchmill.core.router import HistogramSnapshot  # stands in the stub alone

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_VERSION = ("model", "version")


class DataPlaneCollector(Collector):
    """Yields series of versions that have answered something; unknown model names never become labels."""

    def __init__(self, server: Server, versions: Callable[[], Sequence[Version]]) -> None:
        self._server = server
        self._versions = versions

    def collect(self) -> Iterator[Metric]:
        yield from self._server_families()
        requests = CounterMetricFamily("batchmill_requests", "Requests answered, by outcome: ok or a gRPC code", labels=[*_VERSION, "outcome"])
        rows = CounterMetricFamily("batchmill_rows", "Rows computed", labels=_VERSION)
        batches = CounterMetricFamily("batchmill_batches", "Batches run", labels=_VERSION)
        failed = CounterMetricFamily("batchmill_failed_batches", "Batches that failed and were run again in parts", labels=_VERSION)
        queued = GaugeMetricFamily("batchmill_queue_rows", "Rows that wait now", labels=_VERSION)
        histograms = {
            "total": HistogramMetricFamily("batchmill_request_duration_seconds", "From the last byte read to the answer", labels=_VERSION),
            "queue": HistogramMetricFamily("batchmill_queue_duration_seconds", "From queued to the start of the run", labels=_VERSION),
            "compute": HistogramMetricFamily("batchmill_compute_duration_seconds", "One run of the model, a batch", labels=_VERSION),
        }
        for version in self._versions():
            stats, labels = version.stats(), [version.name, version.version]
            if not stats["success"] and not stats["failure"]:
                continue
            requests.add_metric([*labels, "ok"], stats["success"])
            for code, count in stats["failure"].items():
                requests.add_metric([*labels, code.lower()], count)
            rows.add_metric(labels, stats["rows"])
            batches.add_metric(labels, stats["batches"])
            failed.add_metric(labels, stats["batch_failures"])
            queued.add_metric(labels, stats["queue_rows"])
            for stage, snapshot in (("total", stats["total"]), ("queue", stats["queue"]), ("compute", stats["compute"])):
                add_histogram(histograms[stage], labels, snapshot)
        yield from (requests, rows, batches, failed, queued, *histograms.values())

    def _server_families(self) -> Iterator[Metric]:
        stats = self._server.stats()
        yield GaugeMetricFamily("batchmill_connections", "Open connections", stats["connections"])
        yield GaugeMetricFamily("batchmill_in_flight_requests", "Requests accepted and not yet answered", stats["in_flight"])
        yield GaugeMetricFamily("batchmill_pending_bytes", "Bytes of request bodies held", stats["pending_bytes"])
        refused = CounterMetricFamily("batchmill_refused_requests", "Requests no version answered, by status code", labels=["outcome"])
        for code, count in stats["requests"].items():
            refused.add_metric([code.lower()], count)
        yield refused
        yield CounterMetricFamily("batchmill_refused_connections", "Connections over the limit", stats["refused"]["connections"])


def add_histogram(family: HistogramMetricFamily, labels: list[str], snapshot: HistogramSnapshot) -> None:
    total, buckets = 0, []
    for bound_ns, count in zip(snapshot["bounds_ns"], snapshot["counts"], strict=False):
        total += count
        buckets.append((repr(bound_ns / 1e9), float(total)))
    buckets.append(("+Inf", float(snapshot["count"])))
    family.add_metric(labels, buckets, snapshot["sum_ns"] / 1e9)


class Metrics:
    def __init__(self, server: Server, versions: Callable[[], Sequence[Version]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(DataPlaneCollector(server, versions))

    def render(self) -> bytes:
        return generate_latest(self._registry)
