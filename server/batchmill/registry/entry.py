"""What the keeper knows of a model, and what is told to its thread."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field

from batchmill.errors import BatchmillError, InvalidRequest, ModelError
from batchmill.logs import Log
from batchmill.registry import model_config, tuning
from batchmill.registry.layout import ModelFolder, Stamp
from batchmill.registry.loader import notes_on
from batchmill.registry.policy import problem_of
from batchmill.registry.reconcile import Plan
from batchmill.registry.settings import ModelSettings
from batchmill.registry.settle import Settling
from batchmill.registry.signature import hold_of
from batchmill.registry.status import ModelStatus, VersionStatus
from batchmill.store import IN_SERVICE, TUNING, Store

log = Log(__name__)
VANISHED = "its folder is gone; it serves on, as the model's route names it"
WAITS = "waits until its files stand still"


@dataclass(slots=True)
class Entry:
    """One model, as the keeper knows it. stamps: of each version's folder at its last try."""

    folder: ModelFolder
    status: ModelStatus
    stamps: dict[int, Stamp] = field(default_factory=dict)
    loading: dict[int, Stamp] = field(default_factory=dict)
    settling: Settling = field(default_factory=Settling)  # the versions to load whose files do not stand still yet
    config: Stamp | None = None  # of the model.yaml or config.pbtxt that was read last
    problem: str = ""  # of that file
    file: ModelSettings = field(default_factory=ModelSettings)  # what was read last without a problem
    called: tuning.Set = field(default_factory=dict)  # what calls have set
    notes: tuple[str, ...] = ()  # what is ignored in the folder
    unreadable: str = ""  # why the folder could not be read at the last look; folder is of the look before
    in_service: int = 0  # the version that gets default traffic; 0: none, or the model has not come to rest yet
    waiting: list[Future[None]] = field(default_factory=list)  # load calls, answered when the model has come to rest

    def forget_failures(self) -> None:
        """What failed, or was refused, is tried again."""
        for number, version in self.status.versions.items():
            if version.state == "FAILED" or version.reason:
                self.stamps.pop(int(number), None)

    def try_again(self, done: Future[None]) -> None:
        """What failed is, at the next look; then done is told."""
        self.forget_failures()
        if self.problem:
            self.config = None
        self.waiting.append(done)

    def read_config(self, adjust: Callable[[VersionStatus, ModelSettings], None]) -> None:
        """Reads a model.yaml or config.pbtxt that is new or changed. When it is wrong, what serves goes on by the settings it has."""
        folder, status = self.folder, self.status
        first, self.config = self.config is None, folder.config
        try:
            self.file = model_config.read_folder(folder.path, folder.name)
        except (BatchmillError, OSError) as error:
            event, said = ("settings_refused", "the edit was refused: ") if status.ready() else ("model_failed", "")
            self.problem = f"{said}{error}"
            log.error(event, name=folder.name, reason=self.problem)
            return
        settings = self._in_force()
        for note in notes_on(settings, folder):
            log.warning("model_note", name=folder.name, note=note)
        anew = not first and settings.for_loading() != status.settings.for_loading()
        if anew:
            self.stamps.clear()  # what is served was loaded otherwise: it is loaded anew beside itself
        if settings.signature_change != status.settings.signature_change:
            self.forget_failures()
        status.settings, self.problem = settings, ""
        for version in status.ready():
            adjust(version, settings)
        if not first:
            log.info("model_settings", name=folder.name, loads_anew=anew)
        if masked := [key for key in self.called if key in settings.given and settings.given[key] != self.called[key]]:
            log.info("model_note", name=folder.name, note=f"set by calls, which go before the file: {', '.join(masked)}")

    def _in_force(self) -> ModelSettings:
        try:
            return tuning.in_force(self.file, self.called)
        except InvalidRequest as error:  # what was set fitted another file, or another release
            log.warning("tuning_ignored", name=self.folder.name, reason=str(error))
            return self.file

    def tune(self, change: tuning.Change, adjust: Callable[[VersionStatus, ModelSettings], None], store: Store) -> bool:
        """Whether there is something to tell. InvalidRequest: what calls have set cannot be changed so, and is not."""
        is_first = self.config is None
        if is_first:  # out of service from the start
            self.read_config(adjust)
        called = change(self.called)
        settings = tuning.in_force(self.file, called)
        keys = [key for key in (*self.called, *called) if self.called.get(key) != called.get(key)]
        if not keys:
            return is_first
        self.called, self.status.settings = called, settings
        for version in self.status.ready():
            adjust(version, settings)
        if called:
            store.put(TUNING, self.folder.name, called)
        else:
            store.delete(TUNING, self.folder.name)
        now = {key: called.get(key, "taken back") for key in sorted({*keys})}
        log.info("model_tuned", name=self.folder.name, keys=" ".join(f"{key}={value}" for key, value in now.items()))
        return True

    def is_unreadable(self, folder: ModelFolder) -> bool:
        """Whether a look could not see into the folder: then what is loaded serves on."""
        if folder.problem and folder.problem != self.unreadable:
            log.error("model_failed", name=folder.name, reason=folder.problem)
        self.unreadable = folder.problem
        return bool(folder.problem)

    def explain(self) -> bool:
        """Tells why the model has no version at all, or why its settings were refused. Whether that has changed."""
        status, problem = self.status, problem_of(self.folder.versions, self.status.settings.versions)
        before, status.reason = status.reason, self.unreadable or self.problem
        if not status.reason and problem:
            status.reason = f"{problem}; version {self.in_service} serves on" if self.in_service else problem
            if self.folder.versions and status.reason != before:
                log.error("model_failed", name=status.name, reason=status.reason)
        elif not status.reason and not status.versions:
            status.reason = WAITS
        return before != status.reason

    def mark(self, plan: Plan, routed: Collection[int] = ()) -> bool:
        """Which versions get no default traffic, which of them are on hold, and which one has it. Whether that has changed.

        routed: those that the model's route names.
        """
        status, changed = self.status, self._mark_vanished(routed)
        for name, version in status.versions.items():
            pinned, reason = int(name) in plan.pinned, hold_of(status, version, self.in_service) if int(name) in plan.on_hold else ""
            changed |= (version.pinned, version.hold) != (pinned, reason)
            if reason and not version.hold:
                log.warning("version_on_hold", name=status.name, version=name, reason=reason)
            version.pinned, version.hold = pinned, reason
        # At a start the newest serves, whichever is loaded first: only what has come to rest is held against.
        if self.in_service or not (self.loading or self.settling.waiting):
            standard = status.pick()
            before, self.in_service = self.in_service, int(standard.number) if standard else 0
            if before and self.in_service and before != self.in_service:
                log.info("version_swapped", name=status.name, version=str(self.in_service), before=str(before))
        return changed

    def recall(self, store: Store) -> None:
        """The version that had the traffic before a start or an unload has it again, where newer ones get theirs by rollouts."""
        if self.status.settings.rollout and not self.in_service:
            self.in_service = store.get(IN_SERVICE, self.status.name) or 0

    def keep(self, store: Store) -> None:
        """What recall() needs."""
        kept = store.get(IN_SERVICE, self.status.name)
        if self.status.settings.rollout is None and kept:
            store.delete(IN_SERVICE, self.status.name)
        elif self.status.settings.rollout and self.in_service not in (0, kept):
            store.put(IN_SERVICE, self.status.name, self.in_service)

    def _mark_vanished(self, routed: Collection[int]) -> bool:
        changed = False
        for name, version in self.status.versions.items():
            is_gone = int(name) in routed and version.state == "READY" and int(name) not in self.folder.versions
            if is_gone != (version.reason == VANISHED):
                version.reason, changed = VANISHED if is_gone else "", True
                if is_gone:
                    log.warning("version_vanished", name=self.status.name, version=name, reason=VANISHED)
        return changed

    def answer_waiting(self, error: BatchmillError | None) -> None:
        for done in self.waiting:
            if done.done():  # told already: a fault of ours
                continue
            if error:
                done.set_exception(error)
            else:
                done.set_result(None)
        self.waiting.clear()

    def answer_at_rest(self) -> None:
        """Tells those who wait how it went, once nothing of the model loads or is awaited any more."""
        if not self.waiting or self.loading or self.settling.waiting:
            return
        reasons = [f"version {v.number}: {v.reason}" for v in self.status.versions.values() if v.reason]
        problem = "; ".join(reasons) or self.status.reason or ("" if self.status.pick() else "no version is ready")
        self.answer_waiting(ModelError(problem) if problem else None)

    def empty(self) -> list[VersionStatus]:
        """Out of service by will. What it had."""
        versions = [*self.status.versions.values()]
        for one in (self.status.versions, self.stamps, self.loading):
            one.clear()
        self.settling.keep_only(())
        self.in_service = 0
        self.status.held, self.status.reason = True, "unloaded by a call"
        self.answer_waiting(ModelError("the model was unloaded by another call"))
        return versions


@dataclass(frozen=True, slots=True)
class Loaded:
    name: str
    number: int
    stamp: Stamp
    settings: ModelSettings  # it was loaded by
    status: VersionStatus


@dataclass(frozen=True, slots=True)
class Call:
    act: Callable[[Future[None]], None]
    done: Future[None]


def tell_new(name: str, notes: tuple[str, ...], before: tuple[str, ...]) -> tuple[str, ...]:
    """Tells what is ignored in a model's folder, or beside the models (no name), once, not at every look."""
    for note in notes if notes != before else ():
        log.warning("model_note", name=name, note=note)
    return notes
