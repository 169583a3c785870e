"""Pumps the bridge: cold calls to the ASGI application or the gRPC server, on the running event loop."""

from __future__ import annotations

import asyncio

from batchmill.core.bridge import CANCEL, COMPRESSED, END, INFERRED, MESSAGE, OPEN, Bridge, ColdCall
from batchmill.endpoints import asgi
from batchmill.endpoints.compression import LIMIT_BYTES
from batchmill.endpoints.grpc_server import GrpcServer
from batchmill.endpoints.inference import Inferences


class Dispatcher:
    """start(), then at the end drain() and stop()."""

    def __init__(self, bridge: Bridge, application: asgi.Application, server: GrpcServer, max_body_bytes: int = LIMIT_BYTES) -> None:
        self._bridge = bridge
        self._application = application
        self._server = server
        self._max_body_bytes = max_body_bytes
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._inferences = Inferences()
        self._draining = False

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._bridge.fileno(), self.pump)
        loop.call_soon(self.pump)  # what came before anybody listened

    def drain(self) -> None:
        """From here on calls are refused, and those that would never end by themselves (watches) are ended."""
        self.pump()
        self._draining = True
        self._server.end_streams()

    async def stop(self) -> None:
        """Cuts what is still unanswered."""
        asyncio.get_running_loop().remove_reader(self._bridge.fileno())
        tasks = [*self._tasks.values(), *self._server.end_all()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1)

    def pump(self) -> None:
        for call, kind, payload in self._bridge.take():
            if kind == OPEN and self._draining:
                refuse = self._server.refuse if call.is_grpc else asgi.refuse
                refuse(call)
            elif kind == INFERRED:
                self._inferences.answered(call, payload)
            elif not call.is_grpc:
                self._http(call, kind)
            elif kind == OPEN:
                self._server.open(call)
            elif kind in (MESSAGE, COMPRESSED, END):
                self._server.message(call, payload, compressed=kind == COMPRESSED)
            else:
                self._server.cancel(call)

    def _http(self, call: ColdCall, kind: int) -> None:
        if kind == OPEN:
            task = asyncio.get_running_loop().create_task(asgi.handle(self._application, call, self._max_body_bytes, self._inferences.ask))
            self._tasks[id(call)] = task
            task.add_done_callback(lambda _: self._tasks.pop(id(call), None))
        elif kind == CANCEL and (found := self._tasks.get(id(call))):
            found.cancel()
