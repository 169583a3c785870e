"""What a handler gets of its call: Context on the event loop, BlockingContext on a thread.

Source: grpc.aio.ServicerContext and grpc.ServicerContext.
"""

from __future__ import annotations

import asyncio
import base64
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NoReturn
from urllib.parse import quote

import grpc

from batchmill.core.bridge import ColdCall
from batchmill.core.grpc import status_details
from batchmill.endpoints.backpressure import pauses, writable
from batchmill.endpoints.compression import LIMIT_BYTES, plain
from batchmill.errors import BatchmillError, InvalidRequest

Metadata = Sequence[tuple[str, str | bytes]]
_CODES = {code.value[0]: code for code in grpc.StatusCode}
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
_HOP = {"te", "content-type", "user-agent", "host", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding"}


class Aborted(Exception):
    """Raised by abort(); ends the handler."""


class Call:
    """What both contexts share. State is set by the handler and sent when the handler ends."""

    def __init__(self, call: ColdCall, serialize: Any, deserialize: Any, max_message_bytes: int = LIMIT_BYTES) -> None:
        self._call = call
        self._max_message_bytes = max_message_bytes
        self._serialize = serialize or (lambda message: message)
        self._deserialize = deserialize or (lambda data: data)
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._sending = threading.Lock()  # a handler's thread may outlive the call
        self._started = self._finished = False
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailers: Metadata = ()
        self._callbacks: list[Any] = []

    # The server's side.
    def push(self, message: bytes | None, compressed: bool = False) -> None:
        self._messages.put_nowait((message, compressed))

    async def next_message(self) -> Any:
        """The next message, or EOF. On the event loop."""
        data, compressed = await self._messages.get()
        if data is None:
            self.push(None)
            return EOF
        if compressed:
            data = await plain(data, self._call.headers, b"grpc-encoding", self._max_message_bytes)
        try:
            return self._deserialize(data)
        except Exception:
            raise InvalidRequest("the bytes are no such message") from None

    def begin(self, metadata: Metadata) -> None:
        with self._sending:
            if not self._started and not self._finished:
                self._call.start(200, encoded(metadata))
            self._started = True

    def send(self, message: Any) -> None:
        data = self._serialize(message)
        self.begin(())
        with self._sending:
            if not self._finished:
                self._call.write(data)

    def give_up(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = ()) -> NoReturn:
        self._code, self._details = code, details
        self._trailers = trailing_metadata or self._trailers
        raise Aborted

    def fail(self, error: BatchmillError) -> None:
        """With the same details that the data plane's refusals have."""
        self._code, self._details = _CODES[error.code], str(error)
        self._trailers = (("grpc-status-details-bin", status_details(error.code, str(error), error.reason.encode())),)

    def finish(self) -> None:
        code = self._code or grpc.StatusCode.OK
        trailers = [(b"grpc-status", b"%d" % code.value[0])]
        if self._details:
            trailers.append((b"grpc-message", quote(self._details, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()))
        with self._sending:
            self._finished = True
            self._call.finish([*trailers, *encoded(self._trailers)])
        self.push(None)  # a thread that waits for messages
        for callback in self._callbacks:
            callback(self)

    # What the handler may set.
    def set_trailing_metadata(self, metadata: Metadata) -> None:
        self._trailers = metadata

    def trailing_metadata(self) -> Metadata:
        return self._trailers

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def details(self) -> str:
        return self._details

    # What the handler may ask.
    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return tuple((name.decode(), value.decode("latin-1")) for name, value in self._call.headers if name.decode() not in _HOP)

    def peer(self) -> str:
        return self._call.peer

    def time_remaining(self) -> float | None:
        return max(0.0, (self._call.deadline_ns - time.monotonic_ns()) / 1e9) if self._call.deadline_ns else None

    def cancelled(self) -> bool:
        return self._call.cancelled

    def done(self) -> bool:
        return self._finished or self._call.cancelled

    def is_active(self) -> bool:
        return not self.done()

    def add_done_callback(self, callback: Any) -> None:
        self._callbacks.append(callback)


class Context(Call):
    """For coroutines and async generators."""

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF."""
        return await self.next_message()

    async def requests(self) -> AsyncIterator[Any]:
        while (message := await self.next_message()) is not EOF:
            yield message

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        self.begin(metadata)

    async def write(self, message: Any) -> None:
        self.send(message)
        await writable(self._call)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        self.give_up(code, details, trailing_metadata)

    async def abort_with_status(self, status: Any) -> NoReturn:
        self.give_up(status.code, status.details, status.trailing_metadata or ())


class BlockingContext(Call):
    """For plain functions and generators, which run on a thread of their own."""

    def __init__(self, call: ColdCall, serialize: Any, deserialize: Any, max_message_bytes: int = LIMIT_BYTES) -> None:
        super().__init__(call, serialize, deserialize, max_message_bytes)
        self._loop = asyncio.get_running_loop()

    def requests(self) -> Iterator[Any]:
        while (message := asyncio.run_coroutine_threadsafe(self.next_message(), self._loop).result()) is not EOF:
            yield message

    def send_initial_metadata(self, metadata: Metadata) -> None:
        self.begin(metadata)

    def write(self, message: Any) -> None:
        self.send(message)
        for pause in pauses(self._call):
            if self.done():  # also by its deadline
                break
            time.sleep(pause)

    def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        self.give_up(code, details, trailing_metadata)

    def abort_with_status(self, status: Any) -> NoReturn:
        self.give_up(status.code, status.details, status.trailing_metadata or ())


def encoded(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    pairs = []
    for name, value in metadata:
        data = value.encode() if isinstance(value, str) else bytes(value)
        pairs.append((name.encode(), base64.b64encode(data).rstrip(b"=") if name.endswith("-bin") else data))
    return pairs
