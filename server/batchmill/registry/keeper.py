"""Keeps what is served in step with a registry directory: look, let settle, load, swap, retire.

One thread owns the state. It is woken by file events, by loads that ended and by calls, and looks at the directory every so
often in any case. A version that cannot be loaded touches nothing: what served before goes on, and the reason is told.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

from batchmill.errors import BatchmillError, InternalError, NotFound, RegistryGone, StartError
from batchmill.logs import Log
from batchmill.registry import layout, watch
from batchmill.registry.entry import Call, Entry, Loaded, tell_new
from batchmill.registry.layout import ModelFolder
from batchmill.registry.naming import Naming, of_file
from batchmill.registry.publication import Models, Publication
from batchmill.registry.reconcile import Kept, decide
from batchmill.registry.settings import ModelSettings
from batchmill.registry.settle import STILL_SECS
from batchmill.registry.signature import interface, refusal_of
from batchmill.registry.status import ModelStatus, VersionStatus
from batchmill.registry.tuning import Change
from batchmill.store import TUNING, Store

log = Log(__name__)
FAULT_SECS = 1.0  # after a fault of ours, so that the log is not flooded
LOADERS = 2
Load = Callable[[str, int, Path, ModelSettings], VersionStatus]


class Keeper:
    """start() begins with the first pass over the registry. publish gets all models whenever something changed, and whether
    the first pass has ended; retire gets versions that are in no published table any more; adjust gives a loaded version what of
    other settings needs no loading. All are called by the keeper's thread.
    """

    def __init__(
        self, root: Path, load: Load, publish: Callable[[Models, bool], None], retire: Callable[[VersionStatus], None], *,
        adjust: Callable[[VersionStatus, ModelSettings], None], poll_secs: float | None = None, watched: bool = True,
        only: Collection[str] | None = None, store: Store | None = None, naming: Callable[[str, ModelSettings], Naming] | None = None,
        clock: Callable[[], float] = time.monotonic, loaders: Executor | None = None,
    ) -> None:  # fmt: skip
        """only: load these at the start, and afterwards what load calls ask for, with "*" for all. None: everything, always.

        store: keeps what calls set. naming: what labels and routes a model has, by its name and settings. clock: seconds. loaders: run the loads.
        """
        self._root = root
        self._load = load
        self._publication = Publication(publish, retire, clock)
        self._adjust = adjust
        self._poll_secs = poll_secs or watch.poll_secs(root)
        self._watched = watched
        self._only = only
        self._store, self._clock = store or Store(), clock
        self._naming = naming or (lambda _, settings: of_file(settings.labels))
        self._entries: dict[str, Entry] = {}
        self._events: queue.SimpleQueue[Loaded | Call | None] = queue.SimpleQueue()
        self._loaders = loaders or ThreadPoolExecutor(LOADERS, "load")
        self._complete = self._vanished = self._stopped = False
        self._looked_at = 0.0
        self._notes: tuple[str, ...] = ()  # what is ignored beside the models
        self.published = self._publication.first

    def start(self) -> None:
        threading.Thread(target=self._run, name="registry", daemon=True).start()

    def stop(self) -> bool:
        """Begins no more loads. Whether one is under way, which cannot be broken off."""
        self._stopped = True
        self._loaders.shutdown(wait=False, cancel_futures=True)
        self._events.put(None)
        return any(entry.loading for entry in self._entries.values())

    def wake(self) -> None:
        self._events.put(None)

    # Calls: from any thread.
    def load(self, name: str, publish: Callable[[], None] | None = None) -> Future[None]:
        """Looks at a model's folder now, and tries again what failed. Done when its versions serve; fails with the reason when one does not.

        publish: called before, with no look at the registry between its steps.
        """
        return self._call(lambda done: self._load_called(name, done, publish))

    def withdraw(self, name: str, undo: Callable[[], None]) -> Future[None]:
        """Takes back what a load has published; then the same as load(), and a model that has no folder any more is forgotten."""
        return self._call(lambda done: self._withdraw_called(name, done, undo))

    def reload(self, first: Callable[[], None], *, models: bool = True) -> Future[None]:
        """first(), then the same as load() of all models but those out of service by will. Done when it has begun."""
        return self._call(lambda done: self._reload_called(done, first, models))

    def unload(self, name: str) -> Future[None]:
        """Takes a model out of service until load() or a change in its folder."""
        return self._call(lambda done: self._unload_called(name, done))

    def tune(self, name: str, change: Change) -> Future[None]:
        """Changes what calls have set of how a model is served. Done when it is in force and told."""
        return self._call(lambda done: self._tune_called(name, done, change))

    def change(self, name: str, act: Callable[[ModelStatus, Collection[int]], None]) -> Future[None]:
        """act(status, versions that are there), on the keeper's thread: sets what naming() tells. Done when all of it is in force."""
        return self._call(lambda done: self._change_called(name, done, act))

    def _call(self, act: Callable[[Future[None]], None]) -> Future[None]:
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # a caller who goes away cannot cancel it: it will be told all the same
        self._events.put(Call(act, done))
        return done

    # The keeper's thread.
    def _run(self) -> None:
        step = self.first_look
        while not self._stopped:
            try:
                step()
            except Exception:  # ours: the thread goes on, else no change of the registry would be followed any more
                log.exception("registry_fault")
                self._publication.changed = True
                time.sleep(FAULT_SECS)
            step = self.turn

    def first_look(self) -> None:
        self._look(first=True)

    def turn(self, most_secs: float = math.inf) -> None:
        """Tells what has changed, then waits until there is something to do, but no longer than that, and does it."""
        self._publication.publish(self._entries, self._complete)
        self._publication.answer(self._entries)
        if self._take_events(max(0.0, min(most_secs, self._due() - self._clock()))):
            self._look()

    def _due(self) -> float:
        """When to stop waiting for events."""
        return min(self._look_due(), self._publication.due(), self._clock() + 3600)

    def _look_due(self) -> float:
        return self._looked_at + (STILL_SECS + 0.05 if self._is_waiting() else self._poll_secs) if self._is_looking() else math.inf

    def _take_events(self, wait_secs: float) -> bool:
        """Handles what comes until then. Whether to look at the registry: there was a hint, or it is time."""
        hinted = False
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=wait_secs)
            while True:
                if event is None:
                    hinted = True
                elif isinstance(event, Loaded):
                    self._on_loaded(event)
                else:
                    self._on_call(event)
                event = self._events.get_nowait()
        return self._is_looking() and (hinted or self._clock() >= self._look_due()) and not self._stopped

    def _is_looking(self) -> bool:
        """Whether it looks by itself: all the time, or until what a start or a call asked for stands still."""
        return self._watched or not self._complete or self._is_waiting()

    def _on_call(self, call: Call) -> None:
        try:
            call.act(call.done)
        except BatchmillError as error:
            call.done.set_exception(error)
        except Exception:
            call.done.set_exception(InternalError())  # to the caller; the rest is in the log
            raise

    # Looking.
    def _look(self, first: bool = False) -> None:
        self._looked_at = self._clock()
        try:
            found = layout.scan(self._root)
        except (StartError, OSError) as error:
            return self._root_is_gone(str(error))
        folders = {folder.name: folder for folder in found.models}
        if self._entries and not folders:
            return self._root_is_gone(f"{self._root}: no model in it")
        if self._vanished:
            log.info("registry_back", path=str(self._root))
            self._vanished = False
        for name in [name for name in self._entries if name not in folders and self._is_asked_for(name)]:
            self._remove(name)
        self._notes = tell_new("", found.notes, self._notes)
        for folder in filter(lambda folder: self._is_asked_for(folder.name), folders.values()):
            self._update(folder)
        if first and not folders:
            log.warning("registry_empty", path=str(self._root))
        for name in sorted({*(self._only or ())} - {*folders, "*"}) if first else ():
            log.error("model_failed", name=name, reason="--load-model: the registry has no such model")
        self._check_complete()

    def _is_asked_for(self, name: str) -> bool:
        """Whether a look may change this model. By call alone: in the first pass, when it is new, and while a call waits for it."""
        return self._only is None or not self._complete or name not in self._entries or bool(self._entries[name].waiting)

    def _root_is_gone(self, reason: str) -> None:
        """An unmounted or emptied registry unloads nothing."""
        if not self._vanished:
            log.error("registry_vanished", reason=reason, serving=len(self._entries))
        self._vanished = True
        for entry in self._entries.values():
            entry.answer_waiting(RegistryGone())

    def _update(self, folder: ModelFolder) -> None:
        entry = self._entries.get(folder.name)
        if entry is None:
            entry = self._entries[folder.name] = Entry(folder, ModelStatus(folder.name), called=self._store.get(TUNING, folder.name) or {})
            self._publication.changed = True
            if self._only is not None and (self._complete or not {folder.name, "*"} & {*self._only}):
                entry.status.held, entry.status.reason = True, "not loaded: --model-control explicit waits for a load call"
        entry.notes = tell_new(folder.name, folder.notes, entry.notes)
        if entry.is_unreadable(folder):
            self._publication.changed |= entry.explain()
            return None
        if entry.status.held and self._only is None and (folder.stamps, folder.config) != (entry.folder.stamps, entry.folder.config):
            entry.status.held = False
        entry.folder = folder
        if entry.status.held:
            return entry.settling.keep_only(())
        if entry.config != folder.config:
            entry.read_config(self._adjust)
            self._publication.changed = True
        if not entry.problem or entry.status.versions:
            self._reconcile(entry)
        else:
            entry.settling.keep_only(())
        self._publication.changed |= entry.explain()

    def _reconcile(self, entry: Entry) -> None:
        status, folder = entry.status, entry.folder
        kept = {int(number): Kept(entry.stamps.get(int(number), ()), version.state == "READY", interface(version))
                for number, version in status.versions.items()}  # fmt: skip
        status.naming = self._naming(folder.name, status.settings)
        pinned, routed = ({int(number) for number in some} for some in ({*status.naming.pinned, *status.leads().values()}, status.naming.wanted))
        hold, trial = status.settings.signature_change == "hold", status.settings.rollout is not None
        entry.recall(self._store)
        plan = decide(folder.stamps, kept, entry.loading, status.settings.versions, pinned, entry.in_service, hold, routed, trial)
        for number in plan.load:
            if entry.settling.is_settled(number, folder.stamps[number], self._clock()):
                self._begin(entry, number)
        entry.settling.keep_only(plan.load)
        for number in plan.drop:
            self._drop(entry, number)
        self._publication.changed |= entry.mark(plan, routed)
        entry.keep(self._store)

    def _is_waiting(self) -> bool:
        """Whether files are awaited to stand still."""
        return any(entry.settling.waiting for entry in self._entries.values())

    # Loading.
    def _begin(self, entry: Entry, number: int) -> None:
        folder, stamp = entry.folder, entry.folder.stamps[number]
        entry.loading[number] = stamp
        if str(number) not in entry.status.versions:
            entry.status.add(VersionStatus(str(number), "LOADING"))
            self._publication.changed = True
        settings = entry.status.settings

        def work() -> None:
            try:
                status = self._load(folder.name, number, folder.versions[number], settings)
            except Exception:  # ours: what is wrong with a model is a FAILED status
                log.exception("version_failed", name=folder.name, version=str(number))
                status = VersionStatus(str(number), "FAILED", "internal error; the log has it")
            self._events.put(Loaded(folder.name, number, stamp, settings, status))

        if not self._stopped:
            self._loaders.submit(work)

    def _on_loaded(self, loaded: Loaded) -> None:
        entry = self._entries.get(loaded.name)
        if entry is None or entry.loading.pop(loaded.number, None) is None or entry.status.held:
            return self._publication.let_go(loaded.status)
        fresh, number = loaded.status, str(loaded.number)
        before = entry.status.versions.get(number)
        settings = entry.status.settings
        if not layout.is_unchanged(loaded.stamp) or loaded.settings.for_loading() != settings.for_loading():
            self._publication.let_go(fresh)  # what was loaded may be half of the old and half of the new, or by settings that are no more
            entry.stamps.pop(loaded.number, None)
        else:
            entry.stamps[loaded.number] = loaded.stamp
            if before is None or before.state != "READY" or not (refused := refusal_of(entry.status, fresh, entry.in_service)):
                entry.status.add(fresh)
                self._adjust(fresh, settings)
                self._publication.let_go(before)
            else:
                before.reason = f"its files have changed, and were refused: {refused}"
                self._publication.let_go(fresh)
        self._publication.changed = True
        self._reconcile(entry)
        self._publication.changed |= entry.explain()
        self._check_complete()

    def _check_complete(self) -> None:
        """The first pass has ended when nothing loads and nothing is awaited."""
        if not self._complete and not self._is_waiting() and not any(entry.loading for entry in self._entries.values()):
            self._complete = self._publication.changed = True
            if self._watched:
                watch.start(self._root, self.wake)

    # Letting go.
    def _remove(self, name: str) -> None:
        entry = self._entries.pop(name)
        entry.answer_waiting(NotFound(f"the registry has no model {name[:200]!r}"))
        for version in entry.status.versions.values():
            self._publication.let_go(version)
        log.info("model_removed", name=name)
        self._publication.changed = True

    def _drop(self, entry: Entry, number: int) -> None:
        version = entry.status.versions.get(str(number))
        if version is None or number in entry.loading:
            return
        del entry.status.versions[str(number)]
        entry.stamps.pop(number, None)
        self._publication.let_go(version)
        self._publication.changed = True

    # What calls do.
    def _load_called(self, name: str, done: Future[None], publish: Callable[[], None] | None = None) -> None:
        if publish:
            publish()
        if name not in self._entries:
            self._look()
        entry = self._entries.get(name)
        if entry is None:
            raise NotFound(f"the registry has no model {name[:200]!r}")
        entry.status.held = False
        entry.try_again(done)
        self._look()

    def _withdraw_called(self, name: str, done: Future[None], undo: Callable[[], None]) -> None:
        undo()
        if (self._root / name).is_dir() or name not in self._entries:
            return self._load_called(name, done)
        self._remove(name)  # not by a look: to one, a registry that is empty now is one that is gone
        self._publication.tell(done)

    def _reload_called(self, done: Future[None], first: Callable[[], None], models: bool) -> None:
        first()
        for entry in self._entries.values() if models else ():
            if not entry.status.held:
                entry.try_again(Future())
        if models:
            self._look()
        self._publication.changed = True
        done.set_result(None)

    def _unload_called(self, name: str, done: Future[None]) -> None:
        for version in self._known(name).empty():
            self._publication.let_go(version)
        self._publication.changed = True
        log.info("model_unloaded", name=name)
        self._publication.tell(done)

    def _tune_called(self, name: str, done: Future[None], change: Change) -> None:
        self._publication.changed |= self._known(name).tune(change, self._adjust, self._store)
        self._publication.tell(done)

    def _change_called(self, name: str, done: Future[None], act: Callable[[ModelStatus, Collection[int]], None]) -> None:
        entry = self._known(name)
        if not {*map(int, entry.status.versions)} <= {*entry.folder.versions}:
            self._look()  # what serves without its folder ends when nobody reaches it: unless that is back
            entry = self._known(name)
        act(entry.status, {*entry.folder.versions, *map(int, entry.status.versions)})
        if entry.status.held:
            entry.status.naming = self._naming(name, entry.status.settings)
        else:
            self._reconcile(entry)
        self._publication.changed = True
        self._publication.tell(done)

    def _known(self, name: str) -> Entry:
        if name not in self._entries:
            raise NotFound(f"Request for unknown model {name[:200]!r}")
        return self._entries[name]
