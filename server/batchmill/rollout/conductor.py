"""Carries rollouts out: looks at what was counted, asks the engine, and moves the traffic. At most one rollout of a model at a time.

RUNNING -> COMPLETED | ROLLED_BACK | ABORTED. Each change is one swap of the route; where a rollout stands is kept in the state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from batchmill.errors import InvalidRequest, NotFound
from batchmill.logs import Log
from batchmill.periodic import every
from batchmill.registry.naming import Shadow
from batchmill.registry.status import ModelStatus
from batchmill.rollout import engine, evidence, plan_schema
from batchmill.rollout import routing as routings
from batchmill.rollout.book import Book
from batchmill.rollout.counted import evidence_of
from batchmill.rollout.engine import Decision, Progress
from batchmill.rollout.evidence import Evidence, Moments
from batchmill.rollout.plan import Plan, Step
from batchmill.rollout.routing import Change, Routing, Traffic
from batchmill.store import ROLLOUT, Store

log = Log(__name__)
RUNNING, COMPLETED, ROLLED_BACK, ABORTED = "running", "completed", "rolled_back", "aborted"
LOOK_SECS = 0.5
AGREE_BY = "argmax"  # two trainings of a classifier name the same class, and never the same numbers; other outputs: by tolerance
KEEP_SECS = 10.0  # between two times that the counters are kept: what a crash may cost of a step's evidence
Note = Callable[[str, str, str, Mapping[str, Any]], None]  # action, model, version, {"before": ..., "after": ..., "reason": ...}
Move = Callable[[str, Callable[[ModelStatus, Collection[int]], None]], Future[None]]


@dataclass(frozen=True, slots=True)
class Rollout:
    """origin: the traffic before it. last: the counters when they were seen last. Times: seconds since 1970."""

    incumbent: str
    candidate: str
    plan: Plan
    origin: Traffic
    progress: Progress
    status: str = RUNNING
    reasons: tuple[str, ...] = ()
    started_s: float = 0.0
    ended_s: float = 0.0
    last: Evidence = Evidence()  # noqa: RUF009  (frozen)

    @property
    def step(self) -> Step:
        return self.plan.steps[self.progress.step]

    def to_json(self) -> dict[str, Any]:
        return {
            "incumbent": self.incumbent, "candidate": self.candidate, "plan": self.plan.as_dict(), "origin": routings.traffic_json(self.origin),
            "progress": self.progress.as_dict(), "status": self.status, "reasons": [*self.reasons], "started_s": self.started_s,
            "ended_s": self.ended_s, "last": self.last.as_dict(),
        }  # fmt: skip

    @staticmethod
    def from_json(found: Any) -> Rollout:
        """Raises KeyError, TypeError, ValueError or InvalidRequest when it is none."""
        return Rollout(
            found["incumbent"], found["candidate"], plan_schema.parsed(found["plan"]), routings.traffic_of(found["origin"]),
            Progress.from_dict(found["progress"]), found["status"], tuple(found["reasons"]), found["started_s"], found["ended_s"],
            Evidence.from_dict(found["last"]),
        )  # fmt: skip


class Conductor:
    """All of it on the event loop's thread, but for what move() has done on the registry's."""

    def __init__(self, store: Store, book: Book, move: Move, note: Note, clock: Callable[[], float] = time.time,
                 quality: Callable[[str, str], Moments] = lambda model, version: Moments()) -> None:
        """move: Keeper.change(). clock: seconds since 1970. quality: Quality.quality_of()."""
        self._store, self._book, self._move, self._note, self._clock, self._quality = store, book, move, note, clock, quality
        self._rollouts: dict[str, Rollout] = {}
        self._decisions: dict[str, Decision] = {}
        self._told_before: dict[tuple[str, str], Moments] = {}  # by model and version: of the quality, what was told before its counters began at 0
        self._counting: dict[str, tuple[object, ...]] = {}  # the versions whose counters go on; others begin at 0
        self._kept_at: dict[str, float] = {}
        self._moving: dict[str, Future[None]] = {}
        for model, kept in store.all(ROLLOUT).items():
            try:
                self._rollouts[model] = Rollout.from_json(kept)
            except (KeyError, TypeError, ValueError, InvalidRequest) as error:
                log.warning("rollout_ignored", name=model, reason=f"what was kept of it cannot be read: {error!r}")

    # Calls.
    def start(self, model: ModelStatus, candidate: str, plan: Plan) -> Future[None]:
        """Done when its first step is in force. Raises InvalidRequest or NotFound."""
        if (running := self._rollouts.get(model.name)) and running.status == RUNNING:
            raise InvalidRequest(f"a rollout of version {running.candidate} runs already: abort it first")
        standard, found = model.pick(), model.versions.get(candidate)
        if found is None:
            raise NotFound(f"model {model.name} has no version {candidate}; it has {', '.join(model.versions)}")
        if found.state != "READY":
            raise InvalidRequest(f"version {candidate} is {found.state}{': ' + found.reason if found.reason else ''}")
        if standard is None or standard.number == candidate:
            raise InvalidRequest(
                f"version {candidate} has the traffic already: give it to the other version first (`batchmill promote {model.name} VERSION`), "
                "or publish the next version to a model that has a route"
            )
        routing, now = self._book.routing(model.name), self._clock()
        origin = routing.traffic if routing.traffic.weights else routings.alone(standard.number)
        counters = self._counted(model, standard.number, candidate)
        rollout = Rollout(standard.number, candidate, plan, origin, Progress(since_s=now, before=counters), started_s=now, last=counters)
        done = self._enter(model, rollout)
        self._told("rollout.started", model.name, rollout, {"after": {"step": rollout.step.name, "incumbent": rollout.incumbent}})
        return done

    def approve(self, name: str) -> None:
        rollout = self._running(name)
        self._keep(name, replace(rollout, progress=rollout.progress.approve()))
        self._told("rollout.approved", name, rollout, {"after": {"step": rollout.step.name}})

    def abort(self, model: ModelStatus, reason: str = "aborted by a call") -> Future[None]:
        return self._end(model, self._running(model.name), ABORTED, (reason,))

    def told(self, name: str) -> dict[str, Any]:
        """The last rollout of a model and how it stands. NotFound: there was none."""
        rollout = self._rollouts.get(name)
        if rollout is None:
            raise NotFound(f"there is no rollout of model {name[:200]!r}")
        decision = self._decisions.get(name)
        return {
            "model": name, "status": rollout.status, "incumbent": rollout.incumbent, "candidate": rollout.candidate,
            "step": rollout.step.name, "steps": [step.name for step in rollout.plan.steps], "reasons": [*rollout.reasons],
            "started_s": rollout.started_s, "ended_s": rollout.ended_s or None, "approved": rollout.progress.approved,
            "decision": decision.as_dict() if decision else None, "plan": rollout.plan.as_dict(),
        }  # fmt: skip

    # Looks.
    async def follow(self, models: Callable[[], Mapping[str, ModelStatus]]) -> None:
        """Until it is cancelled."""
        await every(LOOK_SECS, lambda: self.tick(models()), "rollout")

    def tick(self, models: Mapping[str, ModelStatus]) -> None:
        """Every now and then, as often as one likes."""
        for name, rollout in [*self._rollouts.items()]:
            model = models.get(name)
            if model is not None and (moving := self._moving.get(name)) and not moving.done():
                continue
            if model is not None and rollout.status == RUNNING:
                self._look(model, rollout)
            elif model is not None and rollout.status == COMPLETED:
                self._settle(model, rollout)

    def _look(self, model: ModelStatus, rollout: Rollout) -> None:
        now = self._clock()
        for number in (rollout.candidate, rollout.incumbent):
            version = model.versions.get(number)
            if version is None or version.state == "FAILED":
                if number == rollout.incumbent:
                    return  # nothing to go back to: what is wrong with it is told elsewhere
                self._end(model, rollout, ROLLED_BACK, (f"version {number} {'is gone' if version is None else 'failed: ' + version.reason}",))
                return
            if version.state != "READY":
                return
        counters = self._counted(model, rollout.incumbent, rollout.candidate)
        counting = tuple(model.versions[number].served for number in (rollout.incumbent, rollout.candidate))
        if self._counting.get(model.name) != counting:
            if model.name in self._counting or now - rollout.started_s > KEEP_SECS:
                rollout = replace(rollout, progress=rollout.progress.without_counters(rollout.last))
                for number in (rollout.incumbent, rollout.candidate):
                    self._told_before[model.name, number] = self._quality(model.name, number)
                counters = self._counted(model, rollout.incumbent, rollout.candidate)
            self._counting[model.name] = counting
        rollout = replace(rollout, last=counters)
        self._rollouts[model.name] = rollout
        decision = self._decisions[model.name] = engine.decide(rollout.plan, rollout.progress, counters, now)
        if decision.outcome == engine.ROLL_BACK:
            self._end(model, rollout, ROLLED_BACK, decision.reasons)
        elif decision.outcome == engine.PROMOTE:
            self._note_step(model.name, rollout, decision)
            self._enter(model, replace(rollout, progress=rollout.progress.next_step(counters, now)))
        elif decision.outcome == engine.COMPLETE:
            self._keep(model.name, replace(rollout, status=COMPLETED, ended_s=now, reasons=decision.reasons))
            self._told("rollout.completed", model.name, rollout, {"reason": "; ".join(decision.reasons)})
        elif now - self._kept_at.get(model.name, 0.0) > KEEP_SECS:
            self._keep(model.name, rollout)

    def _counted(self, model: ModelStatus, incumbent: str, candidate: str) -> Evidence:
        found = evidence_of(model, incumbent, candidate)

        def told(number: str) -> Moments:
            return self._quality(model.name, number).minus(self._told_before.get((model.name, number), Moments()))

        old, new = replace(found.incumbent, quality=told(incumbent)), replace(found.candidate, quality=told(candidate))
        return replace(found, incumbent=old, candidate=new)

    def _settle(self, model: ModelStatus, rollout: Rollout) -> None:
        if self._clock() - rollout.ended_s > rollout.plan.keep_warm_secs and self._book.routing(model.name).before == rollout.origin:
            self._change(model.name, routings.settled)

    # What is done.
    def _enter(self, model: ModelStatus, rollout: Rollout) -> Future[None]:
        """Puts the rollout's step in force. A shadow that is set begins to count at 0."""
        before = replace(rollout.progress.before, shadow=evidence.Shadow())
        self._keep(model.name, replace(rollout, progress=replace(rollout.progress, before=before)))
        self._decisions.pop(model.name, None)
        share, is_shadow = rollout.step.share, rollout.step.shadow
        weights = dict(rollout.origin.weights) if is_shadow else {rollout.incumbent: 100 - share, rollout.candidate: share}
        shadow = Shadow(rollout.candidate, share / 100, agree_by=AGREE_BY) if is_shadow else None
        return self._change(model.name, routings.stepped(weights, rollout.origin, rollout.candidate, shadow))

    def _end(self, model: ModelStatus, rollout: Rollout, status: str, reasons: tuple[str, ...]) -> Future[None]:
        self._keep(model.name, replace(rollout, status=status, ended_s=self._clock(), reasons=reasons))
        done = self._change(model.name, routings.returned(rollout.origin, rollout.candidate))
        self._told(f"rollout.{status}", model.name, rollout, {
            "before": {"step": rollout.step.name}, "after": {"weights": dict(rollout.origin.weights)}, "reason": "; ".join(reasons)})  # fmt: skip
        return done

    def _note_step(self, name: str, rollout: Rollout, decision: Decision) -> None:
        after = rollout.plan.steps[rollout.progress.step + 1].name
        self._told("rollout.promoted", name, rollout, {
            "before": {"step": rollout.step.name}, "after": {"step": after}, "reason": "; ".join(decision.reasons)})  # fmt: skip

    def _change(self, name: str, change: Change) -> Future[None]:
        def ignore(before: Routing, after: Routing) -> None:
            """The rollout itself tells of it."""

        self._moving[name] = self._move(name, self._book.changed(change, ignore))
        return self._moving[name]

    def _keep(self, name: str, rollout: Rollout) -> None:
        self._rollouts[name], self._kept_at[name] = rollout, self._clock()
        self._store.put(ROLLOUT, name, rollout.to_json())

    def _told(self, action: str, name: str, rollout: Rollout, about: Mapping[str, Any]) -> None:
        log.info(action.replace(".", "_"), name=name, version=rollout.candidate, step=rollout.step.name, reason=about.get("reason", ""))
        self._note(action, name, rollout.candidate, about)

    def _running(self, name: str) -> Rollout:
        rollout = self._rollouts.get(name)
        if rollout is None or rollout.status != RUNNING:
            raise InvalidRequest(f"no rollout of model {name[:200]} runs")
        return rollout
