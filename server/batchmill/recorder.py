"""What becomes an audit entry: what the registry publishes, by comparing it with what it published before, and what callers have done."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from batchmill.audit import WAIT_SECS, Audit
from batchmill.chain import Event, Head
from batchmill.errors import BatchmillError, ModelError
from batchmill.logs import Log
from batchmill.registry.digests import digests
from batchmill.registry.entry import WAITS
from batchmill.registry.settings import ModelSettings
from batchmill.registry.status import ModelStatus, VersionStatus

if TYPE_CHECKING:
    import asyncio  # imported by those who have a loop: a start without one is measured

log = Log(__name__)
T = TypeVar("T")
REFUSALS_MAX = 20  # a minute that become entries: whoever is refused could fill the disk otherwise
VERIFY_PAUSE_SECS = 0.02  # after each 10 ms of work: a long trail takes longer, and requests do not notice
_OF_CALLS = ("tuning", "called", "notes", "without_effect")  # of the settings: told otherwise, or no change


class Seen(NamedTuple):
    """A version at one time: its status changes. identity: of the status, which a load replaces by one that may say the same."""

    identity: int
    version: VersionStatus
    served: object
    state: str
    reason: str
    hold: str


class ModelSeen(NamedTuple):
    versions: dict[str, Seen]
    traffic: str  # the version that gets default traffic; empty: none
    reason: str  # why it has no version at all; empty where it has been unloaded by a call
    settings: ModelSettings


class Change(NamedTuple):
    event: Event
    loaded: VersionStatus | None = None  # whose files belong to it


def seen(models: Mapping[str, ModelStatus]) -> dict[str, ModelSeen]:
    return {name: seen_of(model) for name, model in models.items()}


def seen_of(model: ModelStatus) -> ModelSeen:
    standard = model.pick()
    versions = {number: Seen(id(one), one, one.served, one.state, one.reason, one.hold) for number, one in model.versions.items()}
    return ModelSeen(versions, standard.number if standard else "", "" if model.held or model.reason == WAITS else model.reason, model.settings)


def changes(before: Mapping[str, ModelSeen], after: Mapping[str, ModelSeen]) -> Iterator[Change]:
    """What has become of the models, in the order of their names."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if new is None:
            assert old is not None
            yield Change(Event("model.removed", name, before={"versions": [*old.versions], "traffic": old.traffic or None}))
        elif new != old:
            yield from changes_of(name, old or ModelSeen({}, "", "", new.settings), new)


def changes_of(name: str, old: ModelSeen, new: ModelSeen) -> Iterator[Change]:
    if old.settings != new.settings and (differing := differing_settings(old.settings, new.settings)):
        yield Change(Event("settings.changed", name, before=differing[0], after=differing[1]))
    if new.reason and new.reason != old.reason:
        yield Change(Event("model.failed", name, outcome="failed", reason=new.reason))
    for number, one in new.versions.items():
        yield from changes_of_version(name, number, old.versions.get(number), one, new.settings)
    if new.traffic != old.traffic:
        yield Change(Event("traffic.moved", name, new.traffic, before={"version": old.traffic or None}, after={"version": new.traffic or None}))
    for number, was in old.versions.items():
        if number not in new.versions and was.state == "READY":
            yield Change(Event("version.unloaded", name, number))


def changes_of_version(name: str, number: str, was: Seen | None, one: Seen, settings: ModelSettings) -> Iterator[Change]:
    state = {"state": was.state.lower()} if was else None
    if one.state == "READY" and (was is None or was.served is not one.served):
        about = {"load_ms": one.version.load_ms, "batching": one.version.batching}
        after = {"state": "ready", **about, **({"lineage": settings.lineage} if settings.lineage else {})}
        yield Change(Event("version.ready", name, number, before=state, after=after), one.version)
    elif one.state == "FAILED" and (was is None or was.version is not one.version):
        yield Change(Event("version.failed", name, number, before=state, after={"state": "failed"}, outcome="failed", reason=one.reason))
    if one.state == "READY" and one.reason and (was is None or was.reason != one.reason):
        yield Change(Event("version.refused", name, number, outcome="refused", reason=one.reason))
    if one.hold != (was.hold if was else ""):
        yield Change(Event("version.held" if one.hold else "version.released", name, number, reason=one.hold))


def differing_settings(old: ModelSettings, new: ModelSettings) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Of a model's file, what it said before and says now; None: the same."""
    told = [{field.name: value_of(getattr(one, field.name)) for field in fields(one) if field.name not in _OF_CALLS} for one in (old, new)]
    names = [name for name in told[0] if told[0][name] != told[1][name]]
    return ({name: told[0][name] for name in names}, {name: told[1][name] for name in names}) if names else None


def value_of(value: Any) -> Any:
    if isinstance(value, tuple):
        return [value_of(one) for one in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


@dataclass(slots=True)
class Allowance:
    """So many in each minute, and a count of those over it."""

    most: int = REFUSALS_MAX
    since: float = 0.0
    taken: int = 0
    over: int = 0

    def take(self, now: float) -> int | None:
        """None: this one is over it. Else how many were, since the last that was not. now: seconds."""
        if now >= self.since + 60:
            self.since, self.taken = now, 0
        if self.taken >= self.most:
            self.over += 1
            return None
        self.taken += 1
        over, self.over = self.over, 0
        return over


class Recorder:
    """Makes entries. published() is for the registry's thread, call() and refused() for the event loop.

    A version's files are hashed by a thread of its own, and its entry comes when that is done: with the time it became ready.
    """

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self._seen: dict[str, ModelSeen] = {}
        self._was_complete = False
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._refusals = Allowance()
        self._calls: set[asyncio.Task[Any]] = set()

    def started(self, at: float, about: Mapping[str, object]) -> None:
        """at: in seconds since 1970."""
        self.audit.submit(Event("server.started", actor="start", after=about), at)

    def reloaded(self, before: Mapping[str, object], after: Mapping[str, object]) -> None:
        """What SIGHUP has changed of who may change something."""
        self.audit.submit(Event("server.reloaded", actor="signal", before=before, after=after))

    def stopped(self) -> None:
        """The last entry. What is not hashed by now is told without."""
        self._closing = True
        if self._thread:
            self._work.put(None)
            self._thread.join(WAIT_SECS)
        self.audit.submit(Event("server.stopped", actor="signal"))
        self.audit.close()

    def published(self, models: Mapping[str, ModelStatus], complete: bool) -> None:
        """complete: all models have been tried."""
        fresh, at = seen(models), time.time()
        actor = "registry" if self._was_complete else "start"
        for change in changes(self._seen, fresh):
            event = replace(change.event, actor=actor)
            if change.loaded is None:
                self.audit.submit(event, at)
            else:
                self._later(lambda event=event, version=change.loaded: self._hashed(event, version, at))  # type: ignore[misc]
        if complete and not self._was_complete:
            self._later(self._verify)
        self._seen, self._was_complete = fresh, complete or self._was_complete

    def rollout(self, action: str, model: str, version: str, about: Mapping[str, Any]) -> None:
        """What a rollout has done by itself, or what a call has had it do."""
        self.record(Event(action, model, version, actor="rollout", **about))

    def record(self, event: Event) -> Future[Head]:
        """Of anything else that happens."""
        return self.audit.submit(event)

    def refused(self, event: Event, error: BatchmillError) -> None:
        """A call that was not let in. Of many in a short time some are told, and the number of others."""
        over = self._refusals.take(time.monotonic())
        if over is not None:
            also = {"refused_besides": over} if over else event.after
            self.audit.submit(replace(event, outcome="refused", reason=str(error), after=also))

    async def call(self, event: Event, work: Coroutine[Any, Any, T], told: Callable[[], dict[str, Any]] = dict) -> T:
        """What work returns or raises, once it has been recorded how it ended, or WAIT_SECS later: no disk holds an answer up for longer.

        Goes on when its caller has gone. told: what of the event is only known at the end, by field.
        """
        import asyncio

        task = asyncio.get_running_loop().create_task(self._call(event, work, told))
        self._calls.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have gone, who would have asked for it

    async def _call(self, event: Event, work: Coroutine[Any, Any, T], told: Callable[[], dict[str, Any]]) -> T:
        import asyncio

        ended: dict[str, Any] = {"outcome": "failed", "reason": "internal error; the log has it"}
        try:
            result = await work
            ended = {"outcome": "ok"}
            return result
        except BatchmillError as error:
            was_let_in = isinstance(error, ModelError) or error.http_status in (500, 503)
            ended = {"outcome": "failed" if was_let_in else "refused", "reason": str(error)}
            raise
        finally:
            with contextlib.suppress(BatchmillError, TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(self.audit.submit(replace(event, **{**told(), **ended}))), WAIT_SECS)

    # The thread.
    def _later(self, work: Callable[[], object]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
            self._thread.start()
        self._work.put(work)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except BatchmillError as error:
                log.warning("audit_fault", reason=str(error))
            except Exception:  # ours
                log.exception("audit_fault")

    def _hashed(self, event: Event, version: VersionStatus, at: float) -> None:
        self.audit.submit(replace(event, files={} if self._closing else digests(version)), at)

    def _verify(self) -> None:
        if not self._closing and (verdict := self.audit.verify(pause_secs=VERIFY_PAUSE_SECS)).broken is None:
            log.info("audit_verified", entries=verdict.head.seq, head=f"{verdict.head.seq}:{verdict.head.hash}")
