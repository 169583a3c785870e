"""The slow, obvious twin of the HTTP/1.1 reader: regular expressions over the whole stream."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(%s) (/[\x21-\x7e]*) HTTP/1\.([01])" % TOKEN)
FIELD_LINE = re.compile(rb"(%s):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*" % TOKEN)
QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
CHUNK_LINE = re.compile(rb"([0-9a-fA-F]{1,15})(?:;%s(?:=(?:%s|%s))?)*" % (TOKEN, TOKEN, QUOTED))
CHUNK_LINE_BYTES = 256
LINES_MAX = 100


class Refused(Exception):
    """What was given can never become a request."""


class Unfinished(Exception):
    """More bytes are wanted."""


@dataclass
class Request:
    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


@dataclass
class Stream:
    data: bytes
    max_body_bytes: int = 1 << 20
    max_header_bytes: int = 32 << 10
    at: int = 0
    head_bytes: int = 0
    requests: list[Request] = field(default_factory=list)

    def line(self, limit: int) -> bytes:
        """The next line without its end."""
        end = self.data.find(b"\n", self.at)
        taken = (len(self.data) if end < 0 else end + 1) - self.at
        if taken > limit:
            raise Refused
        if end < 0:
            raise Unfinished
        line = self.data[self.at : end]
        if not line.endswith(b"\r"):
            raise Refused
        self.at = end + 1
        return line[:-1]

    def head_line(self) -> bytes:
        start = self.at
        line = self.line(self.max_header_bytes - self.head_bytes)
        self.head_bytes += self.at - start
        return line

    def take(self, count: int) -> bytes:
        if len(self.data) - self.at < count:
            raise Unfinished
        self.at += count
        return self.data[self.at - count : self.at]

    def request(self) -> bool:
        """Reads one request; whether another may follow."""
        self.head_bytes = 0
        line = self.head_line()
        while line == b"" and self.head_bytes <= 4:
            line = self.head_line()
        start = REQUEST_LINE.fullmatch(line)
        if not start:
            raise Refused
        old = start[3] == b"0"
        request = Request(start[1], start[2], [])
        while line := self.head_line():
            found = FIELD_LINE.fullmatch(line)
            if not found or len(request.headers) == LINES_MAX:
                raise Refused
            request.headers.append((found[1].lower(), found[2]))
            self.check(request, old, whole=False)
        self.check(request, old, whole=True)
        request.body = self.chunked_body() if request.all(b"transfer-encoding") else self.sized_body(request)
        self.requests.append(request)
        words = [word.strip(b" \t").lower() for value in request.all(b"connection") for word in value.split(b",")]
        return b"close" not in words and (not old or b"keep-alive" in words)

    def check(self, request: Request, old: bool, *, whole: bool) -> None:
        lengths, codings, hosts = (request.all(name) for name in (b"content-length", b"transfer-encoding", b"host"))
        wrong = [
            len(lengths) > 1,
            any(not re.fullmatch(rb"[0-9]{1,18}", value) for value in lengths),
            len(codings) > 1,
            any(value.lower() != b"chunked" for value in codings),
            bool(codings) and old,
            len(hosts) > 1,
            any(value.lower() != b"100-continue" for value in request.all(b"expect")),
            whole and bool(lengths) and bool(codings),
            whole and not hosts and not old,
            whole and bool(lengths) and int(lengths[0]) > self.max_body_bytes,
        ]
        if any(wrong):
            raise Refused

    def sized_body(self, request: Request) -> bytes:
        lengths = request.all(b"content-length")
        return self.take(int(lengths[0])) if lengths else b""

    def chunked_body(self) -> bytes:
        body = b""
        while True:
            found = CHUNK_LINE.fullmatch(self.line(CHUNK_LINE_BYTES))
            if not found or int(found[1], 16) > self.max_body_bytes - len(body):
                raise Refused
            if int(found[1], 16) == 0:
                break
            body += self.take(int(found[1], 16))
            if self.line(CHUNK_LINE_BYTES):
                raise Refused
        while line := self.head_line():
            found = FIELD_LINE.fullmatch(line)
            if not found or found[1].lower() in (b"content-length", b"transfer-encoding", b"connection"):
                raise Refused
        return body


def read(data: bytes, **limits: int) -> tuple[list[Request], bool]:
    """The whole requests of a stream, and whether what follows them is refused. Bytes after Connection: close are not read."""
    stream = Stream(data, **limits)
    try:
        while stream.request():
            pass
    except Refused:
        return stream.requests, True
    except Unfinished:
        pass
    return stream.requests, False
