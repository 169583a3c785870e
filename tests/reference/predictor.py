"""The slow, obvious twin of the predictor: the same points and lines, found by looking at all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from batchmill.core import policy_probe

KNOTS, WIDTHS = 16, 4 * 48
FRESH_NS = 10**9
FOURTH_ROOT_OF_2 = 1.1892071150027212


@dataclass
class Curve:
    knots: dict[int, float] = field(default_factory=dict)  # by rows
    spread: float = 0.0
    learned: int = 0
    row_ns: float = 0.0
    best_rows: int = 0
    knee_rows: int = 0
    next_rows: int = 0
    measured_ns: int = 0
    scale: float = 1.0  # of one that stands for rows of another width
    recalled: bool = False

    def expected_ns(self, rows: int) -> float:
        return self.line(rows) * self.scale

    def guarded_ns(self, rows: int) -> float:
        return self.expected_ns(rows) * (1 + 2 * self.spread)

    def is_fresh(self, now_ns: int) -> bool:
        return bool(self.knots) and not self.recalled and now_ns - self.measured_ns < FRESH_NS

    def line(self, rows: int) -> float:
        if not self.knots or rows in self.knots:
            return self.knots.get(rows, 0.0)
        below = sorted(size for size in self.knots if size < rows)
        above = sorted(size for size in self.knots if size > rows)
        if not below:
            return self.knots[above[0]]
        near = below[-1]
        if above:
            return self.knots[near] + (self.knots[above[0]] - self.knots[near]) * (rows - near) / (above[0] - near)
        slope = self.knots[near] / near
        if len(below) > 1:
            measured = (self.knots[near] - self.knots[below[-2]]) / (near - below[-2])
            slope = min(slope, max(slope / 8, measured))
        return self.knots[near] + slope * (rows - near)

    def recall(self, knots: list[float], spread: float) -> None:
        self.knots = {2**at: ns for at, ns in enumerate(knots) if ns}
        self.spread, self.learned, self.recalled = max(0.05, spread), 1, True
        self.look_for_best()

    def learn(self, rows: int, run_ns: float, now_ns: int = 0) -> None:
        run_ns = max(run_ns, 1.0)
        if rows > 2 ** (KNOTS - 1):
            run_ns, rows = run_ns * 2 ** (KNOTS - 1) / rows, 2 ** (KNOTS - 1)
        low = max(size for size in (2**at for at in range(KNOTS)) if size <= rows)
        self.spread = self.spread if self.learned else 0.25
        if self.recalled and (share := run_ns / self.expected_ns(rows)) < 0.5:
            self.knots = {size: ns * share for size, ns in self.knots.items()}
        self.recalled = False
        if rows == low and low not in self.knots:
            self.knots[low] = run_ns
        elif rows != low and not {low, 2 * low} <= set(self.knots):
            self.first_look(low, rows, run_ns)
        else:
            self.adjust(low, rows, run_ns)
        self.learned += 1
        self.measured_ns = now_ns
        self.look_for_best()

    def first_look(self, low: int, rows: int, run_ns: float) -> None:
        near, scaled = (rows - low) / low, {size: run_ns * size / rows for size in (low, 2 * low)}
        if low not in self.knots and 2 * low not in self.knots:
            self.knots.update(scaled)
        elif low not in self.knots:
            above = self.knots[2 * low]
            self.knots[low] = min(run_ns, max(scaled[low], above - (above - run_ns) / (1 - near)))
        else:
            self.knots[2 * low] = max(run_ns, min(scaled[2 * low], self.knots[low] + (run_ns - self.knots[low]) / near))

    def adjust(self, low: int, rows: int, run_ns: float) -> None:
        near = (rows - low) / low
        expected = self.knots[low] + (self.knots.get(2 * low, 0.0) - self.knots[low]) * near
        most = 4 * self.spread * expected
        error = run_ns - expected
        self.spread = max(0.05, self.spread + (min(abs(error), most) / expected - self.spread) / 16)
        step = (error / 2 if run_ns < expected / 2 else max(-most, min(most, error)) / 8) / (near * near + (1 - near) * (1 - near))
        self.knots[low] = max(1.0, self.knots[low] + step * (1 - near))
        if near:
            self.knots[2 * low] = max(1.0, self.knots[2 * low] + step * near)

    def look_for_best(self) -> None:
        costs = {size: ns / size for size, ns in self.knots.items()}
        self.row_ns = min(costs.values())
        cheapest = min(size for size in costs if costs[size] == self.row_ns)
        best = min(size for size in costs if costs[size] <= self.row_ns * 1.015)
        knees = [size for size in sorted(costs) if size <= best and self.knots[size] >= 500_000 and costs[size] <= self.row_ns * 1.0625]
        knee = knees[0] if knees else 0
        self.next_rows = 0
        if 2 * cheapest < 2**KNOTS and 2 * cheapest not in self.knots:
            self.next_rows = 2 * cheapest
        elif self.learned % 64 == 0:
            self.next_rows = 2 * knee
        self.best_rows, self.knee_rows = best, knee


def width_of(row: Sequence[int]) -> int:
    """The class of a row's elements: quarters of the octaves, which begin at 4."""
    elements = math.prod(row)
    if elements < 4:
        return elements
    octave = elements.bit_length() - 1
    return min(4 * octave + 4 * elements // 2**octave - 4, WIDTHS - 1)


def find(known: dict[int, Curve], width: int) -> Curve:
    """That of the width itself, or the nearest narrower one's scaled up, or the nearest wider one's."""
    narrower, wider = [one for one in known if one <= width], [one for one in known if one > width]
    if narrower:
        scale = 1.0
        for _ in range(width - max(narrower)):
            scale *= FOURTH_ROOT_OF_2
        curve = known[max(narrower)]
        return replace(curve, scale=scale, row_ns=curve.row_ns * scale)
    return known[min(wider)] if wider else Curve()


def curves(run_ns_by_rows: dict[int, float]) -> tuple[policy_probe.Curve, Curve]:
    """A curve and its twin that have learned the same."""
    curve, twin = policy_probe.Curve(), Curve()
    for rows, run_ns in run_ns_by_rows.items():
        curve.learn(rows, run_ns)
        twin.learn(rows, run_ns)
    return curve, twin
