"""A server whose routes are written down beside it, key by key, and held against what the data plane does after each table."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hypothesis.stateful import RuleBasedStateMachine

from batchmill.core import ort
from batchmill.core.probe import Lease, versions_of
from batchmill.core.reactor import Server
from batchmill.errors import BatchmillError
from reference.registry import Generation
from reference.routes import Refused, Routes, Traffic, alone, one_key_a_slot
from reference.served import Served

KEYS = one_key_a_slot("m")


@dataclass(frozen=True)
class Stage:
    """Where a rollout stands, by what is told of it. steps: (share, shadow)."""

    started_s: float
    candidate: str
    incumbent: str
    status: str
    step: int
    steps: tuple[tuple[float, bool], ...]


@dataclass(eq=False)
class Move:
    """A change of the routes on its way to the registry's thread. becomes: what it makes of them. stage: of the rollout, once it is in force."""

    becomes: Callable[[Routes, str], Routes] | None = None
    stage: Stage | None = None


class Watched(RuleBasedStateMachine):
    """Of a registry with model "m". Rules are for those who derive from it."""

    native: ort.Model
    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.served = Served(Path(tempfile.mkdtemp(prefix="batchmill-routes-")), self.server, self.native)
        self.served.move, self.served.published = self.move, self.published
        self.disk: dict[int, int | None] = {}           # generation by version; None: broken
        self.file: Mapping[str, str] = {}               # the labels of model.yaml
        self.routes = Routes()
        self.steady: set[str] = set()                   # versions that have been named ever since the last table
        self.answering: set[str] = set()                # that have had a share or a rule ever since
        self.led: dict[str, str] = {}                   # where labels led by the last table
        self.op: Move | None = None                     # what the call in hand asks for
        self.moves: list[Move] = []
        self.stage: Stage | None = None                 # of the last rollout
        self.kept: Stage | None = None                  # the same, as far as it is in force
        self.origin = Traffic()                         # the traffic before it
        self.looked_by: tuple[object, ...] = ()         # what the keys were looked at by last
        self.decided = 0                                # Routing's, when it began
        self.in_force: Stage | None = None              # the last that the traffic was moved for
        self.acknowledged: Counter[str] = Counter()

    # Changes of the routes.
    def move(self, name, act):
        move = self.op or Move()
        self.moves.append(move)
        done = self.served.keeper.change(name, partial(self.act, move, act))
        done.add_done_callback(lambda _: move in self.moves and self.moves.remove(move))  # there was no such model
        return done

    def act(self, move, act, status, present) -> None:
        """On the registry's thread."""
        self.moves.remove(move)
        standard = status.pick().number if status.pick() else ""
        try:
            after = move.becomes(self.routes, standard)
            if any(int(one) not in present for one in after.named - self.routes.named):
                raise Refused
        except Refused:
            after = None
        was = self.served.book.routing("m").traffic
        try:
            act(status, present)
        except BatchmillError:
            assert after is None, "refused without a reason"
            raise
        assert after is not None, "this was to be refused"
        if was != self.served.book.routing("m").traffic:
            after = replace(after, awaited=not any(status.pick(one) for one in after.traffic.weights))
        if move.stage:
            self.kept = self.in_force = move.stage
        self.routes = after
        self.steady &= self.named()
        self.answering &= after.answering
        self.equals_book()

    def equals_book(self) -> None:
        told, ours = self.served.book.routing("m"), self.routes
        assert (dict(told.labels), dict(told.traffic.weights), told.generation) == (ours.labels, ours.traffic.weights, ours.generation)
        assert told.awaited == ours.awaited
        assert (told.before and dict(told.before.weights)) == (ours.back and ours.back.weights)
        assert tuple((rule.kind, rule.name, rule.equals, rule.version) for rule in told.rules) == ours.rules
        assert tuple(one.version for one in told.shadows) == ours.shadows

    def equals_answer(self, told) -> None:
        """What a call is told of the route."""
        assert (told["weights"], told["generation"]) == (self.routes.traffic.weights, self.routes.generation)
        assert told["labels"] == self.routes.labels_over(self.file)

    def named(self) -> set[str]:
        return self.routes.named | {*self.routes.labels_over(self.file).values()}

    # What the data plane does.
    def published(self, before: set[Generation]) -> None:
        """By the table that it has now."""
        model = self.served.models.get("m")
        self.file = model.settings.labels if model else {}
        self.steady &= self.named()
        table = {one.version: one for one in self.served.table if one.name == "m"}
        assert not {*self.served.retired} & self.served.table
        if model is None:
            self.led = {}
        else:
            assert {*table} == {one.number for one in model.ready()}
            standard = model.pick()
            loading = {one.number for one in model.versions.values() if one.state == "LOADING"}
            self.look_at_keys(table, loading, standard.number if standard else "")
            self.led = {name: wanted if wanted in table or self.led.get(name) not in table else self.led[name]
                        for name, wanted in self.routes.labels_over(self.file).items()}
            for name, answering in self.led.items():
                self.leads_to(table.get(answering), label=name.encode())
            for kind, name, value, _ in self.routes.rules:
                wanted = next(rule[3] for rule in self.routes.rules if rule[:3] == (kind, name, value))
                if all(rule[0] == kind for rule in self.routes.rules):  # else another one may come first
                    self.leads_to(table.get(wanted), **{f"{kind}s": [(name.encode(), value.encode())]})
            assert model.naming.generation == self.routes.generation
        for old in before:
            is_kept = old.version in self.answering or (old.version in self.steady and old.number in self.disk)
            if old.name == "m" and is_kept and not old.may_end:
                assert old.version in table, "it answers, or is named and its folder is there"
                assert table[old.version].generation >= old.generation
        self.steady, self.answering = self.named(), self.routes.answering

    def look_at_keys(self, table: Mapping[str, Generation], loading: set[str], standard: str) -> None:
        by = (self.routes, {*table}, loading, standard)
        if by != self.looked_by:
            self.looked_by = by
            self.routes.look(versions_of(self.server, b"m", KEYS), table, loading, standard)

    def leads_to(self, wanted: Generation | None, **asked) -> None:
        try:
            lease = Lease(self.server, b"m", **asked)
        except LookupError:
            assert wanted is None
        else:
            assert wanted is not None
            assert lease.is_on(wanted)

    # Rollouts.
    def conduct(self, act, statuses) -> None:
        """act: of the conductor. statuses: that it may lead to."""
        self.served.now += 0.001  # no two begin at the same time
        before = self.stage if any(one.stage for one in self.moves) else self.kept  # what could not be given back has not ended
        origin, decided = self.routes.traffic if self.standard in self.routes.traffic.weights else alone(self.standard), self.now_decided
        move = self.op = Move()
        act()
        self.op = None
        after = self.stage = self.meant()
        is_moving = move in self.moves
        assert not is_moving or self.told().status in ("running", "completed"), "who reads that it has ended relies on the traffic"
        if after is None or (after == before and not is_moving):
            return
        assert after.status in statuses
        if before and after.started_s == before.started_s:
            assert before == after or before.status == "running", "what has ended stays so"
            assert after.step in ((before.step, before.step + 1) if after.status == "running" else (before.step,))
        else:
            assert before is None or before.status != "running", "there is one at a time"
            assert (after.status, after.step) == ("running", 0)
            self.origin, self.decided = origin, decided
            assert not any(one.stage for one in self.moves if one is not move), "the traffic before it is not what it will be"
        if after.status in ("running", "completed"):
            self.kept = after
        if after.status == "completed":
            move.becomes = lambda routes, _: replace(routes, back=None)
        elif is_moving:
            move.becomes, move.stage = partial(self.step if after.status == "running" else self.give_back, after), after

    def step(self, stage, routes, standard) -> Routes:
        if self.is_steered:
            return routes
        share, is_shadow = stage.steps[stage.step]
        weights = self.origin.weights if is_shadow else {stage.incumbent: 100 - share, stage.candidate: share}
        return routes.stepped(weights, self.origin, stage.candidate, standard, is_shadow)

    def give_back(self, stage, routes, _) -> Routes:
        return routes.returned(None if self.is_steered else self.origin, stage.candidate)

    @property
    def now_decided(self) -> int:
        return self.served.book.routing("m").decided

    @property
    def is_steered(self) -> bool:
        """A call has moved the traffic since the last rollout began."""
        return self.now_decided != self.decided

    @property
    def standard(self) -> str:
        found = self.served.models["m"].pick() if "m" in self.served.models else None
        return found.number if found else ""

    def meant(self) -> Stage | None:
        """Where it will stand once the traffic is moved."""
        found = self.told()
        return replace(found, status=self.served.conductor._rollouts["m"].status) if found else None

    def told(self) -> Stage | None:
        try:
            found = self.served.conductor.told("m")
        except BatchmillError:
            return None
        steps = tuple((step["share"], step["shadow"]) for step in found["plan"]["steps"])
        return Stage(found["started_s"], found["candidate"], found["incumbent"], found["status"], found["steps"].index(found["step"]), steps)

    def is_carried_out(self) -> None:
        """What is told of the rollout is what the traffic is, once nothing moves."""
        self.stage = self.told()
        assert self.stage == self.kept
        if self.stage is None or self.is_steered or (self.stage.status == "running" and self.stage != self.in_force):
            return
        share, is_shadow = self.stage.steps[self.stage.step]
        weights = self.routes.traffic.weights
        if self.stage.status == "completed":
            assert {*weights} == {self.stage.candidate}
        elif self.stage.status != "running" or is_shadow:
            assert weights == self.origin.weights
        else:
            assert weights.get(self.stage.candidate) == share
