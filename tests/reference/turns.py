"""The slow, obvious twin of the turns: who has had least run time by weight is next; who has had about as much, by urgency."""

from __future__ import annotations

from dataclasses import dataclass, field

from reference import batcher
from reference.predictor import Curve, find, width_of
from reference.queue import Queue, Rules, Taken, Waiting

EQUAL_NS, COMPANY_NS = 200_000, 10**9


@dataclass
class Limits:
    """What may change while a version serves; names and defaults as in batchmill.core.policy_probe."""

    max_batch_size: int = 64
    max_queue_delay_ns: int = 0
    preferred: tuple[int, ...] = ()
    instances: int = 1
    weight: float = 1.0
    max_wait_ns: int = 0
    objective_ns: int = 0
    target: float = 0.99
    default_timeout_ns: int = 0
    careful_rows: int = 0  # of a batch while some requests make it fail; 0: any
    max_rows: int = 4096
    priority_levels: int = 0
    default_priority: int = 0
    delays: bool = False

    @property
    def batch(self) -> int:
        return min(self.max_batch_size, self.careful_rows) if self.careful_rows else self.max_batch_size


@dataclass(eq=False)  # two that know the same are still two
class Version:
    widths: bool  # what a row costs depends on its shape
    limits: Limits
    queue: Queue
    times: dict[int, Curve] = field(default_factory=dict)  # by width
    waited_ns: float = 20e6
    predicted_ns: float = 20e6
    slack_share: float = 1.0
    busy_until_ns: int = 0
    running: int = 0
    served_ns: float = 0.0
    last_width: int = 0
    expected_rows: int = 0
    last_ended_ns: int = 0

    @property
    def drift(self) -> float:
        return min(8.0, max(0.25, self.waited_ns / self.predicted_ns))

    def width_of(self, shape: tuple[int, ...]) -> int:
        return width_of(shape) if self.widths else 0

    def curve_of(self, one: Waiting) -> Curve:
        return find(self.times, self.width_of(one.shape))


@dataclass
class Turns:
    turn_ns: float = 20_000_000
    draining: bool = False
    due: list[Version] = field(default_factory=list)  # the last takes the place of one that leaves, which tells between equals
    served_ns: float = 0.0
    last: Version | None = None
    changed_ns: int = 0

    def line_up(self, version: Version) -> None:
        if version not in self.due and version.running < version.limits.instances and version.queue.rows:
            version.served_ns = max(version.served_ns, self.served_ns)
            self.due.append(version)

    def step_out(self, version: Version) -> None:
        if version in self.due:
            self.due[self.due.index(version)] = self.due[-1]
            self.due.pop()

    def plan_of(self, version: Version, now_ns: int) -> tuple[bool, str, int]:
        limits, rows = version.limits, version.queue.rows
        curve = find(version.times, version.last_width)
        most = batcher.most_rows(curve, rows, limits.batch, limits.preferred)
        run_ns = int(curve.expected_ns(min(version.expected_rows, most))) if version.expected_rows > 1 else 0
        start_by_ns = version.queue.urgent_ns - (int(curve.guarded_ns(min(rows, most))) if limits.max_queue_delay_ns else 0)
        return batcher.decide(rows, version.queue.oldest_ns, start_by_ns, now_ns, most, limits.max_queue_delay_ns, limits.preferred, self.draining,
                              version.expected_rows, version.last_ended_ns, run_ns)  # fmt: skip

    def next_turn(self, now_ns: int) -> tuple[Version | None, int, str]:
        """(who, when to look again, why its batch is closed)."""
        while empty := [one for one in self.due if not one.queue.rows]:
            self.step_out(empty[0])
        plans = [(one, *self.plan_of(one, now_ns)) for one in self.due]
        wait_until_ns = min((until for _, closes, _, until in plans if not closes), default=0)
        found, why = None, ""
        for one, closes, reason, _ in plans:
            if closes and (found is None or goes_before(one, found)):
                found, why = one, reason
        if found:
            self.step_out(found)
        return found, wait_until_ns, why

    def has_company(self, version: Version, now_ns: int) -> bool:
        return bool(self.due) or (self.last is not None and (self.last is not version or now_ns - self.changed_ns < COMPANY_NS))

    def rules_of(self, version: Version, shares: bool, now_ns: int) -> Rules:
        turn_ns = self.turn_ns if shares and self.turn_ns and self.has_company(version, now_ns) else -1
        return Rules(version.limits.batch, version.curve_of, version.limits.preferred, version.slack_share, turn_ns)

    def started(self, version: Version, taken: Taken, now_ns: int) -> None:
        if self.last is not version:
            self.changed_ns = now_ns if self.last else now_ns - COMPANY_NS
            self.last = version
        self.served_ns = max(self.served_ns, version.served_ns)
        version.last_width = version.width_of(taken.shape)
        version.served_ns += taken.expected_ns / version.limits.weight
        if version.running >= version.limits.instances:
            version.busy_until_ns = now_ns + int(taken.expected_ns)

    def ended(self, version: Version, taken: Taken, began_ns: int, now_ns: int) -> None:
        version.running -= 1
        version.busy_until_ns = 0
        version.served_ns += (now_ns - began_ns - taken.expected_ns) / version.limits.weight
        version.expected_rows = taken.rows + version.queue.rows if taken.rows else 0
        version.last_ended_ns = now_ns
        self.line_up(version)


def goes_before(one: Version, other: Version) -> bool:
    if abs(one.served_ns - other.served_ns) > EQUAL_NS:
        return one.served_ns < other.served_ns
    return one.queue.urgent_ns < other.queue.urgent_ns
