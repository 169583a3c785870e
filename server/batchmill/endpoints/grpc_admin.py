"""The admin service of gRPC: the same calls as REST's below /admin, and feedback."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pydantic

from batchmill.endpoints.feedback import Assessor, GivenFeedbacks, taken_json
from batchmill.endpoints.grpc_context import Context
from batchmill.endpoints.routes import Given, GivenRoute, GivenVersion, Switchboard, change_of_route, invalid, parsed_label
from batchmill.proto import admin_pb2 as pb
from batchmill.proto import admin_pb2_grpc
from batchmill.rollout import routing as routings
from batchmill.rollout.routing import Change

SERVICE = "batchmill.admin.v1.Admin"


class AdminServicer(admin_pb2_grpc.AdminServicer):
    def __init__(self, assessor: Assessor, switchboard: Switchboard) -> None:
        self._assessor = assessor
        self._switchboard = switchboard

    # Feedback.
    async def SendFeedback(self, request: Any, context: Context) -> Any:
        return await asyncio.to_thread(self._take, request)

    def _take(self, request: Any) -> Any:
        given = valid(GivenFeedbacks, {"feedback": [item_of(one) for one in request.feedback]})
        taken = self._assessor.take(request.model, [one.value() for one in given.feedback])
        return pb.SendFeedbackResponse(**taken_json(taken))

    async def GetQuality(self, request: Any, context: Context) -> Any:
        generation = request.generation if request.HasField("generation") else None
        told = await asyncio.to_thread(self._assessor.told, request.model, generation)
        rows = [pb.GetQualityResponse.Figures(**row) for row in told.pop("versions")]
        verdicts = [pb.GetQualityResponse.Verdict(**one) for one in told.pop("verdicts")]
        return pb.GetQualityResponse(versions=rows, verdicts=verdicts, **told)

    # Routes and labels.
    async def GetRoute(self, request: Any, context: Context) -> Any:
        return route_of(self._switchboard.told(request.model))

    async def SetRoute(self, request: Any, context: Context) -> Any:
        given = {"weights": {**request.weights}, "rules": [rule_of(one) for one in request.rules]}
        return await self._changed(request, context, "route.set", lambda: change_of_route(valid(GivenRoute, given)))

    async def ClearRoute(self, request: Any, context: Context) -> Any:
        return await self._changed(request, context, "route.cleared", lambda: routings.cleared)

    async def SetLabel(self, request: Any, context: Context) -> Any:
        return await self._changed(request, context, "label.set", lambda: routings.labelled(parsed_label(request.label), version_of(request)))

    async def RemoveLabel(self, request: Any, context: Context) -> Any:
        return await self._changed(request, context, "label.removed", lambda: routings.labelled(parsed_label(request.label), None))

    async def Promote(self, request: Any, context: Context) -> Any:
        return await self._changed(request, context, "traffic.promoted", lambda: routings.promoted(version_of(request)))

    async def Rollback(self, request: Any, context: Context) -> Any:
        return await self._changed(request, context, "traffic.rolled_back", lambda: routings.rolled_back)

    async def _changed(self, request: Any, context: Context, action: str, make: Callable[[], Change]) -> Any:
        async def read() -> Change:
            return make()

        return route_of(await self._switchboard.changed(request.model, action, context.peer(), headers_of(context), read))


def headers_of(context: Context) -> dict[str, str]:
    return {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}


def valid(kind: type[Given], given: Mapping[str, Any]) -> Given:
    """Raises InvalidRequest."""
    try:
        return kind.model_validate(given)
    except pydantic.ValidationError as error:
        raise invalid(error) from None


def version_of(request: Any) -> str:
    return valid(GivenVersion, {"version": request.version}).version


def item_of(one: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"token": one.token}
    for name in ("label", "prediction"):
        if one.HasField(name) and (kind := getattr(one, name).WhichOneof("value")):
            found[name] = getattr(getattr(one, name), kind)
    return found | {name: getattr(one, name) for name in ("correct", "reward") if one.HasField(name)}


def rule_of(one: Any) -> dict[str, str]:
    kind = one.WhichOneof("of")
    return {**({kind: getattr(one, kind)} if kind else {}), "equals": one.equals, "version": one.version}


def route_of(told: dict[str, Any]) -> Any:
    shares = {version: pb.Route.Share(**share) for version, share in told["shares"].items()}
    return pb.Route(**{**told, "rules": [pb.Rule(**rule) for rule in told["rules"]], "shares": shares})
