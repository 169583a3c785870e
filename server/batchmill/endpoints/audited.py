"""The audit trail over REST: a page of it, all of it, and whether it is whole. Open to all who can read anything here."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from batchmill.audit import Audit
from batchmill.chain import Head, told_time
from batchmill.endpoints.calls import JSON
from batchmill.errors import InvalidRequest
from batchmill.ledger import Wanted

NDJSON = "application/x-ndjson"
LIMIT, LIMIT_MAX = 100, 1000
_AGO = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_SECS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})", re.ASCII)


class Streamed(StreamingResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Asks for no further message, as Starlette's does: the request was whole, and here that reads as the end of its caller."""
        await self.stream_response(send)


def routes(audit: Callable[[], Audit]) -> list[Route]:
    async def page(request: Request) -> Response:
        trail = audit()
        found = await asyncio.wrap_future(trail.select(wanted(request.query_params, time.time())))
        return answer({"entries": found.entries, "head": found.head._asdict(), "state": trail.state()})

    async def export(request: Request) -> Response:
        lines = audit().export()
        first = await run_in_threadpool(next, lines)  # what fails at once is told by its status
        return Streamed(chunks(first, lines), 200, {"content-disposition": 'attachment; filename="audit.jsonl"'}, NDJSON)

    async def verify(request: Request) -> Response:
        trail = audit()
        verdict = await run_in_threadpool(trail.verify, *noted(request.query_params.get("head", "")))
        return answer({"head": verdict.head._asdict(), "broken": verdict.broken, "reason": verdict.problem, "state": trail.state()})

    return [Route("/admin/audit", page), Route("/admin/audit/export", export), Route("/admin/audit/verify", verify)]


def answer(content: Any) -> Response:
    return Response(orjson.dumps(content), 200, {"cache-control": "no-cache"}, JSON)


def chunks(first: str, lines: Iterator[str]) -> Iterator[str]:
    """On threads: many lines at once, as each step of an answer costs more than a line."""
    part = [first]
    for line in lines:
        part.append(line)
        if len(part) >= LIMIT:
            yield "".join(part)
            part = []
    if part:
        yield "".join(part)


def wanted(query: Any, now: float) -> Wanted:
    """now: seconds since 1970."""
    newest = number(query, "limit", LIMIT)
    if not 1 <= newest <= LIMIT_MAX:
        raise InvalidRequest(f"limit: {newest} given, 1 to {LIMIT_MAX} wanted")
    return Wanted(query.get("model", ""), query.get("action", ""), since(query.get("since", ""), now), number(query, "before", 0), newest)


def number(query: Any, name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidRequest(f"{name}: {text[:40]!r} given, a whole number wanted")
    return int(text)


def since(text: str, now: float) -> str:
    """As entries tell their time. text: ISO 8601, in UTC where it says nothing else, or a time ago such as 90s, 15m, 2h, 7d; empty: ever."""
    if not text:
        return ""
    try:
        if ago := _AGO.fullmatch(text):
            at = now - int(ago[1]) * _SECS[ago[2]]
        else:
            given = datetime.fromisoformat(text)
            at = (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
        return told_time(max(0, int(at * 1000)))
    except (ValueError, OverflowError):
        raise InvalidRequest(f"since: {text[:40]!r} given, a time such as 2026-01-31T12:00 or a time ago such as 2h wanted") from None


def noted(text: str) -> list[Head]:
    """A head that was seen before, as SEQ:HASH."""
    if not text:
        return []
    if not (found := _HEAD.fullmatch(text)):
        raise InvalidRequest(f"head: {text[:100]!r} given, SEQ:HASH wanted")
    return [Head(int(found[1]), found[2])]
