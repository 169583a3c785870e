"""What llhttp, the parser of Node.js, makes of a stream, and where ours may say otherwise."""

from __future__ import annotations

import re
from typing import Any

import httptools

Call = tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]  # method, target, headers, body


class Reader:
    """The whole requests of a stream, until the first error; and how it ended."""

    def __init__(self, *parts: bytes) -> None:
        self.found: list[Call] = []
        self.failed = ""
        self.parser: Any = httptools.HttpRequestParser(self)
        try:
            for part in parts:
                self.parser.feed_data(part)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.failed = f"{type(error).__name__}: {error}"

    def on_message_begin(self) -> None:
        self.body, self.target, self.head_ended = b"", b"", False
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_ended:  # trailers come here too
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.head_ended = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.found.append((self.parser.get_method(), self.target, self.headers, self.body))


METHODS = frozenset(b"""
    GET HEAD POST PUT DELETE OPTIONS TRACE PATCH COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH UNLOCK BIND REBIND UNBIND ACL REPORT
    MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE PURGE MKCALENDAR LINK UNLINK QUERY
""".split())


def difference(stream: bytes, call: Call, failed: str) -> str | None:
    """Why one reads this call, or reads it otherwise, where llhttp ended; None: there is no good reason."""
    if failed and call[0] not in METHODS:
        return "a method is any token (RFC 9110, 9.1); the application answers 405"
    if failed.startswith("HttpParserUpgrade") and re.search(rb"(?i)\nUpgrade:", stream):
        return "an Upgrade to what is not spoken here is passed over (RFC 9110, 7.8)"
    if "Data after" in failed and re.search(rb"(?i)\nProxy-Connection:", stream):
        return "Proxy-Connection is no header of HTTP (RFC 9112, appendix C.2.2)"
    if "invalid `Transfer-Encoding`" in failed and re.search(rb"(?i)\nTransfer-Encoding:[ \t]*chunked[ \t]*\t[ \t]*\r\n", stream):
        return "a tab, too, is white space around a value (RFC 9110, 5.6.3)"
    return None


def compare(stream: bytes, ours: list[Call], refused: bool, theirs: Reader | None = None) -> str | None:
    """Asserts that both frame a stream alike, or that ours refuses; gives the reason where they differ on purpose.

    ours: the requests that were read. refused: the next one was refused, or none is read any more.
    """
    theirs = theirs or Reader(stream)
    common = min(len(ours), len(theirs.found))
    if common and ours[:common] != theirs.found[:common]:  # one that llhttp cut off is its last one
        assert [*ours[: common - 1], common] == [*theirs.found[: common - 1], len(theirs.found)], (ours, theirs.found)
        call = ours[common - 1]
    elif len(ours) > common:
        call = ours[common]
    elif len(theirs.found) > common and not refused:
        call = theirs.found[common]
    else:
        return None
    reason = difference(stream, call, theirs.failed)
    assert reason, (theirs.failed, call)
    return reason
