"""Pumps the bridge: cold calls to the ASGI application or the gRPC server, on the running event loop."""

from __future__ import annotations

import asyncio

from batchmill.core.bridge import CANCEL, END, MESSAGE, OPEN, Bridge, ColdCall
from batchmill.endpoints import asgi
from batchmill.endpoints.grpc_server import GrpcServer


class Dispatcher:
    def __init__(self, bridge: Bridge, application: asgi.Application, server: GrpcServer) -> None:
        self._bridge = bridge
        self._application = application
        self._server = server
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._bridge.fileno(), self.pump)
        loop.call_soon(self.pump)  # what came before anybody listened

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._bridge.fileno())
        self._server.cancel_all()

    def pump(self) -> None:
        for call, kind, payload in self._bridge.take():
            if not call.is_grpc:
                self._http(call, kind)
            elif kind == OPEN:
                self._server.open(call)
            elif kind in (MESSAGE, END):
                self._server.message(call, payload if kind == MESSAGE else None)
            else:
                self._server.cancel(call)

    def _http(self, call: ColdCall, kind: int) -> None:
        if kind == OPEN:
            task = asyncio.get_running_loop().create_task(asgi.handle(self._application, call))
            self._tasks[id(call)] = task
            task.add_done_callback(lambda _: self._tasks.pop(id(call), None))
        elif kind == CANCEL and (found := self._tasks.get(id(call))):
            found.cancel()
