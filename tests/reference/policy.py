"""The slow, obvious twin of the whole policy: batchmill.core.policy_probe.Policy in plain Python, with the same calls and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reference import admission
from reference.admission import Terms
from reference.batcher import most_rows, price_ns, share_after
from reference.predictor import Curve
from reference.queue import Queue, Taken, Waiting, earlier
from reference.turns import Limits, Turns, Version

DRIFT_FROM_NS, DRIFT_KEPT = 1_000_000, 0.9375


@dataclass
class Run:
    taken: Taken
    began_ns: int


class Policy:
    def __init__(self, executors: int, turn_ns: int = 20_000_000) -> None:
        self.executors, self.turns = executors, Turns(turn_ns)
        self.versions: list[Version] = []
        self.runs: list[Run] = []

    def add(self, widths: bool, **limits: Any) -> int:
        self.versions.append(Version(widths, Limits(), Queue(0)))
        self.set(len(self.versions) - 1, **limits)
        return len(self.versions) - 1

    def set(self, place: int, **limits: Any) -> None:
        version = self.versions[place]
        version.limits = given = Limits(**limits)
        version.queue.max_rows, version.queue.delays = given.max_rows, given.delays
        version.queue.priority_levels, version.queue.default_priority = given.priority_levels, given.default_priority

    def drain(self) -> None:
        self.turns.draining = True

    def learn(self, place: int, shape: tuple[int, ...], rows: int, run_ns: float, now_ns: int) -> None:
        version = self.versions[place]
        version.times.setdefault(version.width_of(shape), Curve()).learn(rows, run_ns, now_ns)

    def arrive(
        self, place: int, number: int, rows: int, shape: tuple[int, ...], now_ns: int, deadline_ns: int = 0, timeout_us: int = 0, priority: int = 0
    ) -> tuple[str, int, int]:
        version, one = self.versions[place], Waiting(number, rows, tuple(shape), now_ns, 0, priority, answer_by_ns=deadline_ns)
        budget_ns = timeout_us * 1000 or version.limits.default_timeout_ns
        one.deadline_ns = earlier(deadline_ns, now_ns + budget_ns if budget_ns else 0)
        one.objective_ns = now_ns + version.limits.objective_ns if version.limits.objective_ns else 0
        verdict, wait_ns, run_ns = version.queue.put(one, self.terms_of(version, one, now_ns), now_ns, version.limits.max_batch_size)
        if verdict == "taken":
            return verdict, one.predicted_wait_ns, 0
        late_ns = admission.MARGIN * wait_ns + run_ns - (earlier(one.deadline_ns, one.finish_by_ns) - now_ns)
        return verdict, 0, retry_ms(verdict, wait_ns, late_ns, version.limits)

    def terms_of(self, version: Version, one: Waiting, now_ns: int) -> Terms:
        curve, limits = version.curve_of(one), version.limits
        parallel = max(1, min(limits.instances, self.executors))
        most = most_rows(curve, version.queue.rows, limits.batch, limits.preferred)
        return Terms(curve, most, price_ns(curve, limits.batch, limits.preferred), parallel, max(0, version.busy_until_ns - now_ns) / parallel, version.slack_share,
                     version.drift, limits.max_wait_ns)

    def offer(self, place: int) -> None:
        self.turns.line_up(self.versions[place])

    def cancel(self, number: int) -> None:
        for one in (one for version in self.versions for one in version.queue.waiting):
            one.cancelled = one.cancelled or one.number == number

    def sweep(self, place: int, now_ns: int) -> list[int]:
        return self.let_go([], self.versions[place].queue.sweep(now_ns))[1]

    def next_turn(self, now_ns: int) -> tuple[int | None, int, str]:
        found, wait_until_ns, reason = self.turns.next_turn(now_ns)
        return self.place_of(found), wait_until_ns, reason

    def place_of(self, version: Version | None) -> int | None:
        return next((place for place, one in enumerate(self.versions) if one is version), None)

    def turn_ns(self, place: int, now_ns: int) -> float:
        return self.turns.rules_of(self.versions[place], True, now_ns).turn_ns

    def start(self, place: int, reason: str, now_ns: int, shares: bool = True) -> tuple[int, list[int], int, str, float, list[int]]:
        version = self.versions[place]
        taken = version.queue.take(self.turns.rules_of(version, shares, now_ns), now_ns)
        version.running += 1
        if shares:
            self.turns.started(version, taken, now_ns)
            self.turns.line_up(version)
        told = self.let_go([], taken.dropped)[1]
        if taken.batch:
            correct_drift(version, taken.batch[0], now_ns)
        self.runs.append(Run(taken, now_ns))
        reason = reason if taken.reason == "idle" else taken.reason
        return len(self.runs) - 1, numbers(taken.batch), taken.rows, reason, taken.expected_ns, told

    def end(self, place: int, batch: int, run_ns: float, now_ns: int) -> tuple[list[int], list[int]]:
        version, run = self.versions[place], self.runs[batch]
        self.learn_from(place, run, run_ns, now_ns)
        self.turns.ended(version, run.taken, run.began_ns, now_ns)
        return self.let_go(run.taken.batch, [])

    def run_here(self, place: int, run_ns: float, now_ns: int) -> tuple[Any, ...]:
        version, told = self.versions[place], self.start(place, "idle", now_ns, False)
        run = self.runs[told[0]]
        self.learn_from(place, run, run_ns, now_ns + int(run_ns))
        version.running -= 1
        version.expected_rows = 0
        self.turns.line_up(version)
        return *told, self.let_go(run.taken.batch, [])

    def let_go(self, batch: list[Waiting], dropped: list[Waiting]) -> tuple[list[int], list[int]]:
        """(answered, failed), of a request in parts when its last part is there."""
        answered, failed = [], []
        for one in [*batch, *dropped]:
            whole = one.whole or one
            whole.broken = whole.broken or one in dropped
            whole.parts_left -= 1
            if whole.parts_left <= 0:
                (failed if whole.broken else answered).append(whole.number)
        return sorted(answered), sorted(failed)

    def learn_from(self, place: int, run: Run, run_ns: float, now_ns: int) -> None:
        if run.taken.batch:
            self.learn(place, run.taken.shape, run.taken.rows, run_ns, now_ns)
            correct_slack(self.versions[place], run.taken, run.began_ns, now_ns)

    def state(self, place: int) -> tuple[Any, ...]:
        one = self.versions[place]
        return (one.queue.rows, one.queue.work_ns, one.queue.oldest_ns, one.queue.urgent_ns, one.running, one in self.turns.due, one.served_ns,
                one.expected_rows, one.last_width, one.busy_until_ns, one.drift, one.slack_share)  # fmt: skip


def numbers(requests: list[Waiting]) -> list[int]:
    return [one.number for one in requests]


def retry_ms(verdict: str, wait_ns: float, late_ns: float, limits: Limits) -> int:
    """When to come back: when as much has been done as there was too much of."""
    if verdict == "hopeless":
        return 0
    over_ns = {"unmeetable": late_ns, "too long": wait_ns - limits.max_wait_ns, "too many": wait_ns / 2}[verdict]
    return 1 + int(over_ns / 1_000_000) if over_ns > 0 else 1000


def correct_drift(version: Version, first: Waiting, now_ns: int) -> None:
    if first.predicted_wait_ns >= DRIFT_FROM_NS:
        version.waited_ns = version.waited_ns * DRIFT_KEPT + (now_ns - first.queued_ns)
        version.predicted_ns = version.predicted_ns * DRIFT_KEPT + first.predicted_wait_ns


def correct_slack(version: Version, taken: Taken, began_ns: int, now_ns: int) -> None:
    due_ns = taken.batch[0].finish_by_ns
    late, left_ns = now_ns > due_ns, due_ns - began_ns
    if due_ns and taken.expected_ns <= left_ns and (not late or 2 * taken.expected_ns >= left_ns):
        version.slack_share = share_after(version.slack_share, late, version.limits.target)
