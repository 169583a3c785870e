"""docs/conformance.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchmill import __version__

from .calls import CALLS
from .columns import EXPLAINED, Client

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"


@dataclass(frozen=True, slots=True)
class Result:
    """A client's cells by call; or why there are none."""

    client: Client
    cells: Mapping[str, str]
    not_run: str = ""

    def failed(self) -> list[str]:
        """What is wrong: cells that fail without an explanation, and explanations without a failure."""
        found = []
        for call, outcome in self.cells.items():
            explained = (self.client.name, call) in EXPLAINED
            if outcome in ("ok", "–"):
                found += [f"{self.client.name} {call}: {outcome}, and there is an explanation for why it fails"] if explained else []
            elif not explained:
                found.append(f"{self.client.name} {call}: {outcome}")
        return found


def mark(result: Result, call: str, notes: list[str]) -> str:
    if result.not_run:
        return "not run"
    outcome = result.cells[call]
    if outcome in ("ok", "–"):
        return {"ok": "✓", "–": "–"}[outcome]
    reason = EXPLAINED.get((result.client.name, call))
    note = f"{call}: {reason}." if reason else f"{call}, {result.client.title}: {outcome}."
    if note not in notes:
        notes.append(note)
    return f"✗ ({notes.index(note) + 1})"


def marks(text: str) -> dict[str, dict[str, str]]:
    """What a page tells: mark by call and title of the client."""
    head, _, *rows = ([cell.strip() for cell in one.strip("| ").split(" | ")] for one in text.split("\n## ")[0].splitlines() if one.startswith("|"))
    return {call: dict(zip(head[1:], (mark.split(" (")[0] for mark in found), strict=True)) for call, *found in rows}


def version_told(text: str) -> str:
    found = re.search(r"batchmill (\S+)\. Written", text)
    return found[1] if found else ""


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page(results: Sequence[Result]) -> str:
    notes: list[str] = []
    rows = [line([call, *(mark(result, call, notes) for result in results)]) for call in CALLS]
    versions = [line([result.client.title, result.not_run or result.client.version()]) for result in results]
    heads = [line(["call", *(result.client.title for result in results)]), line(["---"] * (len(results) + 1))]
    told = "\n".join(f"{number}. {note}" for number, note in enumerate(notes, 1))
    meanings = [line([call, meaning]) for call, meaning in CALLS.items()]
    return "\n".join([
        "# Clients and calls", "",
        f"What clients in several languages got of batchmill {__version__}. Written by `make conformance`.", "",
        "✓: the right answer, or the right error. –: the client, or its protocol, has no such call.", "",
        *heads, *rows, "",
        *(["## What fails", "", told, ""] if notes else []),
        "## What a ✓ says", "", line(["call", "what the client got"]), line(["---", "---"]), *meanings, "",
        "## Versions", "", line(["client", "version"]), line(["---", "---"]), *versions, "",
        "## Run it yourself", "",
        "    make conformance                                            # all; writes this page",
        '    make conformance CONFORMANCE_ARGS="--only go,curl-http2"    # some; writes nothing', "",
        "It serves `examples/registry` and small models beside it, builds the clients of [clients/](../clients) as their README says, and asks.",
        "What travels compressed goes through a relay that counts bytes. A language whose toolchain is missing is named and not run. It fails when",
        "a cell does that has no explanation here.",
        "The Python clients and curl are asked by `make test` too.", "",
    ])
