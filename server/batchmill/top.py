"""`batchmill top`: the versions that are asked most, refreshed like a process list."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import Any

from batchmill.remote import asked, table

CLEAR = "\x1b[H\x1b[2J"
INTERVAL_SECS = 2.0
HEAD = ["MODEL", "VERSION", "REQ/S", "FAILED", "ROWS/BATCH", "WAITING", "P50", "P99", "P99.9", "QUEUE P99", "RUN P99"]
ENDLESS = os.terminal_size((10_000, 10_000))
OPTIONAL = ("QUEUE P99", "RUN P99", "P99.9", "ROWS/BATCH", "WAITING", "P50")


def run(url: str, window: str, once: bool, as_json: bool) -> int:
    """Asks and prints until Ctrl-C; once where the output is no terminal. The exit code."""
    live = not once and not as_json and sys.stdout.isatty()
    while True:
        told = asked(url, f"/admin/activity?window={window}")
        if as_json:
            print(json.dumps(told))
        else:
            print(CLEAR + shown(told, url, shutil.get_terminal_size()) if live else shown(told, url), flush=True)
        if not live:
            return 0
        time.sleep(INTERVAL_SECS)


def shown(told: dict[str, Any], url: str, size: os.terminal_size = ENDLESS) -> str:
    """What does not fit is left out: rows asked least, columns in the order of OPTIONAL, and then the ends of lines."""
    rows = sorted(told["versions"], key=lambda row: -row["requests_per_second"])
    rate = sum(row["requests_per_second"] for row in rows)
    title = f"{url}   versions asked in the last {told['window']}: {len(rows)}   {rate:,.1f} requests/s   {time.strftime('%H:%M:%S')}"
    cells = [HEAD, *map(line, rows[: max(1, size.lines - 4)])]
    lines = table(cells[0], cells[1:]).splitlines()
    for name in OPTIONAL:
        if max(map(len, lines)) <= size.columns:
            break
        at = cells[0].index(name)
        cells = [[*row[:at], *row[at + 1 :]] for row in cells]
        lines = table(cells[0], cells[1:]).splitlines()
    return "\n".join(text[: size.columns] for text in (title, "", *lines))


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
