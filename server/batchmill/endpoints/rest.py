"""The cold half of REST, one Starlette application: metadata, configuration, statistics, index, metrics."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
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

from batchmill.endpoints import audited, docs_page, v1
from batchmill.endpoints.calls import JSON
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.openapi import BINARY, HEADER_LENGTH, OpenApi
from batchmill.endpoints.repository import Repository
from batchmill.errors import BatchmillError, InternalError, InvalidRequest, UnknownCall, Unsupported, WrongMethod
from batchmill.logs import Log
from batchmill.observe.metrics import CONTENT_TYPE, Metrics
from batchmill.registry import tuning

log = Log(__name__)
# Calls of Triton's extensions that this server does not have, and says so for: the protocol's 501, not a path that is wrong.
NOT_OFFERED = re.compile(r"/v2/(?:(?:system|cuda)sharedmemory/.*|logging|(?:models/[^/]+/(?:versions/[^/]+/)?)?trace/setting"
                         r"|models/[^/]+/(?:versions/[^/]+/)?generate(?:_stream)?)")  # fmt: skip


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, JSON)


def echo(text: str) -> str:
    """What is repeated of a caller's input: at most 200 characters of it, on one line."""
    return "".join(one if one.isprintable() else "?" for one in text[:200])


async def on_error(request: Request, error: Exception) -> Response:
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):  # of Starlette's router
        headers.update(error.headers or {})
        kind: type[BatchmillError] = {404: UnknownCall, 405: WrongMethod}.get(error.status_code, InvalidRequest)
        detail = error.detail
        if kind is UnknownCall:
            offered = not NOT_OFFERED.fullmatch(request.scope["path"])
            kind, detail = (kind, f"{detail}; /docs has what there is") if offered else (Unsupported, "this extension is not offered")
        elif kind is WrongMethod:
            detail = f"{detail}; it takes {headers['Allow']}"
        error = kind(f"{echo(request.method)} {echo(request.scope['path'])}: {detail}")
    elif not isinstance(error, BatchmillError):
        log.exception("handler_failed", path=echo(request.scope["path"]))
        error = InternalError()
    if error.http_status in (429, 503):
        headers["retry-after"] = "1"
    return answer({"error": str(error)}, error.http_status, headers)


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; an empty one where there is no body."""
    try:
        found = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is no JSON object: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise InvalidRequest("the body is no JSON object")
    return found


async def hot_path_asked_wrongly(request: Request) -> Response:
    """The data plane answers the right method of these paths itself; what comes here used another, or asks for no health there is."""
    if request.path_params.get("which", "live") not in ("live", "ready"):
        raise HTTPException(404)
    raise HTTPException(405, "Method Not Allowed", {"Allow": "POST" if request.scope["path"].endswith("/infer") else "GET"})


class Smaller(GZipMiddleware):
    """Compresses what callers say they can read, but not what the v2 protocol tells of server and models.

    tritonclient.http.aio lets aiohttp say so for every call, and then decompresses the answers of inferences alone.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.app if scope["path"].startswith("/v2") else super().__call__)(scope, receive, send)


def described(openapi: OpenApi) -> list[Route]:
    """The document, the page, and a request for each version: on threads, as a thousand models have a lot to tell."""

    async def document(request: Request) -> Response:
        return Response(await run_in_threadpool(openapi.document), 200, {"cache-control": "no-cache"}, JSON)

    async def page(request: Request) -> Response:
        origin = docs_page.origin_of(request.headers.get("host", ""))
        return Response(await run_in_threadpool(openapi.page, origin), 200, docs_page.HEADERS, "text/html")

    async def example(request: Request) -> Response:
        found = await run_in_threadpool(openapi.example, request.path_params["model"], request.path_params["version"])
        headers = {HEADER_LENGTH: str(found.json_bytes)} if found.is_binary else {}
        return Response(found.body, 200, headers, BINARY if found.is_binary else JSON)

    return [Route("/openapi.json", document), Route("/docs", page), Route("/docs/models/{model}/versions/{version}/example", example)]


def application(catalog: Catalog, metrics: Metrics, repository: Repository, more: Sequence[Route] = ()) -> Starlette:
    """more: calls that others answer."""
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
        return answer(catalog.index(object_of(await request.body()).get("ready") is True))

    async def load(request: Request) -> Response:
        peer, name = request.scope["batchmill.peer"], request.path_params["model"]
        repository.check("model.load", name, peer, request.headers)  # before a body is read that may be large
        parameters = (await run_in_threadpool(object_of, await request.body())).get("parameters", {})
        if not isinstance(parameters, dict):
            raise InvalidRequest("parameters: an object wanted")
        await repository.load(name, parameters, peer, request.headers)
        return answer({})

    async def unload(request: Request) -> Response:
        await repository.unload(request.path_params["model"], request.scope["batchmill.peer"], request.headers)
        return answer({})

    async def tune(request: Request) -> Response:
        name, body = request.path_params["model"], await request.body()

        def change() -> tuning.Change:
            catalog.model(name)  # says so while the server still loads its models
            return functools.partial(tuning.changed, body=object_of(body)) if request.method == "PATCH" else tuning.nothing

        if request.method in ("PATCH", "DELETE"):
            await repository.tune(name, change, request.scope["batchmill.peer"], request.headers)
        else:
            catalog.model(name)
            await repository.at_rest(name)
        return answer({"model": name, "tuning": await run_in_threadpool(tuning.told, catalog.model(name).settings)})

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
        Route("/admin/models/{model}/tuning", tune, methods=["GET", "PATCH", "DELETE"]),
        *audited.routes(lambda: repository.recorder.audit),
        Route("/admin/activity", reader(lambda request: catalog.activity(request.query_params.get("window", "10s")))),
        Route("/metrics", render_metrics),
        *described(OpenApi(catalog.statuses)),
    ]
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            Route(prefix, of_model(catalog.metadata)),
            Route(f"{prefix}/config", of_model(catalog.config)),
            Route(f"{prefix}/latency", of_model(catalog.latency)),
            Route(f"{prefix}/stats", of_model(lambda name, number: {"model_stats": catalog.statistics(name, number)})),
        ]
    routes += [*v1.routes(catalog), *more]
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
