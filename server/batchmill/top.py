"""`batchmill top`: the versions that are asked most, refreshed like a process list."""

from __future__ import annotations

import json
import shutil
import sys
import time
from typing import Any

from batchmill.remote import asked, table

CLEAR = "\x1b[H\x1b[2J"
INTERVAL_SECS = 2.0


def run(url: str, window: str, once: bool, as_json: bool) -> int:
    """Asks and prints until Ctrl-C; once where the output is no terminal. The exit code."""
    live = not once and not as_json and sys.stdout.isatty()
    while True:
        told = asked(url, f"/admin/activity?window={window}")
        if as_json:
            print(json.dumps(told))
        else:
            print((CLEAR if live else "") + shown(told, url, shutil.get_terminal_size().lines - 4 if live else None), flush=True)
        if not live:
            return 0
        time.sleep(INTERVAL_SECS)


def shown(told: dict[str, Any], url: str, most: int | None = None) -> str:
    """most: rows that fit."""
    rows = sorted(told["versions"], key=lambda row: -row["requests_per_second"])
    rate = sum(row["requests_per_second"] for row in rows)
    title = f"{url}   versions asked in the last {told['window']}: {len(rows)}   {rate:,.1f} requests/s   {time.strftime('%H:%M:%S')}"
    head = ["MODEL", "VERSION", "REQ/S", "FAILED", "ROWS/BATCH", "WAITING", "P50", "P99", "P99.9", "QUEUE P99", "RUN P99"]
    return title + "\n\n" + table(head, [line(row) for row in rows[:most]])


def line(row: dict[str, Any]) -> list[str]:
    stages = row["stages"]

    def quantile(stage: str, name: str) -> str:
        return duration(stages[stage][name]) if stage in stages else "-"

    counts = [f"{row['requests_per_second']:,.1f}", str(row["failed"]), f"{row['rows_per_batch']:.1f}", str(row["waiting"])]
    totals = [quantile("total", name) for name in ("p50_us", "p99_us", "p99.9_us")]
    return [row["model"], row["version"], *counts, *totals, quantile("queue", "p99_us"), quantile("compute", "p99_us")]


def duration(us: float) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= size:
            return f"{us / size:.3g} {unit}"
    return f"{us:.3g} µs"
