"""The slow, obvious twins of the queue, and of the router's two questions: who gets a request, and does it fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from reference import admission, batcher
from reference.admission import Terms
from reference.predictor import Curve

HORIZON_NS, PRIORITY_STEP_NS, SKIPS = 2 * 10**9, 10**8, 8
SWEEP_NS = 10**6


def earlier(*times: int) -> int:
    """Of points in time, of which 0 is none."""
    return min((one for one in times if one), default=0)


def left(until_ns: int, now_ns: int) -> int:
    return max(1, until_ns - now_ns) if until_ns else 0


def slack_of(first: Waiting, curve: Curve, share: float, now_ns: int) -> float:
    """For how long its batch may run: at least a run of its own, if there is time for that."""
    left_ns, alone_ns = left(first.finish_by_ns, now_ns), curve.guarded_ns(first.counted)
    if not left_ns:
        return -1
    return max(left_ns * share, alone_ns) if alone_ns <= left_ns else left_ns * share


@dataclass(eq=False)
class Waiting:
    number: int
    rows: int
    shape: tuple[int, ...]
    queued_ns: int
    deadline_ns: int  # until its run starts
    priority: int = 0
    answer_by_ns: int = 0
    objective_ns: int = 0
    cancelled: bool = False
    urgency_ns: int = 0
    cost_ns: int = 0
    predicted_wait_ns: int = 0  # without drift
    whole: Waiting | None = None  # of a part: whose
    place: int = 0  # of a part: which it is
    parts_left: int = 0  # of a whole
    broken: bool = False

    def is_dead(self, now_ns: int) -> bool:
        return self.is_cancelled or 0 < self.deadline_ns <= now_ns

    def part(self, place: int, rows: int) -> Waiting:
        return replace(self, rows=rows, whole=self, place=place, cost_ns=0, predicted_wait_ns=0)

    @property
    def is_cancelled(self) -> bool:
        return self.cancelled or (self.whole is not None and (self.whole.cancelled or self.whole.broken))

    @property
    def order(self) -> tuple[int, int, int]:
        """The least is the most urgent."""
        return self.urgency_ns, self.number, self.place

    def is_like(self, other: Waiting) -> bool:
        return (self.shape, self.rows == 0) == (other.shape, other.rows == 0)

    @property
    def counted(self) -> int:
        return max(1, self.rows)

    @property
    def finish_by_ns(self) -> int:
        return earlier(self.answer_by_ns, self.objective_ns)


@dataclass
class Rules:
    max_batch_size: int
    curve_of: Callable[[Waiting], Curve]
    preferred: Sequence[int] = ()
    slack_share: float = 1.0
    turn_ns: float = -1.0


@dataclass
class Taken:
    batch: list[Waiting]
    reason: str
    dropped: list[Waiting]
    expected_ns: float = 0.0

    @property
    def rows(self) -> int:
        return sum(one.counted for one in self.batch)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the rows that were looked at last."""
        return self.batch[0].shape if self.batch else self.dropped[-1].shape


@dataclass
class Queue:
    max_rows: int
    priority_levels: int = 0
    default_priority: int = 0
    delays: bool = False
    waiting: list[Waiting] = field(default_factory=list)  # by arrival
    dropped: list[Waiting] = field(default_factory=list)
    swept_ns: int = 0

    @property
    def rows(self) -> int:
        return sum(one.counted for one in self.waiting)

    @property
    def work_ns(self) -> int:
        return sum(one.cost_ns for one in self.waiting)

    @property
    def oldest_ns(self) -> int:
        return min((one.queued_ns for one in self.waiting), default=0)

    @property
    def urgent_ns(self) -> int:
        return min((one.urgency_ns for one in self.waiting), default=0)

    def urgency_of(self, one: Waiting) -> int:
        due = earlier(one.deadline_ns, one.objective_ns)
        level = one.priority if 1 <= one.priority <= self.priority_levels else self.default_priority
        return (due or one.queued_ns + HORIZON_NS) + (level * PRIORITY_STEP_NS if self.priority_levels else 0)

    def put(self, one: Waiting, terms: Terms, now_ns: int, most: int = 0) -> tuple[str, float, float]:
        """(verdict, predicted wait, predicted run). most: rows of a part; 0: it is not split."""
        one.urgency_ns = self.urgency_of(one)
        if self.rows + one.counted > self.max_rows and now_ns - self.swept_ns > SWEEP_NS:
            self.drop_dead(now_ns)
        for other in self.waiting:
            other.cost_ns = other.cost_ns or int(terms.row_ns * other.counted)
        ahead = [other for other in self.waiting if other.urgency_ns <= one.urgency_ns]
        alike = sum(other.counted for other in ahead if other.is_like(one))
        rows_ahead, most_rows, row_ns = sum(other.counted for other in ahead), *self.narrowed(ahead, one, terms, now_ns)
        ahead_ns = sum(other.cost_ns for other in ahead) * (row_ns / terms.row_ns if terms.row_ns else 1)
        verdict, wait_ns, run_ns = admission.judge(
            terms.curve, one.counted, rows_ahead, alike, ahead_ns, most_rows, terms.parallel,
            terms.busy_ns, terms.drift, terms.max_wait_ns, 0 if self.delays else left(one.deadline_ns, now_ns), left(one.answer_by_ns, now_ns),
            left(one.objective_ns, now_ns), terms.curve.is_fresh(now_ns), row_ns,
        )  # fmt: skip
        if self.waiting and self.rows + one.counted > self.max_rows:
            verdict = "too many"
        if verdict == "taken":
            one.predicted_wait_ns = int(wait_ns / terms.drift + 0.5)
            parts = [one]
            if 0 < most < one.rows:
                parts = [one.part(first, min(most, one.rows - first)) for first in range(0, one.rows, most)]
                one.parts_left = len(parts)
            for part in parts:
                part.cost_ns = int(terms.row_ns * part.counted)
            self.waiting += parts
        return verdict, wait_ns, run_ns

    def narrowed(self, ahead: list[Waiting], one: Waiting, terms: Terms, now_ns: int) -> tuple[int, float]:
        """Rows of a batch and what one costs, as far as the most urgent has time."""
        most, curve = min(sum(other.counted for other in ahead) + one.counted, terms.most_rows), terms.curve
        slack_ns = slack_of(self.most_urgent(self.waiting), curve, terms.slack_share, now_ns) if self.waiting and terms.row_ns else -1
        if slack_ns < 0 or curve.guarded_ns(most) <= slack_ns:
            return terms.most_rows, terms.row_ns
        most = batcher.first_that_does_not_fit(curve, most, slack_ns) - 1
        return (most, max(terms.row_ns, curve.expected_ns(most) / most)) if most else (terms.most_rows, terms.row_ns)

    def drop(self, one: Waiting, now_ns: int) -> None:
        self.waiting.remove(one)
        if self.delays and not one.is_cancelled and one.deadline_ns != one.answer_by_ns:
            one.deadline_ns = one.answer_by_ns
            one.urgency_ns = earlier(one.answer_by_ns, now_ns + HORIZON_NS)
            self.waiting.append(one)
        else:
            self.dropped.append(one)

    def drop_dead(self, now_ns: int) -> None:
        self.swept_ns = now_ns
        while dead := [one for one in self.waiting if one.is_dead(now_ns)]:
            self.drop(dead[0], now_ns)

    def sweep(self, now_ns: int) -> list[Waiting]:
        self.drop_dead(now_ns)
        return self.hand_out()

    def hand_out(self) -> list[Waiting]:
        found, self.dropped = self.dropped, []
        return found

    def most_urgent(self, among: Sequence[Waiting]) -> Waiting:
        return min(among, key=lambda one: one.order)

    def top(self, rules: Rules, now_ns: int) -> Waiting | None:
        """The most urgent that is alive and can be answered in time."""
        while self.waiting:
            one = self.most_urgent(self.waiting)
            curve = rules.curve_of(one)
            run_ns = curve.guarded_ns(one.counted) if len(self.waiting) > 1 else curve.expected_ns(one.counted)
            too_late = one.answer_by_ns and curve.is_fresh(now_ns) and now_ns + int(run_ns) > one.answer_by_ns
            if not one.is_dead(now_ns) and not too_late:
                return one
            self.drop(one, now_ns)
        return None

    def take(self, rules: Rules, now_ns: int) -> Taken:
        """The most urgent, and of its shape those that come next and fit, past a few that do not."""
        first = self.top(rules, now_ns)
        if first is None:
            return Taken([], "idle", self.hand_out())
        curve, waiting_rows = rules.curve_of(first), sum(one.counted for one in self.waiting if one.is_like(first))
        slack_ns = slack_of(first, curve, rules.slack_share, now_ns)
        most, reason = batcher.size_of(curve, waiting_rows, rules.max_batch_size, rules.preferred, slack_ns, rules.turn_ns)
        batch = self.fill(first, most, now_ns)
        reason = "shape" if reason == "idle" and any(not one.is_like(first) for one in self.waiting) else reason
        taken = Taken(batch, reason, self.hand_out())
        taken.expected_ns = curve.expected_ns(taken.rows)
        return taken

    def fill(self, first: Waiting, most: int, now_ns: int) -> list[Waiting]:
        batch: list[Waiting] = []
        skipped: list[Waiting] = []
        while len(skipped) < SKIPS:
            others = [one for one in self.waiting if one not in skipped and one.is_like(first)]
            filled = sum(one.counted for one in batch)
            if not others or filled >= most:
                break
            one = self.most_urgent(others)
            if one.is_dead(now_ns):
                self.drop(one, now_ns)
            elif not batch or (one.rows and filled + one.counted <= most):
                batch.append(one)
                self.waiting.remove(one)
            elif not one.rows:
                break
            else:
                skipped.append(one)
        return batch


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
