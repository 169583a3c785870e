"""The slow, obvious twins of the queue, and of the router's two questions: who gets a request, and does it fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

HORIZON_NS, PRIORITY_STEP_NS, SKIPS = 2 * 10**9, 10**8, 8


@dataclass
class Waiting:
    number: int
    rows: int
    shape: tuple[int, ...]
    queued_ns: int
    deadline_ns: int
    urgency_ns: int
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
    waiting: list[Waiting] = field(default_factory=list)  # by arrival

    @property
    def rows(self) -> int:
        return sum(one.counted for one in self.waiting)

    @property
    def oldest_ns(self) -> int:
        return min((one.queued_ns for one in self.waiting), default=0)

    @property
    def urgent_ns(self) -> int:
        return min((one.urgency_ns for one in self.waiting), default=0)

    def put(self, number: int, rows: int, shape: tuple[int, ...], queued_ns: int, deadline_ns: int, priority: int = 0) -> bool:
        level = priority if 1 <= priority <= self.priority_levels else self.default_priority
        urgency_ns = (deadline_ns or queued_ns + HORIZON_NS) + (level * PRIORITY_STEP_NS if self.priority_levels else 0)
        one = Waiting(number, rows, shape, queued_ns, deadline_ns, urgency_ns)
        if self.waiting and self.rows + one.counted > self.max_rows:
            return False
        self.waiting.append(one)
        return True

    def cancel(self, number: int) -> None:
        next(one for one in self.waiting if one.number == number).cancelled = True

    def take(self, max_rows: int, now_ns: int) -> tuple[list[int], int, list[int]]:
        """The most urgent that is alive, and of its shape those that come next and fit, past a few that do not."""
        batch: list[Waiting] = []
        dropped, skipped = [], 0
        for one in sorted(self.waiting, key=lambda one: one.urgency_ns):
            filled = sum(other.counted for other in batch)
            if batch and (one.shape, one.rows == 0) != (batch[0].shape, batch[0].rows == 0):
                continue
            if filled >= max_rows or skipped == SKIPS:
                break
            if one.is_dead(now_ns):
                dropped.append(one)
            elif not batch or (one.rows and filled + one.counted <= max_rows):
                batch.append(one)
            elif not one.rows:
                break
            else:
                skipped += 1
        self.waiting = [one for one in self.waiting if one not in batch and one not in dropped]
        return [one.number for one in batch], sum(one.counted for one in batch), sorted(one.number for one in dropped)


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
