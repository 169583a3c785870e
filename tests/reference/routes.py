"""What calls and rollouts make of a model's labels and route, key by key: each of its keys has its version written down, once it has been seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from batchmill.rollout.split import slot_of

SLOTS = 10_000


class Refused(Exception):
    """The call changes nothing."""


def one_key_a_slot(model: str) -> list[bytes]:
    keys: dict[int, bytes] = {}
    number = 0
    while len(keys) < SLOTS:
        keys.setdefault(slot_of(model, str(number)), str(number).encode())
        number += 1
    return [keys[slot] for slot in range(SLOTS)]


def is_share(counts: Mapping[str, int], weights: Mapping[str, float]) -> bool:
    """Whether so many keys are in proportion to the weights, to the last key; of equal remainders any may have it."""
    exact = {version: Fraction(weight) * SLOTS / sum(map(Fraction, weights.values())) for version, weight in weights.items()}
    above = {version: counts.get(version, 0) - int(share) for version, share in exact.items()}
    up = [exact[version] % 1 for version, more in above.items() if more == 1]
    down = [exact[version] % 1 for version, more in above.items() if more == 0]
    return sum(counts.values()) == SLOTS and len(up) + len(down) == len(weights) and min(up, default=1) >= max(down, default=0)


@dataclass(eq=False)
class Traffic:
    """weights: empty: the newest version has all. given: the version of each key while all of them are ready. after: that of the traffic before."""

    weights: Mapping[str, float] = field(default_factory=dict)
    given: tuple[str, ...] | None = None
    after: Traffic | None = None

    def look(self, given: Sequence[str], ready: Collection[str]) -> None:
        """given: the version of each key, where only these are ready, of which it has some."""
        there = {version for version in self.weights if version in ready}
        assert {*given} <= there
        if self.given is None and there == {*self.weights}:
            assert is_share(Counter(given), self.weights), "shares are as configured"
            if self.after and self.after.given:
                was, now = Counter(self.after.given), Counter(given)
                assert sum(map(str.__ne__, self.after.given, given)) == sum((now - was).values()), "as few keys move as must"
            self.given = tuple(given)
        if self.given is not None:
            assert all(now == own or own not in there for now, own in zip(given, self.given, strict=True)), "a key keeps its version"
            own = Counter(self.given)
            assert is_share(Counter(given), {version: own[version] for version in there})


def alone(version: str) -> Traffic:
    return Traffic({version: 100.0}, (version,) * SLOTS) if version else Traffic()


@dataclass(frozen=True)
class Routes:
    """back: the traffic that a rollback goes to. awaited: its versions serve until one of the traffic's does. rules: (kind, name, value, version)."""

    labels: Mapping[str, str | None] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    back: Traffic | None = None
    rules: tuple[tuple[str, str, str, str], ...] = ()
    shadows: tuple[str, ...] = ()
    generation: int = 0
    awaited: bool = False

    @property
    def named(self) -> set[str]:
        named = {version for version in self.labels.values() if version} | {rule[3] for rule in self.rules} | {*self.shadows}
        return named | {*self.traffic.weights} | {*(self.back.weights if self.back else ())}

    @property
    def answering(self) -> set[str]:
        return {*self.traffic.weights} | {rule[3] for rule in self.rules}

    def labels_over(self, file: Mapping[str, str]) -> dict[str, str]:
        return {label: version for label, version in {**file, **self.labels}.items() if version}

    def look(self, given: Sequence[str], ready: Collection[str], loading: Collection[str], newest: str) -> None:
        """given: the version of each key, '' for none. newest: who has the traffic where no weights are."""
        weights = self.traffic.weights
        first, loads = (max((weights[one] for one in some if one in weights), default=0.0) for some in (ready, loading))
        if not weights:
            assert {*given} == {newest}
        elif not self.awaited and (loads > first or {*given} == {""}):
            assert {*given} == {""}, "who was meant for a few requests gets no others"
            assert loads >= first
        elif first:
            self.traffic.look(given, ready)
        elif self.awaited and self.back and {*self.back.weights} & {*ready}:
            self.back.look(given, ready)
        else:
            assert {*given} == {""}

    # Calls. standard: who has the traffic where no weights are, '' for nobody.
    def in_force(self, standard: str) -> Traffic:
        return self.traffic if self.traffic.weights else alone(standard)

    def moved(self, weights: Mapping[str, float], standard: str) -> Routes:
        weights = {version: weight for version, weight in weights.items() if weight}
        if weights == self.traffic.weights:
            return replace(self, generation=self.generation + 1)
        was = self.in_force(standard)
        return replace(self, traffic=Traffic(weights, after=was), back=was if was.weights else None, generation=self.generation + 1)

    def cleared(self) -> Routes:
        return replace(self, traffic=Traffic(), back=None, rules=(), generation=self.generation + 1)

    def rolled_back(self, standard: str) -> Routes:
        if self.back is None:
            raise Refused
        was = self.in_force(standard)
        return replace(self, traffic=self.back, back=was if was.weights else None, generation=self.generation + 1)

    def labelled(self, label: str, version: str | None) -> Routes:
        return replace(self, labels={**self.labels, label: version})

    def shadowed(self, version: str, standard: str) -> Routes:
        if {*self.traffic.weights} == {version} or (not self.traffic.weights and standard == version):
            raise Refused
        return replace(self, shadows=(*self.without(version), version), generation=self.generation + 1)

    def unshadowed(self, version: str) -> Routes:
        left = self.without(version) if version else ()
        if left == self.shadows:
            raise Refused
        return replace(self, shadows=left, generation=self.generation + 1)

    def without(self, version: str) -> tuple[str, ...]:
        return tuple(one for one in self.shadows if one != version)

    # Rollouts.
    def stepped(self, weights: Mapping[str, float], origin: Traffic, candidate: str, standard: str, shadow: bool) -> Routes:
        after = replace(self.moved(weights, standard), back=origin, shadows=self.without(candidate))
        return after.shadowed(candidate, standard) if shadow else after

    def returned(self, origin: Traffic | None, candidate: str) -> Routes:
        """origin: None: a call has moved the traffic, and that counts."""
        after = replace(self, shadows=self.without(candidate), generation=self.generation + 1)
        return replace(after, traffic=origin, back=None) if origin else after
