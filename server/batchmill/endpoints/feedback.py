"""What was true of answers, as callers tell it afterwards; and what follows for a model's versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from batchmill.endpoints.calls import JSON
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.routes import parsed
from batchmill.errors import InvalidRequest
from batchmill.rollout import verdict
from batchmill.rollout.quality import REASONS, Feedback, Quality, Taken

FEEDBACK_MOST = 10_000  # of a call
Class = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | Annotated[str, StringConstraints(max_length=1000)]


class GivenFeedback(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    token: Annotated[str, StringConstraints(max_length=1000)]
    label: Class | None = None
    prediction: Class | None = None
    correct: bool | None = None
    reward: Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)] | None = None

    @model_validator(mode="after")
    def check(self) -> GivenFeedback:
        if self.label is None and self.correct is None and self.reward is None:
            raise ValueError("label, correct or reward")
        return self

    def value(self) -> Feedback:
        return Feedback(self.token, self.label, self.prediction, self.correct, self.reward)


class GivenFeedbacks(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    feedback: Annotated[list[GivenFeedback], Field(max_length=FEEDBACK_MOST)]


class Assessor:
    """What the calls do: one place for REST and gRPC. Counting takes a moment, so it is for a thread."""

    def __init__(self, catalog: Catalog, quality: Quality) -> None:
        self._catalog = catalog
        self._quality = quality

    def take(self, name: str, given: Sequence[Feedback]) -> Taken:
        """Raises NotFound and NotReady."""
        return self._quality.take(self._catalog.model(name).name, given)

    def told(self, name: str, generation: int | None = None) -> dict[str, Any]:
        """What `batchmill quality` shows. generation: of the route, that is compared; None: the last with two versions."""
        model = self._catalog.model(name)
        standard = model.pick()
        answer = verdict.told(name, self._quality.tallies(name), standard.number if standard else "", generation)
        return {**answer, "rejected": self._quality.rejected(name), "feedback": bool(model.settings.tuning.feedback)}


def taken_json(taken: Taken) -> dict[str, Any]:
    rejected = [{"index": index, "reason": reason, "error": REASONS[reason]} for index, reason in taken.rejected]
    return {"counted": taken.counted, "rejected": rejected}


def routes(assessor: Assessor) -> list[Route]:
    async def feedback(request: Request) -> Response:
        body = await request.body()

        def take() -> bytes:
            given = parsed(GivenFeedbacks, body)
            return orjson.dumps(taken_json(assessor.take(request.path_params["model"], [one.value() for one in given.feedback])))

        return Response(await run_in_threadpool(take), 200, None, JSON)

    async def quality(request: Request) -> Response:
        text = request.query_params.get("generation")
        if text is not None and not (text.isdecimal() and len(text) < 10):
            raise InvalidRequest(f"generation: {text[:40]!r} given, a number wanted")
        told = await run_in_threadpool(assessor.told, request.path_params["model"], int(text) if text else None)
        return Response(orjson.dumps(told), 200, None, JSON)

    return [
        Route("/v2/models/{model}/feedback", feedback, methods=["POST"]),
        Route("/admin/models/{model}/quality", quality),
    ]
