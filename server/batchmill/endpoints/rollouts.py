"""Rollouts by call: start, look, approve, abort."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from batchmill.endpoints.calls import JSON
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.repository import Repository
from batchmill.endpoints.rest import object_of
from batchmill.errors import InvalidRequest
from batchmill.rollout import plan_schema
from batchmill.rollout.conductor import Conductor


def rollouts(catalog: Catalog, repository: Repository, conductor: Conductor) -> list[Route]:
    """All on the event loop's thread, which the conductor belongs to."""

    def told(name: str) -> Response:
        return Response(orjson.dumps(conductor.told(name)), 200, None, JSON)

    async def acted(request: Request, action: str, act: Callable[[str, Mapping[str, Any]], Future[None] | None]) -> Response:
        """act: gets the model's name and the body; what it returns is awaited."""
        name = request.path_params["model"]
        event = repository.admit(action, name, request.scope["batchmill.peer"], request.headers)

        async def work() -> None:
            catalog.model(name)
            done = act(name, object_of(await request.body()))
            if done is not None:
                await asyncio.wrap_future(done)

        await repository.recorder.call(event, work())
        return told(name)

    def start(name: str, body: Mapping[str, Any]) -> Future[None]:
        if unknown := sorted({*body} - {"version", "plan"}):
            raise InvalidRequest(f"{unknown[0][:100]}: unknown key; version and plan wanted")
        version = str(body.get("version", ""))
        if not version.isdecimal():
            raise InvalidRequest("version: the number of a version wanted")
        return conductor.start(catalog.model(name), version, plan_schema.parsed(body.get("plan") or {}))

    async def rollout(request: Request) -> Response:
        if request.method == "POST":
            return await acted(request, "rollout.start", start)
        catalog.model(request.path_params["model"])
        return told(request.path_params["model"])

    approve = functools.partial(acted, action="rollout.approve", act=lambda name, _: conductor.approve(name))
    abort = functools.partial(acted, action="rollout.abort", act=lambda name, _: conductor.abort(catalog.model(name)))

    async def approved(request: Request) -> Response:
        return await approve(request)

    async def aborted(request: Request) -> Response:
        return await abort(request)

    prefix = "/admin/models/{model}/rollout"
    return [
        Route(prefix, rollout, methods=["GET", "POST"]),
        Route(f"{prefix}/approve", approved, methods=["POST"]),
        Route(f"{prefix}/abort", aborted, methods=["POST"]),
    ]
