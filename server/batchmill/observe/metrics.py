"""/metrics: the server and its changes through prometheus-client, the versions, of which there may be thousands, by the data plane's own writer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from batchmill.audit import Audit
from batchmill.core import exposition, shadow_figures
from batchmill.core.reactor import Server
from batchmill.core.router import Version
from batchmill.observe.breakers import STATES
from batchmill.observe.changes import BOUNDS_SECS, Changes, Durations

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """render() may be called by any thread. triton: Triton's names as well."""

    def __init__(self, server: Server, versions: Callable[[], Sequence[Version]], changes: Changes, audit: Audit, *, triton: bool = False) -> None:
        self._versions = versions
        self._triton = triton
        self._registry = CollectorRegistry()
        self._registry.register(ServerCollector(server))
        self._registry.register(ChangesCollector(changes))
        self._registry.register(AuditCollector(audit))
        self._registry.register(ShadowCollector(versions))
        self._registry.register(BreakerCollector(versions))

    def register(self, collector: Collector) -> None:
        """Of what others count."""
        self._registry.register(collector)

    def render(self) -> bytes:
        """Series of versions exist from their first answer on; unknown model names never become labels."""
        return generate_latest(self._registry) + exposition.render(self._versions(), triton=self._triton)


class ServerCollector(Collector):
    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
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


class ChangesCollector(Collector):
    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    def collect(self) -> Iterator[Metric]:
        changes, counters = self._changes, self._changes.counters()
        for name, text, labels in (
            ("loads", "Loads of versions that ended, by outcome: ready or failed", ["outcome"]),
            ("failures", "Loads that failed, by reason: golden, quarantined or load", ["reason"]),
            ("swaps", "Default traffic put from one version to another", []),
            ("retirements", "Versions out of service whose memory has been freed", []),
        ):
            family = CounterMetricFamily(f"batchmill_version_{name}", text, labels=["model", *labels])
            for key, count in counters[name].items():
                family.add_metric(key, count)
            yield family
        loads = HistogramMetricFamily("batchmill_version_load_duration_seconds", "Probe, load, proof and warm-up, by outcome", labels=["outcome"])
        for outcome, durations in changes.load_secs.items():
            add_durations(loads, [outcome], durations)
        yield loads
        for name, text, durations in (
            ("batchmill_route_swap_duration_seconds", "A new route table put in the place of the old one", changes.swap_secs),
            ("batchmill_version_drain_duration_seconds", "A version from out of service to freed", changes.drain_secs),
        ):
            one = HistogramMetricFamily(name, text, labels=[])
            add_durations(one, [], durations)
            yield one
        help_text = "1 for the state a version is in: loading, ready, held or failed"
        states = GaugeMetricFamily("batchmill_version_state", help_text, labels=["model", "version", "state"])
        for (model, version), state in changes.states.items():
            states.add_metric([model, version, state], 1)
        yield states


class AuditCollector(Collector):
    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    def collect(self) -> Iterator[Metric]:
        state = self._audit.state()
        broken = bool(state["verified"] and state["verified"]["broken"] is not None)
        yield GaugeMetricFamily("batchmill_audit_waiting_entries", "Audit entries that are not on the disk yet", state["waiting"])
        yield CounterMetricFamily("batchmill_audit_lost_entries", "Audit entries that could not be written, and were too many to wait", state["lost"])
        yield GaugeMetricFamily("batchmill_audit_broken", "1 when the last verification of the audit trail found an entry that was changed", broken)


class ShadowCollector(Collector):
    """Of versions that are candidates, or were since they were loaded."""

    def __init__(self, versions: Callable[[], Sequence[Version]]) -> None:
        self._versions = versions

    def collect(self) -> Iterator[Metric]:
        found = [([one.name, one.version], stats) for one in self._versions() if (stats := shadow_figures.stats_of(one))]
        for name, key, text in (
            ("mirrored_requests", "mirrored", "Answered requests that a candidate shall run, too"),
            ("compared_requests", "compared", "Those that it has run"),
            ("agreeing_requests", "agreeing", "Those whose answers agree"),
            ("errors", "errors", "Those that it could not run"),
            ("shed_requests", "shed", "Those that it did not run because there was no room, or callers waited"),
        ):
            family = CounterMetricFamily(f"batchmill_shadow_{name}", text, labels=["model", "candidate"])
            for labels, stats in found:
                family.add_metric(labels, stats[key])  # type: ignore[literal-required]
            yield family


class BreakerCollector(Collector):
    """Of the versions that have a breaker, or were answered for by others."""

    def __init__(self, versions: Callable[[], Sequence[Version]]) -> None:
        self._versions = versions

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "version"]
        states = GaugeMetricFamily("batchmill_breaker_state", "0: closed, 1: half open, 2: open", labels=labels)
        opened = CounterMetricFamily("batchmill_breaker_opened", "How often the breaker has opened", labels=labels)
        fallbacks = CounterMetricFamily("batchmill_fallback_requests", "Requests given to another in the place of this version", labels=labels)
        for version in self._versions():
            if version.breaker:
                states.add_metric([version.name, version.version], STATES.index(version.breaker))
                opened.add_metric([version.name, version.version], version.breaker_opened)
            if version.fallbacks:
                fallbacks.add_metric([version.name, version.version], version.fallbacks)
        yield from (states, opened, fallbacks)


class Tallied(Protocol):
    """What was told of the answers of a version."""

    @property
    def judged(self) -> int: ...
    @property
    def correct(self) -> int: ...
    @property
    def rewards(self) -> Any: ...


class FeedbackCollector(Collector):
    def __init__(self, told: Callable[[], Iterable[tuple[str, str, Tallied]]], rejected: Callable[[], Iterable[tuple[str, str, int]]]) -> None:
        """told: by model and version. rejected: by model and reason."""
        self._told = told
        self._rejected = rejected

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "version"]
        judged = CounterMetricFamily("batchmill_feedback_judged_answers", "Answers that were told to be right or wrong", labels=labels)
        correct = CounterMetricFamily("batchmill_feedback_correct_answers", "Answers that were told to be right", labels=labels)
        rewards = CounterMetricFamily("batchmill_feedback_rewarded_answers", "Answers that were given a reward", labels=labels)
        mean = GaugeMetricFamily("batchmill_feedback_reward_mean", "Mean of the rewards", labels=labels)
        for model, version, tally in self._told():
            judged.add_metric([model, version], tally.judged)
            correct.add_metric([model, version], tally.correct)
            rewards.add_metric([model, version], tally.rewards.count)
            if tally.rewards.count:
                mean.add_metric([model, version], tally.rewards.mean)
        yield from (judged, correct, rewards, mean)
        text = "Feedback that was not counted, by reason: invalid, expired, repeated or no_prediction"
        rejected = CounterMetricFamily("batchmill_feedback_rejected_answers", text, labels=["model", "reason"])
        for model, reason, count in self._rejected():
            rejected.add_metric([model, reason], count)
        yield rejected


def add_durations(family: HistogramMetricFamily, labels: list[str], durations: Durations) -> None:
    bounds = [*map(str, BOUNDS_SECS), "+Inf"]
    cumulative = map(float, itertools.accumulate(durations.counts))
    family.add_metric(labels, list(zip(bounds, cumulative, strict=True)), durations.sum_secs)
