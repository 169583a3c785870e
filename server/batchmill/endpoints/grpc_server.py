"""grpcio's registration surface over the bridge: what `add_...Servicer_to_server` calls, and the context its handlers get.

Handlers may be plain functions, coroutines, generators or async generators. Plain functions run on the event loop: they
must not block. Source: grpc.aio.Server and grpc.aio.ServicerContext.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import grpc

from batchmill.core.bridge import ColdCall
from batchmill.logs import Log

log = Log(__name__)
Metadata = Sequence[tuple[str, str | bytes]]
_END = object()
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
_HOP = {"te", "content-type", "user-agent", "host", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding"}


class Aborted(Exception):
    """Raised by abort(); ends the handler."""


class Context:
    """One call. State is set by the handler and sent by the server when the handler ends."""

    def __init__(self, call: ColdCall, serialize: Any, deserialize: Any) -> None:
        self._call = call
        self._serialize = serialize or (lambda message: message)
        self._deserialize = deserialize or (lambda data: data)
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._started = False
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailers: Metadata = ()
        self._callbacks: list[Any] = []

    # What arrives.
    def push(self, message: bytes | None) -> None:
        self._messages.put_nowait(_END if message is None else message)

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF."""
        data = await self._messages.get()
        if data is _END:
            self._messages.put_nowait(_END)
            return EOF
        try:
            return self._deserialize(data)
        except Exception:
            await self.abort(grpc.StatusCode.INVALID_ARGUMENT, "the bytes are no such message")

    async def requests(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not EOF:
            yield message

    # What leaves.
    async def send_initial_metadata(self, metadata: Metadata) -> None:
        if not self._started:
            self._started = True
            self._call.start(200, encoded(metadata))

    async def write(self, message: Any) -> None:
        await self.send_initial_metadata(())
        self._call.write(self._serialize(message))

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

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> Any:
        self._code, self._details = code, details
        self._trailers = trailing_metadata or self._trailers
        raise Aborted

    async def abort_with_status(self, status: Any) -> Any:
        await self.abort(status.code, status.details, status.trailing_metadata or ())

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
        return self._call.cancelled

    def is_active(self) -> bool:
        return not self._call.cancelled

    def add_done_callback(self, callback: Any) -> None:
        self._callbacks.append(callback)

    def finish(self) -> None:
        code = self._code or grpc.StatusCode.OK
        trailers = [(b"grpc-status", str(code.value[0]).encode())]
        if self._details:
            trailers.append((b"grpc-message", quote(self._details, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~").encode()))
        self._call.finish([*trailers, *encoded(self._trailers)])
        for callback in self._callbacks:
            callback(self)


def encoded(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    import base64

    pairs = []
    for name, value in metadata:
        data = value.encode() if isinstance(value, str) else bytes(value)
        pairs.append((name.encode(), base64.b64encode(data).rstrip(b"=") if name.endswith("-bin") else data))
    return pairs


class GrpcServer:
    """Finds the handler of a cold call and runs it as a task. Stands in for grpc.aio.Server where servicers are registered."""

    def __init__(self) -> None:
        self._generic: list[Any] = []
        self._methods: dict[str, Any] = {}
        self._running: dict[int, tuple[Context, asyncio.Task[None]]] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self._generic.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self._methods.update({f"/{service}/{method}": handler for method, handler in handlers.items()})

    def find(self, call: ColdCall) -> Any:
        if (handler := self._methods.get(call.target)) is not None:
            return handler
        details = type("Details", (), {"method": call.target, "invocation_metadata": ()})()
        return next((found for generic in self._generic if (found := generic.service(details)) is not None), None)

    def open(self, call: ColdCall) -> None:
        handler = self.find(call)
        if handler is None:
            call.finish([(b"grpc-status", b"12"), (b"grpc-message", b"unknown service or method")])
            return
        context = Context(call, handler.response_serializer, handler.request_deserializer)
        task = asyncio.get_running_loop().create_task(self._run(handler, context, call))
        self._running[id(call)] = context, task

    def message(self, call: ColdCall, data: bytes | None) -> None:
        if found := self._running.get(id(call)):
            found[0].push(data)

    def cancel(self, call: ColdCall) -> None:
        if found := self._running.get(id(call)):
            found[1].cancel()

    def cancel_all(self) -> None:
        """Ends what never ends by itself (watches) when the server drains: UNAVAILABLE."""
        for context, task in list(self._running.values()):
            context.set_code(grpc.StatusCode.UNAVAILABLE)
            context.set_details("the server is shutting down")
            task.cancel()

    async def _run(self, handler: Any, context: Context, call: ColdCall) -> None:
        try:
            if (remaining := context.time_remaining()) is None:
                await self._answer(handler, context)
            else:
                await asyncio.wait_for(self._answer(handler, context), remaining)
        except Aborted:
            pass
        except TimeoutError:
            context.set_code(grpc.StatusCode.DEADLINE_EXCEEDED)
        except asyncio.CancelledError:
            if context.code() is None:
                context.set_code(grpc.StatusCode.CANCELLED)
        except Exception:
            if context.code() is None:  # a generated servicer sets UNIMPLEMENTED and raises
                log.exception("handler_failed", method=call.target[:200])
                context.set_code(grpc.StatusCode.INTERNAL)
                context.set_details("internal error")
        finally:
            self._running.pop(id(call), None)
            context.finish()

    async def _answer(self, handler: Any, context: Context) -> None:
        request: Any
        if handler.request_streaming:
            behaviour, request = handler.stream_stream or handler.stream_unary, context.requests()
        else:
            behaviour, request = handler.unary_stream or handler.unary_unary, await context.read()
            if request is EOF:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a message was expected, none came")
        result = behaviour(request, context)
        if inspect.isawaitable(result):
            result = await result
        if inspect.isasyncgen(result):
            async for message in result:
                await context.write(message)
        elif inspect.isgenerator(result):
            for message in result:
                await context.write(message)
        elif not handler.response_streaming and context.code() in (None, grpc.StatusCode.OK):
            await context.write(result)
