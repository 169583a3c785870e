"""The labels and routes of all models, as calls have set them: kept in the state, and handed to the registry as names of versions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from batchmill.errors import InvalidRequest
from batchmill.logs import Log
from batchmill.registry.naming import Naming
from batchmill.registry.settings import PREVIOUS, ModelSettings
from batchmill.registry.status import ModelStatus
from batchmill.rollout import routing as routings
from batchmill.rollout import shadow as shadows
from batchmill.rollout.candidates import files_of
from batchmill.rollout.routing import Change, Routing
from batchmill.rollout.split import shares_of
from batchmill.store import ROUTE, Store

log = Log(__name__)


class Book:
    """What it tells may be asked for by any thread; it changes on the registry's thread alone, which asks change() to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._routings: dict[str, Routing] = {}
        self._counts: dict[str, dict[str, int]] = {}  # by model: what its versions had been given when its route was changed last

    def routing(self, model: str) -> Routing:
        found = self._routings.get(model)
        if found is None:
            found = self._routings[model] = self._read(model)
        return found

    def naming(self, model: str, settings: ModelSettings) -> Naming:
        found = routings.naming_of(self.routing(model), settings.labels)
        fallbacks = {one.version for one in settings.fallbacks if one.version and one.version != PREVIOUS}
        return replace(found, pinned=found.pinned | fallbacks) if fallbacks else found

    def changed(
        self, change: Change, note: Callable[[Routing, Routing], None] | None = None
    ) -> Callable[[ModelStatus, Collection[int]], None]:
        """For Keeper.change(). note: gets what was and what is; what it puts is written with the route, or neither is. Raises InvalidRequest
        when it names versions that the model does not have.
        """

        def act(status: ModelStatus, present: Collection[int]) -> None:
            before, standard = self.routing(status.name), status.pick()
            after = change(before, standard.number if standard else "")
            if after.decided != before.decided:  # who says so has seen what is there
                after = routings.with_seen(after, {number: files_of(status, number) for number in status.versions})
            if after.traffic != before.traffic:
                after = replace(after, awaited=not any(status.pick(version) for version in after.traffic.weights))
            if missing := sorted(version for version in after.versions - before.versions if int(version) not in present):
                there = ", ".join(map(str, sorted(present))) or "none"
                raise InvalidRequest(f"model {status.name} has no version {missing[0]}; it has {there}")
            self._routings[status.name] = after
            self._counts[status.name] = {number: version.served.routed for number, version in status.versions.items() if version.served}
            with self._store.together():
                self._store.put(ROUTE, status.name, routings.to_json(after))
                if note:
                    note(before, after)
            log.info("route_changed", name=status.name, **routings.summary(after))

        return act

    def told(self, model: ModelStatus) -> dict[str, Any]:
        """What `batchmill route` shows. observed: shares of the requests that named no version, since the route was changed."""
        routing, standard, counts = self.routing(model.name), model.pick(), self._counts.get(model.name, {})
        given = {number: version.served.routed - counts.get(number, 0) for number, version in model.versions.items() if version.served}
        configured, total = shares_of(routing.traffic.shares), sum(given.values())
        shares = {
            number: {"configured": configured.get(number, 0.0), "observed": given.get(number, 0) / total if total else None,
                     "requests": given.get(number, 0), "state": model.versions[number].state.lower() if number in model.versions else "absent"}
            for number in sorted({*configured, *(number for number, count in given.items() if count)}, key=int)
        }  # fmt: skip
        return {
            "model": model.name, "weights": dict(routing.traffic.weights), "generation": routing.generation,
            "rules": [{rule.kind: rule.name, "equals": rule.equals, "version": rule.version} for rule in routing.rules],
            "default": standard.number if standard else None, "shares": shares, "labels": dict(model.naming.labels),
            "stand_ins": {label: version for label, version in model.leads().items() if version != model.naming.labels[label]},
            "before": dict(routing.before.weights) if routing.before else None,
        }  # fmt: skip

    def told_shadows(self, model: ModelStatus) -> dict[str, Any]:
        """What `batchmill shadow` shows."""
        return {"model": model.name, "shadows": [shadows.told(model, one) for one in self.routing(model.name).shadows]}

    def told_worst(self, model: ModelStatus) -> dict[str, Any]:
        """By candidate, the worst first."""
        return {"model": model.name, "worst": {one.version: shadows.worst(model, one) for one in self.routing(model.name).shadows}}

    def _read(self, model: str) -> Routing:
        kept = self._store.get(ROUTE, model)
        try:
            return routings.from_json(kept) if kept else Routing()
        except (KeyError, TypeError, ValueError) as error:
            log.warning("route_ignored", name=model, reason=f"what was kept of it cannot be read: {error!r}")
            return Routing()
