"""The admin service of gRPC: the same calls as REST's below /admin, and feedback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pydantic

from batchmill.endpoints.audited import LIMIT, Trail, wanted
from batchmill.endpoints.feedback import Assessor, GivenFeedbacks, taken_json
from batchmill.endpoints.grpc_context import Context
from batchmill.endpoints.grpc_messages import filled, given_of
from batchmill.endpoints.rollouts import Rollouts
from batchmill.endpoints.routes import Given, GivenRoute, GivenVersion, Switchboard, change_of_route, invalid, parsed_label
from batchmill.endpoints.shadows import GivenShadow, Shadows
from batchmill.proto import admin_pb2 as pb
from batchmill.proto import admin_pb2_grpc
from batchmill.rollout import routing as routings
from batchmill.rollout.routing import Change

SERVICE = "batchmill.admin.v1.Admin"


class AdminServicer(admin_pb2_grpc.AdminServicer):
    def __init__(self, assessor: Assessor, switchboard: Switchboard, rollouts: Rollouts, shadows: Shadows, trail: Trail) -> None:
        self._assessor = assessor
        self._switchboard = switchboard
        self._rollouts = rollouts
        self._shadows = shadows
        self._trail = trail

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

    # Rollouts.
    async def StartRollout(self, request: Any, context: Context) -> Any:
        async def read() -> dict[str, Any]:
            return {"version": request.version, "plan": given_of(request.plan)}

        return filled(pb.Rollout(), await self._rollouts.start(*caller(request, context), read))

    async def GetRollout(self, request: Any, context: Context) -> Any:
        return filled(pb.Rollout(), self._rollouts.told(request.model))

    async def ApproveRollout(self, request: Any, context: Context) -> Any:
        return filled(pb.Rollout(), await self._rollouts.approve(*caller(request, context)))

    async def AbortRollout(self, request: Any, context: Context) -> Any:
        return filled(pb.Rollout(), await self._rollouts.abort(*caller(request, context)))

    # Shadows.
    async def SetShadow(self, request: Any, context: Context) -> Any:
        async def read() -> GivenShadow:
            return valid(GivenShadow, {name: value for name, value in given_of(request).items() if name != "model"})

        return filled(pb.Shadows(), await self._shadows.set(*caller(request, context), read))

    async def GetShadow(self, request: Any, context: Context) -> Any:
        return filled(pb.Shadows(), await self._shadows.told(request.model))

    async def StopShadow(self, request: Any, context: Context) -> Any:
        return filled(pb.Shadows(), await self._shadows.stop(*caller(request, context), request.version))

    async def GetWorstShadow(self, request: Any, context: Context) -> AsyncIterator[Any]:
        told = await self._shadows.worst(*caller(request, context))
        for version, found in told["worst"].items():
            if request.version in ("", version):
                for one in found:
                    yield disagreement_of(version, one)

    # The audit trail.
    async def ListAudit(self, request: Any, context: Context) -> Any:
        limit = request.limit if request.HasField("limit") else LIMIT
        page = await self._trail.page(wanted(request.model, request.action, request.since, request.before, limit, time.time()))
        return await asyncio.to_thread(filled, pb.ListAuditResponse(), page)  # a thousand entries take a tenth of a second

    async def GetAuditHead(self, request: Any, context: Context) -> Any:
        return filled(pb.AuditHead(), await self._trail.head())

    async def VerifyAudit(self, request: Any, context: Context) -> Any:
        head = f"{request.head.seq}:{request.head.hash}" if request.HasField("head") else ""
        return filled(pb.VerifyAuditResponse(), await self._trail.verify(head))

    async def ExportAudit(self, request: Any, context: Context) -> AsyncIterator[Any]:
        parts = await self._trail.export()
        while part := await asyncio.to_thread(next, parts, b""):
            yield pb.ExportAuditResponse(lines=part)


def caller(request: Any, context: Context) -> tuple[str, str, dict[str, str]]:
    """The model that a call is about, and who calls."""
    return request.model, context.peer(), headers_of(context)


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


def disagreement_of(version: str, told: dict[str, Any]) -> Any:
    """A field named bytes would hide Python's type from its own stub."""
    sides = {side: [{"raw" if key == "bytes" else key: value for key, value in tensor.items()} for tensor in told[side]]
             for side in ("inputs", "answered", "candidate")}  # fmt: skip
    return filled(pb.Disagreement(version=version), {**told, **sides})
