"""The cold half of REST, one Starlette application: metadata, configuration, statistics, index, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from batchmill.endpoints import v1
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.repository import Repository
from batchmill.errors import BatchmillError
from batchmill.logs import Log
from batchmill.observe.metrics import CONTENT_TYPE, Metrics

log = Log(__name__)


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")


def echo(text: str) -> str:
    """What is repeated of a caller's input: at most 200 characters of it, on one line."""
    return "".join(one if one.isprintable() else "?" for one in text[:200])


async def on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, BatchmillError):
        headers = {"retry-after": "1"} if error.http_status in (429, 503) else None
        return answer({"error": str(error)}, error.http_status, headers)
    if isinstance(error, HTTPException):
        headers = dict(error.headers) if error.headers else None
        return answer({"error": f"{echo(request.method)} {echo(request.scope['path'])}: {error.detail}"}, error.status_code, headers)
    log.exception("handler_failed", path=echo(request.scope["path"]))
    return answer({"error": "internal error"}, 500)


async def hot_path_asked_wrongly(request: Request) -> Response:
    """The data plane answers the right method of these paths itself; what comes here used another."""
    raise HTTPException(405, "Method Not Allowed", {"Allow": "POST" if request.scope["path"].endswith("/infer") else "GET"})


class Smaller(GZipMiddleware):
    """Compresses what callers say they can read, but not what the v2 protocol tells of server and models.

    tritonclient.http.aio lets aiohttp say so for every call, and then decompresses the answers of inferences alone.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.app if scope["path"].startswith("/v2") else super().__call__)(scope, receive, send)


def application(catalog: Catalog, metrics: Metrics, repository: Repository) -> Starlette:
    def reader(read: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            return answer(read(request))

        return endpoint

    async def render_metrics(request: Request) -> Response:
        # On a thread: what a thousand models have to tell takes a while, most of it without the GIL.
        return Response(await run_in_threadpool(metrics.render), media_type=None, headers={"content-type": CONTENT_TYPE})

    async def models(request: Request) -> Response:
        return answer({"models": await run_in_threadpool(catalog.models)})

    async def index(request: Request) -> Response:
        try:
            wish = orjson.loads(await request.body() or b"{}")
        except orjson.JSONDecodeError:
            wish = None
        if not isinstance(wish, dict):
            return answer({"error": "the body is no JSON object"}, 400)
        return answer(catalog.index(wish.get("ready") is True))

    async def load(request: Request) -> Response:
        try:
            wish = orjson.loads(await request.body() or b"{}")
        except orjson.JSONDecodeError:
            wish = None
        parameters = wish.get("parameters", {}) if isinstance(wish, dict) else None
        if not isinstance(parameters, dict):
            return answer({"error": "a JSON object with an object `parameters` wanted, or no body"}, 400)
        await repository.load(request.path_params["model"], parameters, request.scope["batchmill.peer"], request.headers)
        return answer({})

    async def unload(request: Request) -> Response:
        await repository.unload(request.path_params["model"], request.scope["batchmill.peer"], request.headers)
        return answer({})

    def of_model(read: Callable[[str, str], Any]) -> Callable[[Request], Any]:
        return reader(lambda request: read(request.path_params["model"], request.path_params.get("version", "")))

    routes = [
        Route("/v2", reader(lambda _: catalog.server())),
        Route("/v2/models", reader(lambda _: {"models": catalog.names()})),
        Route("/v2/models/stats", reader(lambda _: {"model_stats": catalog.statistics()})),
        Route("/v2/repository/index", index, methods=["POST"]),
        Route("/v2/repository/{repository}/index", index, methods=["POST"]),
        Route("/v2/repository/models/{model}/load", load, methods=["POST"]),
        Route("/v2/repository/models/{model}/unload", unload, methods=["POST"]),
        Route("/admin/models", models),
        Route("/admin/activity", reader(lambda request: catalog.activity(request.query_params.get("window", "10s")))),
        Route("/metrics", render_metrics),
    ]
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            Route(prefix, of_model(catalog.metadata)),
            Route(f"{prefix}/config", of_model(catalog.config)),
            Route(f"{prefix}/latency", of_model(catalog.latency)),
            Route(f"{prefix}/stats", of_model(lambda name, number: {"model_stats": catalog.statistics(name, number)})),
        ]
    routes += v1.routes(catalog)
    every = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
    hot = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer", "/v2/models/{model}/labels/{label}/infer",
           "/v2/models/{model}/ready", "/v2/models/{model}/versions/{version}/ready",
           "/v2/health/{which}", "/livez", "/readyz", "/healthz")  # fmt: skip
    routes += [Route(path, hot_path_asked_wrongly, methods=every) for path in hot]
    handlers: dict[Any, Any] = {HTTPException: on_error, BatchmillError: on_error, Exception: on_error}
    smaller = Middleware(Smaller, minimum_size=1024, compresslevel=1)
    made = Starlette(routes=routes, exception_handlers=handlers, middleware=[smaller])
    made.router.redirect_slashes = False  # a redirect would name whatever host the caller says
    return made
