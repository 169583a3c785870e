"""Rollouts by call: start, look, approve, abort."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.repository import Repository
from batchmill.endpoints.rest import answer, object_of
from batchmill.endpoints.routes import caller
from batchmill.errors import InvalidRequest
from batchmill.registry.status import ModelStatus
from batchmill.rollout import plan_schema
from batchmill.rollout.conductor import Conductor


class Rollouts:
    """What the calls do: one place for REST and gRPC. All on the event loop's thread, which the conductor belongs to.

    peer, headers: of the caller, who may do this or not. Raises BatchmillError.
    """

    def __init__(self, catalog: Catalog, repository: Repository, conductor: Conductor) -> None:
        self._catalog, self._repository, self._conductor = catalog, repository, conductor

    def told(self, name: str) -> dict[str, Any]:
        self._catalog.model(name)
        return self._conductor.told(name)

    async def start(self, name: str, peer: str, headers: Mapping[str, str], read: Callable[[], Awaitable[Mapping[str, Any]]]) -> dict[str, Any]:
        """read: gets version and plan of the call, once the caller has been let in."""

        async def start(model: ModelStatus) -> None:
            given = await read()
            if unknown := sorted({*given} - {"version", "plan"}):
                raise InvalidRequest(f"{unknown[0][:100]}: unknown key; version and plan wanted")
            version = str(given.get("version", ""))
            if not version.isdecimal():
                raise InvalidRequest("version: the number of a version wanted")
            plan = plan_schema.parsed(given.get("plan") or {})
            noted.update(version=version, after={"plan": plan.as_dict()})
            await asyncio.wrap_future(self._conductor.start(model, version, plan))

        noted = dict[str, Any]()
        return await self._acted("rollout.start", name, peer, headers, start, lambda: noted)

    async def approve(self, name: str, peer: str, headers: Mapping[str, str]) -> dict[str, Any]:
        async def approve(model: ModelStatus) -> None:
            self._conductor.approve(model.name)

        return await self._acted("rollout.approve", name, peer, headers, approve)

    async def abort(self, name: str, peer: str, headers: Mapping[str, str]) -> dict[str, Any]:
        async def abort(model: ModelStatus) -> None:
            await asyncio.wrap_future(self._conductor.abort(model))

        return await self._acted("rollout.abort", name, peer, headers, abort)

    async def _acted(
        self, action: str, name: str, peer: str, headers: Mapping[str, str], act: Callable[[ModelStatus], Awaitable[None]],
        told: Callable[[], dict[str, Any]] = dict,
    ) -> dict[str, Any]:  # fmt: skip
        """told: as Recorder.call() has it."""
        event = self._repository.admit(action, name, peer, headers)

        async def work() -> None:
            await act(self._catalog.model(name))

        await self._repository.recorder.call(event, work(), told)
        return self._conductor.told(name)


def rollouts(calls: Rollouts) -> list[Route]:
    async def rollout(request: Request) -> Response:
        async def read() -> dict[str, Any]:
            return object_of(await request.body())

        if request.method == "POST":
            return answer(await calls.start(*caller(request), read))
        return answer(calls.told(request.path_params["model"]))

    async def approve(request: Request) -> Response:
        return answer(await calls.approve(*caller(request)))

    async def abort(request: Request) -> Response:
        return answer(await calls.abort(*caller(request)))

    prefix = "/admin/models/{model}/rollout"
    return [
        Route(prefix, rollout, methods=["GET", "POST"]),
        Route(f"{prefix}/approve", approve, methods=["POST"]),
        Route(f"{prefix}/abort", abort, methods=["POST"]),
    ]
