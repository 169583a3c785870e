"""Audit entries as a chain: the hash of each covers the one before it, so that none can be changed, left out or put in between unseen.

An entry is a JSON object with the keys of FIELDS. Its canonical form has them sorted, no spaces, and ASCII alone. Its hash is sha256, in
hex, of the hash before it followed by its canonical form; before the first entry that is 64 zeros. A line of an export is the
canonical form with "hash" added as the last key; the last line of an export is {"head":{"hash":...,"seq":...}}.
Source: Haber and Stornetta, How to time-stamp a digital document (1991), linking.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Entry = dict[str, Any]
Outcome = Literal["ok", "refused", "failed"]
FIELDS = ("seq", "at", "actor", "key", "action", "model", "version", "before", "after", "files", "outcome", "reason")
SMALL_BYTES = 4096  # of before, and of after: a trail is no place for large things
TEXT_MAX, REASON_MAX = 300, 2000  # characters
FILES_MAX = 100  # of one version


class Head(NamedTuple):
    """The last entry so far: whoever has noted it can tell later whether it is still there."""

    seq: int
    hash: str


START = Head(0, "0" * 64)


@dataclass(frozen=True, slots=True)
class Event:
    """A change, or an attempt at one. actor: a caller's address, or registry, rollout, start, signal. key: whether the admin key was given.

    before, after: what JSON can say, of what was changed alone. files: sha256 by path in the model's folder. reason: why it was refused or
    failed, or why it was done. Whoever says more than the bounds above is cut short.
    """

    action: str
    model: str = ""
    version: str = ""
    actor: str = "registry"
    key: bool = False
    before: Any = None
    after: Any = None
    files: Mapping[str, str] = field(default_factory=dict)
    outcome: Outcome = "ok"
    reason: str = ""


class Verdict(NamedTuple):
    """head: the last entry up to which all is as it was written. broken: the first that is not; None: none."""

    head: Head
    broken: int | None = None
    problem: str = ""


def entry_of(event: Event, at_ms: int) -> Entry:
    """The entry of an event, but for its place in a chain. at_ms: since 1970. TypeError or ValueError: JSON cannot say it."""
    files = dict(sorted(event.files.items())[:FILES_MAX])
    return {
        "at": told_time(at_ms), "actor": text(event.actor), "key": event.key, "action": text(event.action), "model": text(event.model),
        "version": text(event.version), "before": small(event.before), "after": small(event.after), "files": plain(files) if files else {},
        "outcome": event.outcome, "reason": text(event.reason, REASON_MAX),
    }  # fmt: skip


def told_time(at_ms: int) -> str:
    """UTC. All are equally long, so that they sort as the times do."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at_ms // 1000))}.{at_ms % 1000:03}Z"


def text(value: str, most: int = TEXT_MAX) -> str:
    """A path may hold bytes that are no UTF-8."""
    return value[:most].encode(errors="backslashreplace").decode()


def plain(value: Any) -> Any:
    """A copy of what JSON can say, which is UTF-8 through and through."""
    return json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False).encode(errors="replace"))


def small(value: Any) -> Any:
    if value is None:  # as most are
        return None
    copy = plain(value)
    size = len(canonical(copy))
    return copy if size <= SMALL_BYTES else {"omitted_bytes": size}


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def hash_of(before: str, form: str) -> str:
    import hashlib  # takes 4 ms, which a start without an entry does not pay

    return hashlib.sha256((before + form).encode("ascii")).hexdigest()


def linked(entry: Entry, head: Head) -> Entry:
    """The entry in its place after head."""
    placed = {"seq": head.seq + 1, **entry}
    return {**placed, "hash": hash_of(head.hash, canonical(placed))}


def head_of(entry: Entry) -> Head:
    return Head(entry["seq"], entry["hash"])


def problem_of(entry: Entry | None, head: Head) -> str:
    """Why this cannot be the entry after head; empty: it is. None: one that could not be read."""
    if entry is None:
        return "it cannot be read, or is not in its canonical form"
    inner = {name: value for name, value in entry.items() if name != "hash"}
    if inner.get("seq") != head.seq + 1:
        return f"entry {str(inner.get('seq'))[:20]} is in its place"
    try:
        return "" if hash_of(head.hash, canonical(inner)) == entry.get("hash") else "its hash is not that of what it says, after the entry before it"
    except (TypeError, ValueError):
        return "it says what no entry can say"


def verified(entries: Iterable[Entry | None], *noted: Head, start: Head = START) -> Verdict:
    """Follows the chain from start on. noted: heads that were seen before, and have to be there still."""
    head, hashes = start, dict(noted)
    for entry in entries:
        if problem := problem_of(entry, head):
            return Verdict(head, head.seq + 1, problem)
        assert entry is not None
        if hashes.get(head.seq + 1, entry["hash"]) != entry["hash"]:
            return Verdict(head, head.seq + 1, "its hash is not the one that was noted")
        head = head_of(entry)
    if (last := max(hashes, default=0)) > head.seq:
        return Verdict(head, head.seq + 1, f"the trail ends before entry {last}, which was there")
    return Verdict(head)


def line_of(entry: Entry) -> str:
    form = canonical({name: value for name, value in entry.items() if name != "hash"})
    return f'{form[:-1]},"hash":"{entry["hash"]}"}}\n'


def last_line(head: Head) -> str:
    return canonical({"head": head._asdict()}) + "\n"


def verified_export(lines: Iterable[bytes], *noted: Head) -> Verdict:
    """The same of the lines of an export."""
    ends: list[Any] = []
    verdict = verified(entries_of(lines, ends), *noted)
    if verdict.broken is None and ends != [verdict.head._asdict()]:
        problem = f"the head of the file is {str(ends[0])[:200]}" if ends else "the file has no head at its end: it is cut short"
        return Verdict(verdict.head, verdict.head.seq + 1, problem)
    return verdict


def entries_of(lines: Iterable[bytes], ends: list[Any]) -> Iterator[Entry | None]:
    """ends: gets the head that the last line tells."""
    for line in lines:
        found = parsed(line) if not ends else None
        if found and "head" in found:
            ends.append(found["head"])
        else:
            yield found


def parsed(line: bytes) -> Entry | None:
    """None: it is not as line_of() or last_line() writes it, and readers might not agree on what it says."""
    try:
        found = json.loads(line)
        written = last_line(Head(**found["head"])) if "head" in found else line_of(found)
        return found if written.encode() == line.replace(b"\r\n", b"\n") else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
