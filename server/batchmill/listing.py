"""`batchmill models`: what a running server serves, and why it does not serve the rest."""

from __future__ import annotations

import json
from typing import Any

from batchmill.remote import asked, table


def run(url: str, as_json: bool) -> int:
    """Asks and prints; the exit code."""
    rows = asked(url, "/admin/models")["models"]
    print(json.dumps(rows) if as_json else shown(rows))
    return 0


def shown(rows: list[dict[str, Any]]) -> str:
    head = ["MODEL", "VERSION", "STATE", "TRAFFIC", "BATCH", "RUNS", "MEMORY", "SHA256", "REASON"]
    return table(head, [[row["model"], row["version"] or "-", row["state"], traffic(row), batch(row), runs(row), memory(row.get("memory_bytes", 0)),
                         row.get("sha256", "")[:12] or "-", row["reason"]] for row in rows])  # fmt: skip


def traffic(row: dict[str, Any]) -> str:
    names = (["default"] if row.get("default") else []) + row.get("labels", [])
    return ",".join(names) or "-"


def batch(row: dict[str, Any]) -> str:
    return str(row["max_batch_size"]) if row.get("max_batch_size") else "-"


def runs(row: dict[str, Any]) -> str:
    """At once, times the threads of each; --json says why."""
    return f"{row['instances']}x{row['threads']}" if row.get("instances") else "-"


def memory(size: float) -> str:
    if not size:
        return "-"
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
