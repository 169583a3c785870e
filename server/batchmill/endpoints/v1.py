"""The paths of TensorFlow Serving's REST: /v1/models/m[/versions/v|/labels/l][:predict|/metadata]."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from batchmill.endpoints import tfserving
from batchmill.endpoints.catalog import Catalog
from batchmill.errors import InvalidRequest, Unsupported
from batchmill.registry.status import ModelStatus, VersionStatus

MODEL = "/v1/models/{model}"
LARGE_BYTES = 256 << 10
PREFIXES = (MODEL, f"{MODEL}/versions/{{version}}", f"{MODEL}/labels/{{label}}")


def routes(catalog: Catalog) -> list[Route]:
    def model_of(request: Request) -> ModelStatus:
        return catalog.model(request.path_params["model"])

    def number_of(request: Request) -> str:
        label = request.path_params.get("label")
        return tfserving.number_of(model_of(request), label) if label else request.path_params.get("version", "")

    def find(request: Request) -> tuple[ModelStatus, VersionStatus]:
        return catalog.find(request.path_params["model"], number_of(request))

    async def predict(request: Request) -> Response:
        _, version = find(request)
        given, deadline_ns = await request.body(), deadline_of(request)
        wish, body, json_size = await run(tfserving.request_of, given, version)
        names = request.path_params
        # By the names that the caller used: what they mean may change meanwhile, and the data plane decides.
        meant = names["model"], names.get("version", ""), names.get("label", "")
        told, size = await request.scope["batchmill.infer"](*meant, body, json_size, deadline_ns)
        text, number = await run(tfserving.answer_of, told, size, wish)
        return Response(text, media_type="application/json", headers={"x-model-version": number})

    async def status(request: Request) -> Response:
        if request.url.path.endswith((":predict", ":classify", ":regress")):
            raise HTTPException(405, "Method Not Allowed", {"Allow": "POST"})
        return answer(tfserving.status_of(model_of(request), number_of(request)))

    async def metadata(request: Request) -> Response:
        return answer(tfserving.metadata_of(*find(request)))

    async def not_offered(request: Request) -> Response:
        raise Unsupported("classify and regress take tf.Example, which is not offered: ask with :predict")

    made = []
    for prefix in PREFIXES:
        made += [
            Route(f"{prefix}:predict", predict, methods=["POST"]),
            Route(f"{prefix}:classify", not_offered, methods=["POST"]),
            Route(f"{prefix}:regress", not_offered, methods=["POST"]),
            Route(f"{prefix}/metadata", metadata),
            Route(prefix, status),
        ]
    return made


async def run(work: Callable[..., Any], data: bytes, *more: Any) -> Any:
    """work(data, *more), on a thread when there is much data."""
    return work(data, *more) if len(data) < LARGE_BYTES else await run_in_threadpool(work, data, *more)


def answer(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def deadline_of(request: Request) -> int:
    """Monotonic ns; 0: none."""
    given = request.headers.get("x-request-timeout-ms")
    if given is None:
        return 0
    if not given.isascii() or not given.isdigit() or not 0 < int(given) < 10**12:
        raise InvalidRequest("x-request-timeout-ms: a number above 0 in digits wanted")
    return time.monotonic_ns() + int(given) * 1_000_000
