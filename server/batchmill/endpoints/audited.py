"""The audit trail by call: a page of it, all of it, and whether it is whole. Open to all who can read anything here."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import orjson
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
PART_BYTES = 64 << 10  # each step of an answer costs more than a line
_AGO = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_SECS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})", re.ASCII)


class Streamed(StreamingResponse):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Asks for no further message, as Starlette's does: the request was whole, and here that reads as the end of its caller."""
        await self.stream_response(send)


class Trail:
    """What the calls tell: one place for REST and gRPC. On the event loop; what takes long is done on threads."""

    def __init__(self, audit: Callable[[], Audit]) -> None:
        self._audit = audit

    async def page(self, wanted: Wanted) -> dict[str, Any]:
        trail = self._audit()
        found = await asyncio.wrap_future(trail.select(wanted))
        return {"entries": found.entries, "head": found.head._asdict(), "state": trail.state()}

    async def head(self) -> dict[str, Any]:
        return (await asyncio.to_thread(self._audit().head))._asdict()

    async def verify(self, head: str) -> dict[str, Any]:
        """head: one that was seen before, as SEQ:HASH; empty: none."""
        trail = self._audit()
        verdict = await asyncio.to_thread(trail.verify, *noted(head))
        return {"head": verdict.head._asdict(), "broken": verdict.broken, "reason": verdict.problem, "state": trail.state()}

    async def export(self) -> Iterator[bytes]:
        """Whole lines, many at once, which are for a thread. What fails at once fails here."""
        lines = self._audit().export()
        first = await asyncio.to_thread(next, lines)
        return chunks(chain([first], lines))


def routes(audit: Callable[[], Audit]) -> list[Route]:
    trail = Trail(audit)

    def answer(told: dict[str, Any]) -> Response:
        return Response(orjson.dumps(told), 200, {"cache-control": "no-cache"}, JSON)

    async def page(request: Request) -> Response:
        query = request.query_params
        texts = query.get("model", ""), query.get("action", ""), query.get("since", "")
        return answer(await trail.page(wanted(*texts, number(query, "before", 0), number(query, "limit", LIMIT), time.time())))

    async def export(request: Request) -> Response:
        return Streamed(await trail.export(), 200, {"content-disposition": 'attachment; filename="audit.jsonl"'}, NDJSON)

    async def verify(request: Request) -> Response:
        return answer(await trail.verify(request.query_params.get("head", "")))

    return [Route("/admin/audit", page), Route("/admin/audit/export", export), Route("/admin/audit/verify", verify)]


def chunks(lines: Iterator[str]) -> Iterator[bytes]:
    """Of whole lines, PART_BYTES or a little more each."""
    part = bytearray()
    for line in lines:
        part += line.encode()
        if len(part) >= PART_BYTES:
            yield bytes(part)
            part.clear()
    if part:
        yield bytes(part)


def wanted(model: str, action: str, at: str, before: int, limit: int, now: float) -> Wanted:
    """at: see since(). now: seconds since 1970."""
    if before < 0:
        raise InvalidRequest(f"before: {before} given, a whole number wanted")
    if not 1 <= limit <= LIMIT_MAX:
        raise InvalidRequest(f"limit: {limit} given, 1 to {LIMIT_MAX} wanted")
    return Wanted(model, action, since(at, now), before, limit)


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
