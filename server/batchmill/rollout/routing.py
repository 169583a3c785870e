"""What calls have set of a model's labels and route, and what each call makes of it: values and pure functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any

from batchmill.errors import InvalidRequest
from batchmill.registry.naming import Naming, Rule, Shadow
from batchmill.rollout.split import Split, rebalanced

Weights = Mapping[str, float]
SHADOWS_MOST = 4  # message.hpp's Mirror::kShadows
SEEN_MOST = 100  # of the newest; a registry that keeps more old versions than these does not go back to them by itself


@dataclass(frozen=True, slots=True)
class Traffic:
    """weights: as they were set; empty: the newest version that is ready has all. shares: what follows from them and from those before."""

    weights: Weights = field(default_factory=dict)
    shares: Split = ()


@dataclass(frozen=True, slots=True)
class Routing:
    """labels: over those of model.yaml; None: taken away. before: the traffic that a rollback goes back to; None: there was no other."""

    labels: Mapping[str, str | None] = field(default_factory=dict)
    traffic: Traffic = Traffic()
    rules: tuple[Rule, ...] = ()
    before: Traffic | None = None
    generation: int = 0
    shadows: tuple[Shadow, ...] = ()  # one a version
    decided: int = 0  # how often calls, not rollouts, have said who gets the traffic
    seen: Mapping[str, str] = field(default_factory=dict)  # versions that no rollout begins with by itself while their files stay those
    awaited: bool = False  # none of the traffic's versions was ready when it was set: those before serve until one is

    @property
    def versions(self) -> frozenset[str]:
        """All that it names."""
        named = {version for version in self.labels.values() if version} | {rule.version for rule in self.rules}
        named |= {shadow.version for shadow in self.shadows}
        return frozenset(named | {*self.traffic.weights} | {*(self.before.weights if self.before else ())})


Change = Callable[[Routing, str], Routing]  # of what is set; and the number of the version that has the traffic where no weights are: '' for none


def naming_of(routing: Routing, of_file: Mapping[str, str]) -> Naming:
    """of_file: model.yaml's labels."""
    labels = {label: version for label, version in {**of_file, **routing.labels}.items() if version}
    shares, before = routing.traffic.shares, routing.before.shares if routing.before and routing.traffic.shares else ()
    pinned = frozenset({*labels.values()}) | routing.versions
    return Naming(labels, shares, before, routing.awaited, routing.rules, pinned, routing.generation, routing.shadows)


# Changes.
def with_route(weights: Weights, rules: tuple[Rule, ...]) -> Change:
    return lambda routing, standard: replace(by_call(moved(routing, weights, standard), routing), rules=rules)


def cleared(routing: Routing, _: str) -> Routing:
    """The newest version that is ready has the traffic again."""
    return replace(by_call(given(routing, Traffic()), routing), rules=())


def promoted(version: str) -> Change:
    """All traffic to one version; rules stay."""
    return lambda routing, standard: by_call(moved(routing, {version: 100.0}, standard))


def rolled_back(routing: Routing, standard: str) -> Routing:
    """The traffic before the last change, slot by slot. Raises InvalidRequest when there is none."""
    if routing.before is None:
        raise InvalidRequest("there is nothing to go back to: no call has moved the traffic of this model since it was cleared or a rollout ended")
    return by_call(given(routing, routing.before, in_force(routing, standard)))


def stepped(weights: Weights, origin: Traffic, candidate: str, decided: int, shadow: Shadow | None = None) -> Change:
    """A step of a rollout: a rollback goes to the traffic before its first, not before this one. shadow: of the candidate; None: it has none.
    decided: as it was when the rollout began: what calls have said since goes before it.
    """

    def change(routing: Routing, standard: str) -> Routing:
        if routing.decided != decided:
            return routing
        after = replace(without_shadow(moved(routing, weights, standard), candidate), before=origin)
        return shadowed(shadow)(after, standard) if shadow else after

    return change


def returned(origin: Traffic, candidate: str, decided: int) -> Change:
    """To the traffic before a rollout, slot by slot, or what calls have made of it since."""

    def change(routing: Routing, _: str) -> Routing:
        after = without_shadow(routing, candidate)
        return given(after, origin) if routing.decided == decided else replace(after, generation=routing.generation + 1)

    return change


def without_shadow(routing: Routing, version: str) -> Routing:
    return replace(routing, shadows=tuple(one for one in routing.shadows if one.version != version))


def settled(routing: Routing, _: str) -> Routing:
    """What a rollback would go back to need not be kept loaded any more."""
    return replace(routing, before=None)


def labelled(label: str, version: str | None) -> Change:
    """None: takes it away, model.yaml's too."""
    return lambda routing, _: replace(routing, labels={**routing.labels, label: version})


def shadowed(shadow: Shadow) -> Change:
    """In the place of the version's shadow before, whose figures end. Raises InvalidRequest when it has the traffic, or there are too many."""

    def change(routing: Routing, standard: str) -> Routing:
        if routing.traffic.weights.keys() == {shadow.version} or (not routing.traffic.weights and standard == shadow.version):
            raise InvalidRequest(f"version {shadow.version} answers the model's requests itself: give another version the traffic first")
        others = tuple(one for one in routing.shadows if one.version != shadow.version)
        if len(others) == SHADOWS_MOST:
            raise InvalidRequest(f"a model has at most {SHADOWS_MOST} shadows; stop one of versions {', '.join(one.version for one in others)} first")
        generation = routing.generation + 1
        return replace(routing, shadows=(*others, replace(shadow, epoch=generation)), generation=generation)

    return change


def unshadowed(version: str = "") -> Change:
    """Without a version: all shadows end. Raises InvalidRequest when there is none."""

    def change(routing: Routing, _: str) -> Routing:
        kept = tuple(one for one in routing.shadows if version and one.version != version)
        if kept == routing.shadows:
            raise InvalidRequest(f"version {version} is no shadow of this model" if version else "this model has no shadow")
        return replace(routing, shadows=kept, generation=routing.generation + 1)

    return change


def by_call(after: Routing, before: Routing | None = None) -> Routing:
    """A call has said who gets the traffic; before: it has said nothing when that is the same."""
    return after if before and after.traffic == before.traffic else replace(after, decided=after.decided + 1)


def with_seen(routing: Routing, versions: Mapping[str, str]) -> Routing:
    """versions: their files by number."""
    newest = sorted({**routing.seen, **versions}.items(), key=lambda one: int(one[0]))[-SEEN_MOST:]
    return replace(routing, seen=dict(newest))


def moved(routing: Routing, weights: Weights, standard: str) -> Routing:
    """To those weights, with as few slots as must. Said twice, a rollback still goes to what was before."""
    before = in_force(routing, standard)
    wanted = {version: weight for version, weight in weights.items() if weight > 0}
    after = Traffic(wanted, rebalanced(before.shares, wanted)) if wanted else Traffic()
    return given(routing, after, routing.before if after == routing.traffic else before)


def given(routing: Routing, traffic: Traffic, before: Traffic | None = None) -> Routing:
    """before: what a rollback goes back to."""
    return replace(routing, traffic=traffic, before=before if before and before.weights else None, generation=routing.generation + 1)


def in_force(routing: Routing, standard: str) -> Traffic:
    return routing.traffic if routing.traffic.weights else alone(standard)


def alone(version: str) -> Traffic:
    return Traffic({version: 100.0}, rebalanced((), {version: 1.0})) if version else Traffic()


def summary(routing: Routing) -> dict[str, Any]:
    """For the audit trail and the log."""
    return {
        "weights": dict(routing.traffic.weights), "rules": [[rule.kind, rule.name, rule.equals, rule.version] for rule in routing.rules],
        "labels": dict(routing.labels), "shadows": {one.version: one.share for one in routing.shadows}, "generation": routing.generation,
    }  # fmt: skip


# For the state.
def to_json(routing: Routing) -> dict[str, Any]:
    return {
        "labels": dict(routing.labels), "traffic": traffic_json(routing.traffic), "generation": routing.generation,
        "rules": [[rule.kind, rule.name, rule.equals, rule.version] for rule in routing.rules],
        "before": traffic_json(routing.before) if routing.before else None, "shadows": [list(astuple(one)) for one in routing.shadows],
        "decided": routing.decided, "seen": dict(routing.seen), "awaited": routing.awaited,
    }  # fmt: skip


def from_json(found: Any) -> Routing:
    """Raises KeyError, TypeError or ValueError when no release of this schema has written it."""
    before = found["before"]
    return Routing(found["labels"], traffic_of(found["traffic"]), tuple(Rule(*rule) for rule in found["rules"]),
                   traffic_of(before) if before else None, int(found["generation"]),
                   tuple(Shadow(*one) for one in found.get("shadows", ())), found.get("decided", 0), found.get("seen", {}),
                   found.get("awaited", False))  # fmt: skip


def traffic_json(traffic: Traffic) -> list[Any]:
    return [dict(traffic.weights), [list(share) for share in traffic.shares]]


def traffic_of(found: Any) -> Traffic:
    weights, shares = found
    return Traffic({str(version): float(weight) for version, weight in weights.items()}, tuple((int(end), str(version)) for end, version in shares))
