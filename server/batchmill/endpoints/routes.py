"""Labels and routes by call: who of a model's versions gets its traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from batchmill import complaints
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.repository import Repository
from batchmill.endpoints.rest import answer
from batchmill.errors import InvalidRequest
from batchmill.registry.naming import Rule
from batchmill.registry.status import ModelStatus
from batchmill.rollout import routing as routings
from batchmill.rollout.book import Book
from batchmill.rollout.routing import Change, Routing

Version = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,17}$")]
Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Token = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$")]
RULES_MOST, VERSIONS_MOST = 32, 16
EQUALS_MOST = 256  # bytes, notes.hpp's kWatchedMost
Act = Callable[[ModelStatus, Collection[int]], None]
Given = TypeVar("Given", bound=BaseModel)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


def few_bytes(value: str) -> str:
    if len(value.encode()) > EQUALS_MOST:
        raise ValueError(f"at most {EQUALS_MOST} bytes")
    return value


def one_above_0(value: dict[str, float]) -> dict[str, float]:
    if value and not any(value.values()):
        raise ValueError("one above 0")
    return value


class GivenRule(Strict):
    header: Token | None = None
    parameter: Annotated[str, StringConstraints(min_length=1, max_length=64)] | None = None
    equals: Annotated[str, AfterValidator(few_bytes)]
    version: Version

    @model_validator(mode="after")
    def check(self) -> GivenRule:
        if (self.header is None) == (self.parameter is None):
            raise ValueError("a header or a parameter")
        return self

    def rule(self) -> Rule:
        kind: Literal["header", "parameter"] = "header" if self.header is not None else "parameter"
        return Rule(kind, self.header.lower() if self.header is not None else self.parameter or "", self.equals, self.version)


class GivenRoute(Strict):
    weights: Annotated[
        dict[Version, Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]], Field(max_length=VERSIONS_MOST), AfterValidator(one_above_0)
    ] = {}
    rules: Annotated[list[GivenRule], Field(max_length=RULES_MOST)] = []

    @model_validator(mode="after")
    def check(self) -> GivenRoute:
        if not self.model_fields_set:  # a call that was sent without its body must not take a route away
            raise ValueError("weights or rules")
        return self


class GivenVersion(Strict):
    version: Version


def parsed(kind: type[Given], body: bytes) -> Given:
    try:
        return kind.model_validate_json(body or b"{}")
    except pydantic.ValidationError as error:
        raise invalid(error, kind) from None


def invalid(error: pydantic.ValidationError, kind: type[BaseModel] | None = None) -> InvalidRequest:
    """kind: what was wanted, for the nearest key."""
    return InvalidRequest(complaints.told(error, kind))


class Switchboard:
    """What the calls do: one place for REST and gRPC."""

    def __init__(self, catalog: Catalog, repository: Repository, book: Book, change: Callable[[str, Act], Future[None]]) -> None:
        """change: Keeper.change()."""
        self._catalog, self._repository, self._book, self._change = catalog, repository, book, change

    async def changed(self, name: str, action: str, peer: str, headers: Mapping[str, str], make: Callable[[], Awaitable[Change]]) -> dict[str, Any]:
        """The route after the change that make() reads from the call, once the caller has been let in. Raises BatchmillError."""
        noted = dict[str, dict[str, object]]()
        event = self._repository.admit(action, name, peer, headers)

        def note(before: Routing, after: Routing) -> None:
            was, now = routings.summary(before), routings.summary(after)
            differing = [key for key in now if now[key] != was[key]]
            noted.update(before={key: was[key] for key in differing}, after={key: now[key] for key in differing})

        async def act() -> None:
            self._catalog.model(name)  # says so while the server still loads its models
            await asyncio.wrap_future(self._change(name, self._book.changed(await make(), note)))

        await self._repository.recorder.call(event, act(), lambda: noted)
        return self.told(name)

    async def of_request(self, request: Request, action: str, make: Callable[[bytes], Change]) -> dict[str, Any]:
        """The same, of a call over HTTP. make: of its body."""

        async def read() -> Change:
            return make(await request.body())

        return await self.changed(request.path_params["model"], action, request.scope["batchmill.peer"], request.headers, read)

    def told(self, name: str) -> dict[str, Any]:
        return self._book.told(self._catalog.model(name))


def caller(request: Request) -> tuple[str, str, Mapping[str, str]]:
    """The model that a call is about, and who calls."""
    return request.path_params["model"], request.scope["batchmill.peer"], request.headers


def change_of_route(given: GivenRoute) -> Change:
    return routings.with_route(given.weights, tuple(rule.rule() for rule in given.rules))


def routes(switchboard: Switchboard) -> list[Route]:
    async def changed(request: Request, action: str, make: Callable[[bytes], Change]) -> Response:
        return answer(await switchboard.of_request(request, action, make))

    async def route(request: Request) -> Response:
        if request.method == "PUT":
            return await changed(request, "route.set", lambda body: change_of_route(parsed(GivenRoute, body)))
        if request.method == "DELETE":
            return await changed(request, "route.cleared", lambda _: routings.cleared)
        return answer(switchboard.told(request.path_params["model"]))

    async def label(request: Request) -> Response:
        name = parsed_label(request.path_params["label"])
        if request.method == "PUT":
            return await changed(request, "label.set", lambda body: routings.labelled(name, parsed(GivenVersion, body).version))
        return await changed(request, "label.removed", lambda _: routings.labelled(name, None))

    async def promote(request: Request) -> Response:
        return await changed(request, "traffic.promoted", lambda body: routings.promoted(parsed(GivenVersion, body).version))

    async def rollback(request: Request) -> Response:
        return await changed(request, "traffic.rolled_back", lambda _: routings.rolled_back)

    prefix = "/admin/models/{model}"
    return [
        Route(f"{prefix}/route", route, methods=["GET", "PUT", "DELETE"]),
        Route(f"{prefix}/labels/{{label}}", label, methods=["PUT", "DELETE"]),
        Route(f"{prefix}/promote", promote, methods=["POST"]),
        Route(f"{prefix}/rollback", rollback, methods=["POST"]),
    ]


def parsed_label(text: str) -> str:
    try:
        return pydantic.TypeAdapter(Label).validate_python(text)
    except pydantic.ValidationError:
        raise InvalidRequest("a label has up to 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit") from None
