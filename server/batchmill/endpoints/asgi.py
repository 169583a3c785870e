"""A cold HTTP call as one call of an ASGI application: the request whole, the answer streamed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import unquote

import orjson

from batchmill.core.bridge import ColdCall
from batchmill.endpoints.backpressure import writable
from batchmill.endpoints.compression import LIMIT_BYTES, plain
from batchmill.errors import BadCompression, BatchmillError, InternalError, ShuttingDown, TooLarge, UnsupportedCompression
from batchmill.logs import Log

log = Log(__name__)
PART_BYTES = 64 << 10
_SLASH = re.compile("%2f", re.IGNORECASE)
Application = Callable[[Any, Any, Any], Awaitable[None]]


def scope_of(call: ColdCall) -> dict[str, Any]:
    path, _, query = call.target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": unquote(_SLASH.sub("%252F", path)),  # which separates nothing: as in the data plane, no name has one
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": call.headers,
        "client": client_of(call.peer),
        "server": None,
        "batchmill.peer": call.peer,
    }


def client_of(peer: str) -> tuple[str, int] | None:
    """`ipv4:1.2.3.4:5` or `ipv6:[::1]:5` -> (host, port)."""
    kind, _, address = peer.partition(":")
    host, _, port = address.rpartition(":")
    return (host.strip("[]"), int(port)) if kind in ("ipv4", "ipv6") and port.isdigit() else None


async def handle(application: Application, call: ColdCall, max_body_bytes: int = LIMIT_BYTES, infer: Callable[..., Any] | None = None) -> None:
    """Runs the application for one call; the call is always finished.

    max_body_bytes: of a body that was compressed. infer: Inferences.ask, which the application finds in its scope, bound to the call.
    """
    received = False
    started = False

    async def receive() -> dict[str, Any]:
        nonlocal received
        if received:
            return {"type": "http.disconnect"}
        received = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal started
        if message["type"] == "http.response.start":
            started = True
            call.start(message["status"], list(message["headers"]))
        else:
            # In parts: the I/O thread copies each as a whole, and answers others in between.
            part = memoryview(message.get("body", b""))
            for start in range(0, len(part), PART_BYTES):
                call.write(bytes(part[start : start + PART_BYTES]))
                await writable(call)

    try:
        body = await plain(call.body, call.headers, b"content-encoding", max_body_bytes)
        await application({**scope_of(call), "batchmill.infer": partial(infer, call) if infer else None}, receive, send)
    except (BadCompression, TooLarge, UnsupportedCompression) as error:
        fail(call, error)
    except asyncio.CancelledError:  # the caller has gone, or the server's time is over
        if not started:
            refuse(call)
        raise
    except Exception:
        log.exception("application_failed", path=call.target[:200])
        if not started:
            fail(call, InternalError())
    finally:
        call.finish()


def refuse(call: ColdCall) -> None:
    fail(call, ShuttingDown(), [(b"retry-after", b"1")])
    call.finish()


def fail(call: ColdCall, error: BatchmillError, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    body = orjson.dumps({"error": str(error)})
    call.start(error.http_status, [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers])
    call.write(body)
