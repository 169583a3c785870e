"""`batchmill rollout`: a new version comes into service step by step, and goes back by itself where a gate is broken."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batchmill.errors import UsageError
from batchmill.remote import asked, changed, table


def run(action: str, model: str, version: str | None, plan: Path | None, url: str, key_file: Path | None, as_json: bool) -> int:
    """action: start, status, approve or abort."""
    path = f"/admin/models/{quote(model, safe='')}/rollout"
    if action == "start" and not version:
        raise UsageError("rollout start MODEL VERSION wanted")
    if action != "start" and (version or plan):
        raise UsageError(f"rollout {action} takes a model alone")
    if action == "start":
        answer = changed(url, path, "POST", {"version": version, **({"plan": plan_of(plan)} if plan else {})}, key_file)
    elif action == "status":
        answer = asked(url, path)
    else:
        answer = changed(url, f"{path}/{action}", "POST", None, key_file)
    print(json.dumps(answer) if as_json else shown(answer))
    return 0


def plan_of(path: Path) -> Any:
    """Checked here, so that file and line are named; the server checks it again. JSON can say all that a plan has."""
    import yaml

    from batchmill.rollout import plan_schema

    plan_schema.read(path)
    return yaml.safe_load(path.read_text()) or {}


def shown(answer: dict[str, Any]) -> str:
    waiting = [f"version {one['version']} waits: {one['reason']}" for one in answer["waiting"]]
    if answer["status"] == "none":
        return "\n".join([f"no rollout of {answer['model']} so far: the next version begins one by itself (rollout in model.yaml)", *waiting])
    at = answer["steps"].index(answer["step"])
    steps = " -> ".join(f"[{name}]" if index == at else name for index, name in enumerate(answer["steps"]))
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(answer["started_s"]))
    status = answer["status"].replace("_", " ")
    by = ", by itself" if answer["by"] == "policy" else ""
    lines = [f"version {answer['candidate']} of {answer['model']} in the place of {answer['incumbent']}: {status}, since {since}{by}", steps]
    lines += answer["reasons"]
    decision = answer["decision"]
    if decision and answer["status"] == "running":
        lines.append(f"{decision['outcome'].replace('_', ' ')}: {decision['samples']} samples in {decision['seconds']:.0f} s")
        lines += decision["reasons"]
        rows = [[gate["gate"], gate["text"].partition(": ")[2].partition("; ")[0], f"{gate['limit']:g}", gate["verdict"]]
                for gate in decision["gates"]]  # fmt: skip
        lines.append(table(["GATE", "MEASURED (MAY BE)", "LIMIT", "VERDICT"], rows))
    return "\n".join([*lines, *waiting])
