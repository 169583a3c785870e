"""grpc.health.v1 Watch; the data plane answers Check itself.

Not grpcio's servicer: when one of several watchers of a service leaves, it forgets them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from batchmill.endpoints.grpc_context import Context


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Tells each watcher the status of its service, and every change of it. On the event loop."""

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {}
        self._changed = asyncio.Event()  # replaced at each change

    def set(self, serving: bool, services: Iterable[str]) -> None:
        self._serving |= dict.fromkeys(services, serving)
        self._changed.set()
        self._changed = asyncio.Event()

    async def Watch(self, request: Any, context: Context) -> None:
        told = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            await changed.wait()

    def _status(self, service: str) -> Any:
        answer = health_pb2.HealthCheckResponse
        if service not in self._serving:
            return answer.SERVICE_UNKNOWN
        return answer.SERVING if self._serving[service] else answer.NOT_SERVING
