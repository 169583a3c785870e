"""/metrics: the data plane's counters and histograms through prometheus-client's collector interface, read at scrape time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from batchmill.core.histogram import BOUNDS_NS
from batchmill.core.reactor import Server
from batchmill.core.router import Version

if TYPE_CHECKING:
    from batchmill.core.router import HistogramSnapshot, VersionStats  # stand in the stub alone

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_VERSION = ("model", "version")
_STAGES = {
    "decode": "Request: read, parsed, routed and checked",
    "queue": "Request: from queued to the start of its run",
    "assembly": "Batch: rows gathered",
    "compute": "Batch: the model's run",
    "encode": "Batch: answers written",
}


class DataPlaneCollector(Collector):
    """Yields series of versions that have answered something; unknown model names never become labels."""

    def __init__(self, server: Server, versions: Callable[[], Sequence[Version]]) -> None:
        self._server = server
        self._versions = versions

    def collect(self) -> Iterator[Metric]:
        yield from self._server_families()
        families = VersionFamilies()
        for version in self._versions():
            stats = version.stats()
            if stats["success"] or stats["failure"]:
                families.add(version, stats)
        yield from families

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
        yield CounterMetricFamily("batchmill_access_log_dropped_requests", "Requests the access log was too slow for", stats["access_log_dropped"])


class VersionFamilies:
    """What is told of each version."""

    def __init__(self) -> None:
        self.requests = CounterMetricFamily("batchmill_requests", "Requests answered, by outcome: ok or a gRPC code", labels=[*_VERSION, "outcome"])
        self.refused = CounterMetricFamily("batchmill_request_failures", "Requests not answered well, by reason", labels=[*_VERSION, "reason"])
        self.counters = {
            "rows": CounterMetricFamily("batchmill_rows", "Rows computed", labels=_VERSION),
            "batches": CounterMetricFamily("batchmill_batches", "Batches run", labels=_VERSION),
            "batch_failures": CounterMetricFamily("batchmill_failed_batches", "Batches that failed and were run again in parts", labels=_VERSION),
            "bytes_in": CounterMetricFamily("batchmill_request_bytes", "Bytes of request bodies", labels=_VERSION),
            "bytes_out": CounterMetricFamily("batchmill_response_bytes", "Bytes of answers", labels=_VERSION),
        }
        self.queue_rows = GaugeMetricFamily("batchmill_queue_rows", "Rows that wait now", labels=_VERSION)
        self.oldest = GaugeMetricFamily("batchmill_queue_oldest_seconds", "For how long the oldest of them has waited", labels=_VERSION)
        self.in_flight = GaugeMetricFamily("batchmill_version_in_flight_requests", "Requests a version holds now", labels=_VERSION)
        self.sizes = HistogramMetricFamily("batchmill_batch_rows", "Rows of a batch", labels=_VERSION)
        self.total = HistogramMetricFamily(
            "batchmill_request_duration_seconds", "From the last byte read to the answer, of requests answered well", labels=[*_VERSION, "protocol"]
        )
        self.stages = {stage: HistogramMetricFamily(f"batchmill_{stage}_duration_seconds", text, labels=_VERSION) for stage, text in _STAGES.items()}

    def add(self, version: Version, stats: VersionStats) -> None:
        labels = [version.name, version.version]
        self.requests.add_metric([*labels, "ok"], stats["success"])
        for code, count in stats["failure"].items():
            self.requests.add_metric([*labels, code.lower()], count)
        for reason, count in stats["reasons"].items():
            self.refused.add_metric([*labels, reason.lower()], count)
        for name, family in self.counters.items():
            family.add_metric(labels, stats[name])  # type: ignore[literal-required]
        self.queue_rows.add_metric(labels, version.queue_rows)
        self.oldest.add_metric(labels, version.oldest_wait_ns / 1e9)
        self.in_flight.add_metric(labels, version.leases)
        add_batch_sizes(self.sizes, labels, {rows: batches for rows, (batches, *_) in stats["batch_sizes"].items()})
        for protocol in ("grpc", "rest"):
            if stats["stages"][f"total_{protocol}"]["count"]:
                add_histogram(self.total, [*labels, protocol], stats["stages"][f"total_{protocol}"])
        for stage, histogram in self.stages.items():
            add_histogram(histogram, labels, stats["stages"][stage])

    def __iter__(self) -> Iterator[Metric]:
        yield from (self.requests, self.refused, *self.counters.values(), self.queue_rows, self.oldest, self.in_flight)
        yield from (self.sizes, self.total, *self.stages.values())


def add_histogram(family: HistogramMetricFamily, labels: list[str], snapshot: HistogramSnapshot) -> None:
    counts = itertools.accumulate(snapshot["counts"])
    buckets = [(repr(bound_ns / 1e9), float(count)) for bound_ns, count in zip(BOUNDS_NS, counts, strict=False)]
    family.add_metric(labels, [*buckets, ("+Inf", float(snapshot["count"]))], snapshot["sum_ns"] / 1e9)


def add_batch_sizes(family: HistogramMetricFamily, labels: list[str], sizes: dict[int, int]) -> None:
    bounds = [1 << power for power in range(11)]
    buckets = [(str(float(bound)), float(sum(count for rows, count in sizes.items() if rows <= bound))) for bound in bounds]
    family.add_metric(labels, [*buckets, ("+Inf", float(sum(sizes.values())))], sum(rows * count for rows, count in sizes.items()))


class Metrics:
    def __init__(self, server: Server, versions: Callable[[], Sequence[Version]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(DataPlaneCollector(server, versions))

    def render(self) -> bytes:
        return generate_latest(self._registry)
