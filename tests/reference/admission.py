"""The slow, obvious twin of admission."""

from __future__ import annotations

from dataclasses import dataclass

from reference.predictor import Curve

MARGIN = 1.25  # on a predicted wait, for those who must not wait longer


@dataclass
class Terms:
    """What is known when a request asks for a place, by batchmill.core.admission's names."""

    curve: Curve
    most_rows: int = 1
    row_ns: float = 0.0
    parallel: int = 1
    busy_ns: float = 0.0
    slack_share: float = 1.0
    drift: float = 1.0
    max_wait_ns: int = 0


def judge(
    curve: Curve, rows: int, ahead_rows: int, alike_rows: int, ahead_ns: float, most_rows: int, parallel: int, busy_ns: float, drift: float,
    max_wait_ns: int, start_by_ns: int, finish_by_ns: int, objective_ns: int, fresh: bool, row_ns: float,
) -> tuple[str, float, float]:
    """(verdict, predicted wait, predicted run). row_ns: what a row ahead costs. Whole batches run before it; the rest of those ahead that are
    of its shape are in its own.
    """
    rest = alike_rows % most_rows
    wait_ns = (max(0.0, ahead_ns - rest * row_ns) / parallel + busy_ns) * drift
    together = min(rest + rows, max(rows, most_rows))
    run_ns = curve.guarded_ns(together) if wait_ns else curve.expected_ns(together)
    if not wait_ns and not fresh:
        return "taken", wait_ns, run_ns
    if finish_by_ns and curve.expected_ns(rows) > finish_by_ns:
        return "hopeless", wait_ns, run_ns
    if max_wait_ns and wait_ns > max_wait_ns:
        return "too long", wait_ns, run_ns
    latest_start_ns = MARGIN * wait_ns
    late = (start_by_ns and latest_start_ns > start_by_ns) or (finish_by_ns and latest_start_ns + run_ns > finish_by_ns)
    late = late or (objective_ns and ahead_rows and latest_start_ns + run_ns > objective_ns)
    return "unmeetable" if late else "taken", wait_ns, run_ns
