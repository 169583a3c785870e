"""Shadows by call: which candidates run a model's requests once more, and how far their answers are from those that callers got."""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from batchmill.endpoints.calls import JSON
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.repository import Repository
from batchmill.endpoints.routes import Changer, Strict, Version, parsed
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


def shadows(catalog: Catalog, repository: Repository, book: Book, change: Changer) -> list[Route]:
    def set_of(body: bytes) -> Change:
        return routings.shadowed(Shadow(**parsed(GivenShadow, body).model_dump()))

    async def shadow(request: Request) -> Response:
        if request.method == "PUT":
            await change(request, "shadow.set", set_of)
        elif request.method == "DELETE":
            version = request.query_params.get("version", "")
            await change(request, "shadow.stopped", lambda _: routings.unshadowed(version))
        found = await run_in_threadpool(book.told_shadows, catalog.model(request.path_params["model"]))
        return Response(orjson.dumps(found), 200, None, JSON)

    async def worst(request: Request) -> Response:
        """What callers have sent is not for everybody."""
        repository.guard.check(request.scope["batchmill.peer"], request.headers)
        found = await run_in_threadpool(book.told_worst, catalog.model(request.path_params["model"]))
        return Response(orjson.dumps(found), 200, None, JSON)

    prefix = "/admin/models/{model}/shadow"
    return [Route(prefix, shadow, methods=["GET", "PUT", "DELETE"]), Route(f"{prefix}/worst", worst)]
