"""What the measuring commands share at their edges: options, tables, the result file, the exit code."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnxruntime
from bounds import Promise
from load import OTHERS_MAX, Run

RESULTS = Path(__file__).resolve().parent.parent / "build" / "benchmarks"
PACKAGES = {"h2load": "nghttp2-client", "wrk": "wrk", "cc": "build-essential", "taskset": "util-linux"}


def parser(text: str | None, name: str, *, rounds: int, seconds: float) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(text or "").split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds)
    made.add_argument("--seconds", type=float, default=seconds, help="length of one run")
    made.add_argument("--attempts", type=int, default=3, help=f"runs until one in which others used less than {OTHERS_MAX:.0%}% of the machine")
    made.add_argument("--server-core", default="0", help="core of the servers, '' for any")
    made.add_argument("--client-core", default="1", help="core of the load tools, '' for any")
    made.add_argument("--markdown", action="store_true", help="print tables to paste")
    made.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", help="result file")
    made.add_argument("--check", action="store_true", help="exit code 1 when a promise is broken")
    return made


def require(*tools: str) -> None:
    absent = [tool for tool in tools if not shutil.which(tool)]
    if absent:
        sys.exit(f"not found: {', '.join(absent)} (apt-get install {' '.join(PACKAGES[tool] for tool in absent)})")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    if markdown:
        return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in (head, *rows))


def others_text(runs: Sequence[Run]) -> str:
    """The most that other processes used in a run, and in how many it was too much."""
    disturbed = sum(not run.quiet for run in runs)
    return f"{max(run.others for run in runs):.1%}" + (f" DISTURBED {disturbed}/{len(runs)}" if disturbed else "")


def progress(turn: int, server: str, point: str, run: Run, figure: str) -> None:
    mark = "" if run.quiet else "  DISTURBED"
    print(f"round {turn + 1}: {server:16s} {point:14s} {figure:>16s}   others {run.others:.1%}{mark}", file=sys.stderr, flush=True)


def promises_table(promises: Sequence[Promise], markdown: bool) -> str:
    rows = [[p.point, p.text, f"{p.got:,.2f}", f"{'≥' if p.at_least else '≤'} {p.limit:,.2f}", f"{p.got / p.limit:.2f}" if p.limit else "",
             "PASS" if p.kept else "FAIL"] for p in promises]
    return table(["point", "promise", "measured", "limit", "of the limit", ""], rows, markdown)


def machine() -> dict[str, object]:
    text = Path("/proc/cpuinfo").read_text()
    cpu = next((line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name")), platform.processor())
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(), "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__}


def finish(options: argparse.Namespace, runs: Mapping[str, Sequence[Any]], promises: Sequence[Promise]) -> int:
    """Prints the promises and writes all runs, which are dataclasses; the exit code."""
    here = machine()
    print("\n" + promises_table(promises, options.markdown))
    print("\n" + ", ".join(f"{name} {value}" for name, value in here.items()))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({
        "machine": here, "seconds": options.seconds, "runs": {name: [asdict(run) for run in some] for name, some in runs.items()},
        "promises": [{**asdict(promise), "kept": promise.kept} for promise in promises]}, indent=1) + "\n")
    return 1 if options.check and not all(promise.kept for promise in promises) else 0
