"""`batchmill quality`: how right a model's versions turned out to be, and which is better."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from batchmill.remote import asked, table


def run(model: str, generation: int | None, url: str, as_json: bool) -> int:
    """Asks and prints; the exit code. generation: of the route, that is compared; None: the last with two versions."""
    answer = asked(url, f"/admin/models/{quote(model, safe='')}/quality" + (f"?generation={generation}" if generation is not None else ""))
    print(json.dumps(answer) if as_json else shown(answer))
    return 0


def shown(told: dict[str, Any]) -> str:
    if not told["versions"]:
        hint = "" if told["feedback"] else f"; `batchmill tune {told['model']} feedback=true` has its answers carry tokens"
        return f"nothing was told of the answers of {told['model']} yet{hint}"
    head = ["VERSION", "ROUTE", "JUDGED", "ACCURACY", "BETWEEN", "REWARDS", "MEAN", "BETWEEN"]
    lines = [table(head, [line(row) for row in told["versions"]])]
    verdicts = [one["text"] + (f"; {one['note']}" if "note" in one else "") for one in told["verdicts"]]
    if verdicts:
        lines += ["", f"by what was answered in route generation {told['compared_generation']}:", *verdicts]
    if told["rejected"]:
        lines += ["", "rejected: " + ", ".join(f"{count} {reason}" for reason, count in sorted(told["rejected"].items()))]
    return "\n".join(lines)


def line(row: dict[str, Any]) -> list[str]:
    return [row["version"], str(row["generation"]), str(row["judged"]), number(row["accuracy"]), between(row["accuracy_interval"]),
            str(row["rewards"]), number(row["reward"]), between(row["reward_interval"])]  # fmt: skip


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def between(interval: list[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"
