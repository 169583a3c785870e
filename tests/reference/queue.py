"""The slow, obvious twins of the queue, and of the router's two questions: who gets a request, and does it fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

HORIZON_NS, PRIORITY_STEP_NS, SKIPS = 2 * 10**9, 10**8, 8
SWEEP_NS, FRESH_NS, FIRST_SPREAD = 10**6, 10**9, 0.25


@dataclass
class Waiting:
    number: int
    rows: int
    shape: tuple[int, ...]
    queued_ns: int
    deadline_ns: int
    urgency_ns: int
    answer_by_ns: int = 0
    cancelled: bool = False

    def is_dead(self, now_ns: int) -> bool:
        return self.cancelled or 0 < self.deadline_ns <= now_ns

    @property
    def counted(self) -> int:
        return max(1, self.rows)


@dataclass
class Queue:
    max_rows: int
    priority_levels: int = 0
    default_priority: int = 0
    delays: bool = False
    row_ns: int = 0
    max_wait_ns: int = 0
    waiting: list[Waiting] = field(default_factory=list)  # by arrival
    dropped: list[Waiting] = field(default_factory=list)
    swept_ns: int = 0
    mixed: bool = False  # some urgency is not by arrival alone: until the queue is empty, who is more urgent is counted one by one

    @property
    def rows(self) -> int:
        return sum(one.counted for one in self.waiting)

    @property
    def work_ns(self) -> int:
        return self.rows * self.row_ns

    @property
    def oldest_ns(self) -> int:
        return min((one.queued_ns for one in self.waiting), default=0)

    @property
    def urgent_ns(self) -> int:
        return min((one.urgency_ns for one in self.waiting), default=0)

    def put(
        self, number: int, rows: int, shape: tuple[int, ...], queued_ns: int, deadline_ns: int, priority: int = 0, answer_by_ns: int = 0, now_ns: int = 0
    ) -> str:
        """What every row of a run costs is row_ns, whatever its size: batches of one row say all there is to say."""
        level = priority if 1 <= priority <= self.priority_levels else self.default_priority
        urgency_ns = (deadline_ns or queued_ns + HORIZON_NS) + (level * PRIORITY_STEP_NS if self.priority_levels else 0)
        one = Waiting(number, rows, shape, queued_ns, deadline_ns, urgency_ns, answer_by_ns)
        self.mixed = self.mixed or deadline_ns > 0 or self.priority_levels > 0
        if self.rows + one.counted > self.max_rows and now_ns - self.swept_ns > SWEEP_NS:
            self.drop_dead(now_ns)
        wait_ns = sum(other.counted for other in self.waiting if not self.mixed or other.urgency_ns <= urgency_ns) * self.row_ns
        latest_ns = 1.25 * wait_ns
        ends_ns = latest_ns + one.counted * self.row_ns * (1 + 2 * FIRST_SPREAD if wait_ns else 1)
        if self.waiting and self.rows + one.counted > self.max_rows:
            return "too many"
        if not wait_ns and not (self.row_ns and now_ns < FRESH_NS):
            self.waiting.append(one)
            return "taken"
        if answer_by_ns and one.counted * self.row_ns > max(1, answer_by_ns - now_ns):
            return "hopeless"
        if self.max_wait_ns and wait_ns > self.max_wait_ns:
            return "too long"
        late = (deadline_ns and latest_ns > max(1, deadline_ns - now_ns)) or (answer_by_ns and ends_ns > max(1, answer_by_ns - now_ns))
        if late:
            return "unmeetable"
        self.waiting.append(one)
        return "taken"

    def cancel(self, number: int) -> None:
        next(one for one in self.waiting if one.number == number).cancelled = True

    def drop(self, one: Waiting, now_ns: int) -> None:
        self.waiting.remove(one)
        if self.delays and not one.cancelled and one.deadline_ns != one.answer_by_ns:
            one.deadline_ns = one.answer_by_ns
            one.urgency_ns = min(now_ns + HORIZON_NS, one.answer_by_ns or now_ns + HORIZON_NS)
            self.mixed = True
            self.waiting.append(one)
        else:
            self.dropped.append(one)

    def drop_dead(self, now_ns: int) -> None:
        self.swept_ns = now_ns
        while dead := [one for one in self.waiting if one.is_dead(now_ns)]:
            self.drop(dead[0], now_ns)
        self.mixed = self.mixed and bool(self.waiting)

    def sweep(self, now_ns: int) -> list[int]:
        self.drop_dead(now_ns)
        return self.hand_out()

    def hand_out(self) -> list[int]:
        numbers = sorted(one.number for one in self.dropped)
        self.dropped = []
        self.mixed = self.mixed and bool(self.waiting)
        return numbers

    def is_too_late(self, one: Waiting, now_ns: int) -> bool:
        run_ns = one.counted * self.row_ns * (1 + 2 * FIRST_SPREAD if len(self.waiting) > 1 else 1)
        return bool(one.answer_by_ns and self.row_ns and now_ns < FRESH_NS and now_ns + int(run_ns) > one.answer_by_ns)

    def top(self, now_ns: int) -> Waiting | None:
        """The most urgent that is alive and can be answered in time."""
        while self.waiting:
            one = min(self.waiting, key=lambda one: (one.urgency_ns, one.number))
            if not one.is_dead(now_ns) and not self.is_too_late(one, now_ns):
                return one
            self.drop(one, now_ns)
        return None

    def take(self, max_rows: int, now_ns: int) -> tuple[list[int], int, str, list[int]]:
        """The most urgent, and of its shape those that come next and fit, past a few that do not."""
        first = self.top(now_ns)
        if first is None:
            return [], 0, "idle", self.hand_out()
        alike = [one for one in self.waiting if (one.shape, one.rows == 0) == (first.shape, first.rows == 0)]
        waiting_rows = sum(one.counted for one in alike)
        reason = "full" if waiting_rows >= max_rows else "idle"
        if first.answer_by_ns and self.row_ns:
            fits = int(max(1, first.answer_by_ns - now_ns) / (self.row_ns * (1 + 2 * FIRST_SPREAD)))
            if 0 < fits < min(waiting_rows, max_rows):
                max_rows, reason = fits, "deadline"
        batch: list[Waiting] = []
        skipped: list[Waiting] = []
        while len(skipped) < SKIPS:
            left = [one for one in self.waiting if one not in skipped and (one.shape, one.rows == 0) == (first.shape, first.rows == 0)]
            filled = sum(one.counted for one in batch)
            if not left or filled >= max_rows:
                break
            one = min(left, key=lambda one: (one.urgency_ns, one.number))
            if one.is_dead(now_ns):
                self.drop(one, now_ns)
            elif not batch or (one.rows and filled + one.counted <= max_rows):
                batch.append(one)
                self.waiting.remove(one)
            elif not one.rows:
                break
            else:
                skipped.append(one)
        others = [one for one in self.waiting if (one.shape, one.rows == 0) != (first.shape, first.rows == 0)]
        reason = "shape" if reason == "idle" and others else reason
        return [one.number for one in batch], sum(one.counted for one in batch), reason, self.hand_out()


def pick(routes, model: bytes, version: bytes, label: bytes) -> bytes | None:
    """None: nobody. The last route of a name counts."""
    known = {name: (versions, standard, labels) for name, versions, standard, labels in routes}
    if model not in known and b"@" in model and not label:
        model, label = model.rsplit(b"@", 1)
    if model not in known:
        return None
    versions, standard, labels = known[model]
    if version:
        return version if version in versions else None
    if label:
        return labels[label] if labels.get(label) in versions else None
    return standard if standard in versions else None


SIZES = {b"BOOL": 1, b"INT8": 1, b"INT32": 4, b"FP32": 4, b"INT64": 8}


def fits(inputs, outputs, batched: bool, given, asked) -> tuple[int, list[bytes]] | None:
    """(rows, names in the signature's order); None: refused."""
    by_name = {name: (datatype, shape, raw) for name, datatype, shape, raw in given}
    if len(given) != len(inputs) or set(by_name) != {name for name, _, _ in inputs}:
        return None
    for name, datatype, wanted in inputs:
        got, shape, raw = by_name[name]
        if got != datatype or len(shape) != len(wanted):
            return None
        if any(size < 0 or want not in (-1, size) for size, want in zip(shape, wanted, strict=True)):
            return None
        if math.prod(shape) * SIZES[datatype] != len(raw):
            return None
    if len(set(asked)) != len(asked) or not set(asked) <= {name for name, _, _ in outputs}:
        return None
    firsts = {by_name[name][1][0] for name, _, _ in inputs} if batched else {1}
    return (firsts.pop(), [name for name, _, _ in inputs]) if len(firsts) == 1 else None
