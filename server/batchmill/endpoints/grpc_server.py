"""grpcio's registration surface over the bridge: what `add_...Servicer_to_server` calls.

Handlers may be plain functions, coroutines, generators or async generators. As with grpc.aio.Server, plain ones run on
threads and may block; the others run on the event loop and must not.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc

from batchmill.core.bridge import ColdCall
from batchmill.endpoints.compression import LIMIT_BYTES
from batchmill.endpoints.grpc_context import EOF, Aborted, BlockingContext, Call, Context
from batchmill.errors import BatchmillError, InternalError, InvalidRequest, ShuttingDown, UnknownCall
from batchmill.logs import Log

log = Log(__name__)
PLAIN_THREADS = 8  # plain handlers at once; more wait


@dataclass(slots=True)
class Running:
    """A call that a handler answers."""

    context: Call
    task: asyncio.Task[None]
    unary: bool  # one message in, one out
    has_message: bool = False

    def ends_by_itself(self) -> bool:
        return self.unary and self.has_message


class GrpcServer:
    """Finds the handler of a cold call and runs it as a task. Stands in for grpc.aio.Server where servicers are registered."""

    def __init__(self, max_message_bytes: int = LIMIT_BYTES) -> None:
        self._max_message_bytes = max_message_bytes  # of one that was compressed
        self._generic: list[Any] = []
        self._methods: dict[str, Any] = {}
        self._running: dict[int, Running] = {}
        self._threads = ThreadPoolExecutor(PLAIN_THREADS, "grpc-handler")

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
            finish(call, UnknownCall("unknown service or method"))
            return
        behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        on_loop = inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)
        context = (Context if on_loop else BlockingContext)(call, handler.response_serializer, handler.request_deserializer, self._max_message_bytes)
        task = asyncio.get_running_loop().create_task(self._run(handler, behaviour, context, call))
        self._running[id(call)] = Running(context, task, handler.unary_unary is not None)
        task.add_done_callback(lambda _: self._ended(call, context))  # one that is cancelled at once never begins

    def refuse(self, call: ColdCall) -> None:
        finish(call, ShuttingDown())

    def message(self, call: ColdCall, data: bytes | None, *, compressed: bool = False) -> None:
        """One message, or None: the client has half-closed."""
        if found := self._running.get(id(call)):
            found.has_message |= data is not None
            found.context.push(data, compressed)

    def cancel(self, call: ColdCall) -> None:
        if found := self._running.get(id(call)):
            found.task.cancel()

    def end_streams(self) -> None:
        """Ends what may never end by itself, such as watches: UNAVAILABLE."""
        self._end(running for running in self._running.values() if not running.ends_by_itself())

    def end_all(self) -> list[asyncio.Task[None]]:
        """Ends every call; returns their tasks, which end soon."""
        tasks = [running.task for running in self._running.values()]
        self._end(self._running.values())
        return tasks

    def _end(self, calls: Iterable[Running]) -> None:
        for running in calls:
            running.context.fail(ShuttingDown())
            running.task.cancel()

    async def _run(self, handler: Any, behaviour: Any, context: Context | BlockingContext, call: ColdCall) -> None:
        try:
            await asyncio.wait_for(self._answer(handler, behaviour, context), context.time_remaining())
        except Aborted:
            pass
        except BatchmillError as error:
            context.fail(error)
        except TimeoutError:
            context.set_code(grpc.StatusCode.DEADLINE_EXCEEDED)
        except asyncio.CancelledError:
            if context.code() is None:
                context.set_code(grpc.StatusCode.CANCELLED)
        except Exception:
            if context.code() is None:  # a generated servicer sets UNIMPLEMENTED and raises
                log.exception("handler_failed", method=call.target[:200])
                context.fail(InternalError())

    def _ended(self, call: ColdCall, context: Call) -> None:
        self._running.pop(id(call), None)
        context.finish()

    async def _answer(self, handler: Any, behaviour: Any, context: Context | BlockingContext) -> None:
        request: Any = context.requests()
        if not handler.request_streaming and (request := await context.next_message()) is EOF:
            raise InvalidRequest("a message was expected, none came")
        if isinstance(context, BlockingContext):
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, answer_plainly, behaviour, request, context, handler.response_streaming)
        elif inspect.isasyncgen(result := behaviour(request, context)):
            async for message in result:
                await context.write(message)
        else:
            answer = await result
            if not handler.response_streaming:
                send_unless_failed(context, answer)


def answer_plainly(behaviour: Any, request: Any, context: BlockingContext, streaming: bool) -> None:
    """Runs a plain handler to its end, or until nobody waits for its next message."""
    result = behaviour(request, context)
    if not streaming:
        send_unless_failed(context, result)
        return
    for message in result:
        if context.done():
            break
        context.write(message)


def finish(call: ColdCall, error: BatchmillError) -> None:
    """Ends a call that no handler has."""
    call.finish([(b"grpc-status", b"%d" % error.code), (b"grpc-message", str(error).encode())])


def send_unless_failed(context: Call, message: Any) -> None:
    if context.code() in (None, grpc.StatusCode.OK):
        context.send(message)
