"""Shadows by call: which candidates run a model's requests once more, and how far their answers are from those that callers got."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from batchmill.endpoints.calls import JSON
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.repository import Repository
from batchmill.endpoints.routes import Strict, Switchboard, Version, caller, parsed
from batchmill.registry.naming import Shadow
from batchmill.rollout import routing as routings
from batchmill.rollout.book import Book
from batchmill.rollout.routing import Change

Tolerance = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class GivenShadow(Strict):
    version: Version
    share: Annotated[float, Field(ge=0.0001, le=1)] = 1.0
    max_cpu: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_pending_mib: Annotated[float, Field(gt=0, le=1 << 20)] = 64.0
    rtol: Tolerance = 1e-3
    atol: Tolerance = 1e-5
    agree_by: Literal["tolerance", "argmax"] = "tolerance"
    keep: Annotated[int, Field(ge=0, le=64)] = 8
    redact: bool = False


class Shadows:
    """What the calls do: one place for REST and gRPC. peer, headers: of the caller, who may do this or not. Raises BatchmillError."""

    def __init__(self, catalog: Catalog, repository: Repository, book: Book, switchboard: Switchboard) -> None:
        self._catalog, self._repository, self._book, self._switchboard = catalog, repository, book, switchboard

    async def told(self, name: str) -> dict[str, Any]:
        return await asyncio.to_thread(self._book.told_shadows, self._catalog.model(name))

    async def set(self, name: str, peer: str, headers: Mapping[str, str], read: Callable[[], Awaitable[GivenShadow]]) -> dict[str, Any]:
        """read: gets the settings of the call, once the caller has been let in."""

        async def change() -> Change:
            return routings.shadowed(Shadow(**(await read()).model_dump()))

        await self._switchboard.changed(name, "shadow.set", peer, headers, change)
        return await self.told(name)

    async def stop(self, name: str, peer: str, headers: Mapping[str, str], version: str) -> dict[str, Any]:
        """version: empty: all of the model's."""

        async def change() -> Change:
            return routings.unshadowed(version)

        await self._switchboard.changed(name, "shadow.stopped", peer, headers, change)
        return await self.told(name)

    async def worst(self, name: str, peer: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """What callers have sent is not for everybody."""
        self._repository.guard.check(peer, headers)
        return await asyncio.to_thread(self._book.told_worst, self._catalog.model(name))


def shadows(calls: Shadows) -> list[Route]:
    def answer(told: dict[str, Any]) -> Response:
        return Response(orjson.dumps(told, lambda raw: b64encode(raw).decode()), 200, None, JSON)

    async def shadow(request: Request) -> Response:
        async def read() -> GivenShadow:
            return parsed(GivenShadow, await request.body())

        if request.method == "PUT":
            return answer(await calls.set(*caller(request), read))
        if request.method == "DELETE":
            return answer(await calls.stop(*caller(request), request.query_params.get("version", "")))
        return answer(await calls.told(request.path_params["model"]))

    async def worst(request: Request) -> Response:
        return await asyncio.to_thread(answer, await calls.worst(*caller(request)))  # may be many MiB

    prefix = "/admin/models/{model}/shadow"
    return [Route(prefix, shadow, methods=["GET", "PUT", "DELETE"]), Route(f"{prefix}/worst", worst)]
