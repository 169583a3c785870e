"""Carries rollouts out: looks at what was counted, asks the engine, and moves the traffic. At most one rollout of a model at a time.

RUNNING -> COMPLETED | ROLLED_BACK | ABORTED. Each change is one swap of the route; where a rollout stands is kept in the state.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Any

from batchmill.errors import InvalidRequest, NotFound
from batchmill.logs import Log
from batchmill.periodic import every
from batchmill.registry.naming import Shadow
from batchmill.registry.status import ModelStatus
from batchmill.rollout import engine, evidence, plan_schema
from batchmill.rollout import routing as routings
from batchmill.rollout.book import Book
from batchmill.rollout.candidates import Waiting, files_of, next_of
from batchmill.rollout.counted import evidence_of
from batchmill.rollout.engine import Decision, Progress
from batchmill.rollout.evidence import Evidence, Moments
from batchmill.rollout.plan import Plan, Step
from batchmill.rollout.routing import Change, Routing, Traffic
from batchmill.store import ROLLOUT, Store

log = Log(__name__)
RUNNING, COMPLETED, ROLLED_BACK, ABORTED = "running", "completed", "rolled_back", "aborted"
NONE = "none"  # so far, of a model whose policy begins them
CALL, POLICY = "call", "policy"
LOOK_SECS = 0.5
AGREE_BY = "argmax"  # two trainings of a classifier name the same class, and never the same numbers; other outputs: by tolerance
KEEP_SECS = 10.0  # between two times that the counters are kept: what a crash may cost of a step's evidence
Note = Callable[[str, str, str, Mapping[str, Any]], None]  # action, model, version, {"before": ..., "after": ..., "reason": ...}
Move = Callable[[str, Callable[[ModelStatus, Collection[int]], None]], Future[None]]


@dataclass(frozen=True, slots=True)
class Rollout:
    """origin: the traffic before it. last: the counters when they were seen last. Times: seconds since 1970. by: call or policy.

    files: the candidate's, as files_of() has them. decided: Routing's, when it began.
    """

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
    by: str = CALL
    files: str = ""
    decided: int = 0

    @property
    def weights(self) -> dict[str, float]:
        """Those of its step."""
        if self.step.shadow:
            return dict(self.origin.weights)
        shares = {self.incumbent: 100 - self.step.share, self.candidate: self.step.share}
        return {version: share for version, share in shares.items() if share > 0}

    def is_in_force(self, routing: Routing) -> bool:
        return routing.traffic.weights == self.weights and (not self.step.shadow or any(one.version == self.candidate for one in routing.shadows))

    @property
    def step(self) -> Step:
        return self.plan.steps[self.progress.step]

    def to_json(self) -> dict[str, Any]:
        return {
            "incumbent": self.incumbent, "candidate": self.candidate, "plan": self.plan.as_dict(), "origin": routings.traffic_json(self.origin),
            "progress": self.progress.as_dict(), "status": self.status, "reasons": [*self.reasons], "started_s": self.started_s,
            "ended_s": self.ended_s, "last": self.last.as_dict(), "by": self.by, "files": self.files, "decided": self.decided,
        }  # fmt: skip

    @staticmethod
    def from_json(found: Any) -> Rollout:
        """Raises KeyError, TypeError, ValueError or InvalidRequest when it is none."""
        return Rollout(
            found["incumbent"], found["candidate"], plan_schema.parsed(found["plan"]), routings.traffic_of(found["origin"]),
            Progress.from_dict(found["progress"]), found["status"], tuple(found["reasons"]), found["started_s"], found["ended_s"],
            Evidence.from_dict(found["last"]), found.get("by", CALL), found.get("files", ""), found.get("decided", 0),
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
        self._waiting: dict[str, tuple[Waiting, ...]] = {}  # of all models with a rollout policy
        for model, kept in store.all(ROLLOUT).items():
            self._read(model, kept)

    # Calls.
    def start(self, model: ModelStatus, candidate: str, plan: Plan, by: str = CALL) -> Future[None]:
        """Done when its first step is in force. Raises InvalidRequest or NotFound."""
        if (running := self._last(model.name)) and running.status == RUNNING:
            raise InvalidRequest(f"a rollout of version {running.candidate} runs already: abort it first")
        if self._is_moving(model.name):
            raise InvalidRequest("the traffic is just being given back by the rollout before: try again")
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
        origin = routing.traffic if standard.number in routing.traffic.weights else routings.alone(standard.number)
        counters = self._counted(model, standard.number, candidate)
        rollout = Rollout(
            standard.number, candidate, plan, origin, Progress(since_s=now, before=counters), started_s=now, last=counters,
            by=by, files=files_of(model, candidate), decided=routing.decided,
        )  # fmt: skip
        done = self._enter(model, rollout)
        reason = {"reason": "by the model's own policy (rollout in model.yaml)"} if by == POLICY else {}
        self._told("rollout.started", model.name, rollout, {"after": {"step": rollout.step.name, "incumbent": rollout.incumbent}, **reason})
        return done

    def approve(self, name: str) -> None:
        rollout = self._running(name)
        self._keep(name, replace(rollout, progress=rollout.progress.approve()))
        self._told("rollout.approved", name, rollout, {"after": {"step": rollout.step.name}})

    def abort(self, model: ModelStatus, reason: str = "aborted by a call") -> Future[None]:
        return self._end(model, self._running(model.name), ABORTED, (reason,))

    def told(self, name: str) -> dict[str, Any]:
        """The last rollout of a model and how it stands; what waits. NotFound: there was none, and no policy begins one."""
        rollout = self._last(name)
        waiting = {"waiting": [asdict(one) for one in self._waiting.get(name, ())]}
        if rollout is None and name in self._waiting:
            return {"model": name, "status": NONE, "incumbent": "", "candidate": "", "step": "", "steps": [], "reasons": [], "started_s": None,
                    "ended_s": None, "approved": False, "decision": None, "plan": None, "by": POLICY, **waiting}  # fmt: skip
        if rollout is None:
            raise NotFound(f"there is no rollout of model {name[:200]!r}")
        decision = self._decisions.get(name)
        # Who reads that it has ended relies on the traffic.
        status = RUNNING if self._is_moving(name) and rollout.status != COMPLETED else rollout.status
        return {
            "model": name, "status": status, "incumbent": rollout.incumbent, "candidate": rollout.candidate,
            "step": rollout.step.name, "steps": [step.name for step in rollout.plan.steps], "reasons": [*rollout.reasons],
            "started_s": rollout.started_s, "ended_s": rollout.ended_s or None, "approved": rollout.progress.approved,
            "decision": decision.as_dict() if decision else None, "plan": rollout.plan.as_dict(), "by": rollout.by, **waiting,
        }  # fmt: skip

    # Looks.
    async def follow(self, models: Callable[[], Mapping[str, ModelStatus]]) -> None:
        """Until it is cancelled."""
        await every(LOOK_SECS, lambda: self.tick(models()), "rollout")

    def tick(self, models: Mapping[str, ModelStatus]) -> None:
        """Every now and then, as often as one likes."""
        self._waiting = {name: waiting for name, waiting in self._waiting.items() if name in models and models[name].settings.rollout}
        for name in [*self._rollouts]:
            model, rollout = models.get(name), self._last(name)
            if model is None or rollout is None or self._is_moving(name):
                continue
            if rollout.status == RUNNING:
                self._look(model, rollout)
            elif rollout.status == COMPLETED:
                self._settle(model, rollout)
        for model in models.values():
            if model.settings.rollout:
                self._follow_policy(model, model.settings.rollout)

    def _follow_policy(self, model: ModelStatus, plan: Plan) -> None:
        """Begins with the next version, once nothing moves any more, and tells why others wait."""
        rollout, routing, standard = self._last(model.name), self._book.routing(model.name), model.pick()
        before = self._waiting.setdefault(model.name, ())
        if standard is None or self._is_moving(model.name) or model.naming.generation != routing.generation:
            return  # the model as it was published last may be older than its route
        runs = rollout if rollout and rollout.status == RUNNING else None
        incumbent, running = (runs.incumbent, runs.candidate) if runs else (standard.number, "")
        candidate, waiting = next_of(model, routing.seen, incumbent, running)
        self._waiting[model.name] = waiting
        for one in waiting:
            if one not in before:
                log.info("rollout_waits", name=model.name, version=one.version, reason=one.reason)
        if candidate:
            self.start(model, candidate, plan, POLICY)

    def _look(self, model: ModelStatus, rollout: Rollout) -> None:
        routing, moved = self._book.routing(model.name), self._moving.pop(model.name, None)
        if moved and (error := moved.exception()):
            self._end(model, rollout, ABORTED, (f"{rollout.step.name} could not begin: {error}",))
        elif routing.decided != rollout.decided:
            self._end(model, rollout, ABORTED, ("a call has moved the traffic",))
        elif problem := problem_of(model, rollout.candidate):
            self._end(model, rollout, ROLLED_BACK, (problem,))
        elif rollout.files and model.pick(rollout.candidate) and files_of(model, rollout.candidate) != rollout.files:
            self._end(model, rollout, ABORTED, (f"the files of version {rollout.candidate} have changed: what was counted is of others",))
        elif not rollout.is_in_force(routing):  # the process ended between the step and its route, or its shadow was stopped
            self._enter(model, rollout)
        elif model.pick(rollout.candidate) and model.pick(rollout.incumbent):  # without it there is nothing to go back to, as is told elsewhere
            rollout = self._rollouts[model.name] = self._counting_on(model, rollout)
            self._act(model, rollout, engine.decide(rollout.plan, rollout.progress, rollout.last, self._clock()))

    def _counting_on(self, model: ModelStatus, rollout: Rollout) -> Rollout:
        """With the counters as they are now. Where they have begun at 0, what the step had before is carried on."""
        counting = tuple(model.versions[number].served for number in (rollout.incumbent, rollout.candidate))
        if self._counting.get(model.name) != counting:
            if model.name in self._counting or self._clock() - rollout.started_s > KEEP_SECS:
                rollout = replace(rollout, progress=rollout.progress.without_counters(rollout.last))
                for number in (rollout.incumbent, rollout.candidate):
                    self._told_before[model.name, number] = self._quality(model.name, number)
            self._counting[model.name] = counting
        return replace(rollout, last=self._counted(model, rollout.incumbent, rollout.candidate))

    def _act(self, model: ModelStatus, rollout: Rollout, decision: Decision) -> None:
        now = self._clock()
        self._decisions[model.name] = decision
        if decision.outcome == engine.ROLL_BACK:
            self._end(model, rollout, ROLLED_BACK, decision.reasons)
        elif decision.outcome == engine.PROMOTE:
            self._note_step(model.name, rollout, decision)
            self._enter(model, replace(rollout, progress=rollout.progress.next_step(rollout.last, now)))
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
        shadow = Shadow(rollout.candidate, rollout.step.share / 100, agree_by=AGREE_BY) if rollout.step.shadow else None
        step = routings.stepped(rollout.weights, rollout.origin, rollout.candidate, rollout.decided, shadow)
        is_first = rollout.progress.step == 0
        passed = {number: files_of(model, number) for number in model.versions if is_first and int(number) <= int(rollout.candidate)}
        return self._change(model.name, lambda routing, standard: routings.with_seen(step(routing, standard), passed))

    def _end(self, model: ModelStatus, rollout: Rollout, status: str, reasons: tuple[str, ...]) -> Future[None]:
        """Has ended once the traffic is back: both are written at once, and told then. See _last()."""
        ended, name = replace(rollout, status=status, ended_s=self._clock(), reasons=reasons), model.name
        back, tried = routings.returned(rollout.origin, rollout.candidate, rollout.decided), {rollout.candidate: rollout.files}

        def note(_: Routing, after: Routing) -> None:
            self._store.put(ROLLOUT, name, ended.to_json())
            self._told(f"rollout.{status}", name, rollout, {
                "before": {"step": rollout.step.name}, "after": {"weights": dict(after.traffic.weights)}, "reason": "; ".join(reasons)})  # fmt: skip

        self._rollouts[name] = ended
        return self._change(name, lambda routing, standard: routings.with_seen(back(routing, standard), tried), note)

    def _note_step(self, name: str, rollout: Rollout, decision: Decision) -> None:
        after = rollout.plan.steps[rollout.progress.step + 1].name
        self._told("rollout.promoted", name, rollout, {
            "before": {"step": rollout.step.name}, "after": {"step": after}, "reason": "; ".join(decision.reasons)})  # fmt: skip

    def _change(self, name: str, change: Change, note: Callable[[Routing, Routing], None] | None = None) -> Future[None]:
        self._moving[name] = self._move(name, self._book.changed(change, note))
        return self._moving[name]

    def _last(self, name: str) -> Rollout | None:
        """A model's last rollout. One whose traffic could not be given back, as its model is gone from the registry, has not ended."""
        rollout, moved = self._rollouts.get(name), self._moving.get(name)
        if rollout and rollout.status in (ROLLED_BACK, ABORTED) and moved and moved.done() and moved.exception():
            del self._moving[name]
            self._read(name, self._store.get(ROLLOUT, name))
        return self._rollouts.get(name)

    def _read(self, name: str, kept: Any) -> None:
        try:
            self._rollouts[name] = Rollout.from_json(kept)
        except (KeyError, TypeError, ValueError, InvalidRequest) as error:
            log.warning("rollout_ignored", name=name, reason=f"what was kept of it cannot be read: {error!r}")

    def _is_moving(self, name: str) -> bool:
        moving = self._moving.get(name)
        return moving is not None and not moving.done()

    def _keep(self, name: str, rollout: Rollout) -> None:
        self._rollouts[name], self._kept_at[name] = rollout, self._clock()
        self._store.put(ROLLOUT, name, rollout.to_json())

    def _told(self, action: str, name: str, rollout: Rollout, about: Mapping[str, Any]) -> None:
        log.info(action.replace(".", "_"), name=name, version=rollout.candidate, step=rollout.step.name, reason=about.get("reason", ""))
        self._note(action, name, rollout.candidate, about)

    def _running(self, name: str) -> Rollout:
        rollout = self._last(name)
        if rollout is None or rollout.status != RUNNING:
            raise InvalidRequest(f"no rollout of model {name[:200]} runs")
        return rollout


def problem_of(model: ModelStatus, candidate: str) -> str:
    """Why a candidate cannot go on; empty: it can, or will."""
    version = model.versions.get(candidate)
    if version is None:
        return f"version {candidate} is gone"
    return f"version {candidate} failed: {version.reason}" if version.state == "FAILED" else ""
