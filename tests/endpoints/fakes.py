"""A cold call and a bridge without a data plane: they keep what they are told."""

from __future__ import annotations

import contextlib
import os

from batchmill.core.bridge import OPEN


class Call:
    def __init__(self, target="/", *, is_grpc=False, method="GET", headers=(), body=b"", deadline_ns=0):
        self.target, self.is_grpc, self.method = target, is_grpc, method
        self.headers, self.body, self.deadline_ns = list(headers), body, deadline_ns
        self.peer = "ipv4:127.0.0.1:5"
        self.cancelled = False
        self.pending = 0
        self.status = None
        self.answer_headers, self.parts, self.trailers = {}, [], None

    def start(self, status, headers):
        assert self.status is None
        self.status, self.answer_headers = status, dict(headers)

    def write(self, data):
        assert self.trailers is None
        self.parts.append(data)

    def finish(self, trailers=()):
        if self.trailers is None:
            self.trailers = dict(trailers)

    @property
    def body_sent(self):
        return b"".join(self.parts)

    @property
    def code(self):
        """gRPC's number; None while unanswered."""
        return None if self.trailers is None else int(self.trailers[b"grpc-status"])


class Bridge:
    """open() hands a call up. open_calls counts those that are not finished."""

    def __init__(self):
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.events = []
        self.calls = []

    def fileno(self):
        return self.fd

    def open(self, call):
        self.calls.append(call)
        self.push(call, OPEN)
        return call

    def push(self, call, kind, payload=None):
        self.events.append((call, kind, payload))
        os.eventfd_write(self.fd, 1)

    def take(self):
        events, self.events = self.events, []
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        return events

    @property
    def open_calls(self):
        return sum(call.trailers is None for call in self.calls)
