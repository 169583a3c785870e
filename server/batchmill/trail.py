"""`batchmill audit`: who has changed what on a running server; whether that trail is whole; and a copy of it, which can be verified alone."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from batchmill.chain import Head, Verdict, verified_export
from batchmill.errors import UsageError
from batchmill.remote import asked, saved, table

_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})", re.ASCII)
CHANGE_WIDTH = 80  # characters of from and to in the table; --json has all


def act(*, verified: str | None, exported: str | None, head: str, url: str, as_json: bool, **wanted: str | int | None) -> int:
    """What the flags ask for; the exit code. verified, exported: a file, or None; verified may be empty: on the server. wanted: of show()."""
    acts = verified is not None, exported is not None, any(value is not None for value in wanted.values())
    if sum(acts) > 1:
        raise UsageError("--verify and --export are of the whole trail: no other flags beside them")
    if head and verified is None:
        raise UsageError("--head is for --verify")
    if verified is not None:
        return verify(url, verified, head, as_json)
    if exported is not None:
        return export(url, exported, as_json)
    return show(url, wanted, as_json)


def show(url: str, wanted: dict[str, str | int | None], as_json: bool) -> int:
    """Asks and prints the newest last, as a log is read; the exit code."""
    answer = asked(url, f"/admin/audit?{urlencode({name: value for name, value in wanted.items() if value is not None})}")
    if as_json:
        print(json.dumps(answer))
        return 0
    print(shown(answer["entries"][::-1]))
    if complaint := complaint_of(answer["state"]):
        print(complaint, file=sys.stderr)
    return 0


def verify(url: str, file: str, head: str, as_json: bool) -> int:
    """Of the server's trail, or of an exported file; the exit code is 1 when it is not whole. head: SEQ:HASH; empty: none is known."""
    if file:
        return told(verdict_of(Path(file), noted(head)), as_json)
    noted(head)
    answer = asked(url, f"/admin/audit/verify{f'?head={head}' if head else ''}")
    return told(Verdict(Head(**answer["head"]), answer["broken"], answer["reason"]), as_json)


def export(url: str, file: str, as_json: bool) -> int:
    """Written aside, verified, and put in its place; as it comes to standard output (-)."""
    if file == "-":
        saved(url, "/admin/audit/export", sys.stdout.buffer.write)
        return 0
    path = Path(file)
    aside = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        with aside.open("wb") as target:
            saved(url, "/admin/audit/export", target.write)
        verdict = verdict_of(aside, [])
        aside.rename(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)
    return told(verdict, as_json)


def verdict_of(path: Path, heads: list[Head]) -> Verdict:
    try:
        with path.open("rb") as lines:
            return verified_export(lines, *heads)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None


def noted(text: str) -> list[Head]:
    if not text:
        return []
    if not (found := _HEAD.fullmatch(text)):
        raise UsageError(f"--head: {text!r} given, SEQ:HASH wanted")
    return [Head(int(found[1]), found[2])]


def told(verdict: Verdict, as_json: bool) -> int:
    head = f"{verdict.head.seq}:{verdict.head.hash}"
    if as_json:
        print(json.dumps({"head": verdict.head._asdict(), "broken": verdict.broken, "reason": verdict.problem}))
    elif verdict.broken is None:
        print(f"whole: {verdict.head.seq} entries, head {head}")
    else:
        print(f"broken at entry {verdict.broken}: {verdict.problem}; whole up to {head}")
    return 0 if verdict.broken is None else 1


def complaint_of(state: dict[str, Any]) -> str:
    """What who reads a trail has to know of it."""
    problems = ["it is in memory alone, and ends with the server"] * (state["kept"] == "memory")
    problems += [f"{state['waiting']} entries wait to be written"] * bool(state["waiting"])
    problems += [f"{state['lost']} entries were lost"] * bool(state["lost"])
    problems += [state["problem"]] if state["problem"] else []
    checked = state["verified"]
    problems += [f"entry {checked['broken']} is not as it was written: {checked['reason']}"] if checked and checked["broken"] is not None else []
    return f"audit trail: {'; '.join(problems)}" if problems else ""


def shown(entries: list[dict[str, Any]]) -> str:
    return table(["SEQ", "AT", "ACTOR", "ACTION", "MODEL", "VERSION", "OUTCOME", "CHANGE", "REASON"], [row(entry) for entry in entries])


def row(entry: dict[str, Any]) -> list[str]:
    actor = entry["actor"] + " (key)" * entry["key"]
    names = (entry["model"] or "-", entry["version"] or "-")
    return [line(one) for one in (str(entry["seq"]), entry["at"], actor, entry["action"], *names, entry["outcome"], change(entry), entry["reason"])]


def change(entry: dict[str, Any]) -> str:
    """By key: from -> to, or what it is where nothing was before."""
    before, after = (one if isinstance(one, dict) else {} if one is None else {"": one} for one in (entry["before"], entry["after"]))
    told = [f"{key}: " * bool(key) + (f"{value(before[key])} -> " if key in before else "") + value(after.get(key)) for key in {**before, **after}]
    text = ", ".join(told)
    return (text if len(text) <= CHANGE_WIDTH else f"{text[: CHANGE_WIDTH - 3]}...") or "-"


def value(one: Any) -> str:
    return "-" if one is None else one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)


def line(text: str) -> str:
    """On one line, and nothing that a terminal would act on: a caller may have chosen it."""
    return "".join(char if char.isprintable() else "?" for char in text)
