"""Which names lead to which versions of a model: labels, and the shares and rules of its route. What is set at run time goes before model.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rule:
    """Requests whose header or request parameter of that name is equal to that go to the version. kind: header or parameter."""

    kind: str
    name: str  # of a header in lower case
    equals: str
    version: str


@dataclass(frozen=True, slots=True)
class Naming:
    """Immutable: replaced as a whole. Versions are numbers as texts.

    shares: (end, version) over 10,000 slots, ascending; empty: the newest version that is ready has the traffic. fallback: the shares
    before those: they count while none of the newer ones is ready. pinned: versions that are served though the policy does not want them.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    shares: tuple[tuple[int, str], ...] = ()
    fallback: tuple[tuple[int, str], ...] = ()
    rules: tuple[Rule, ...] = ()
    pinned: frozenset[str] = frozenset()
    generation: int = 0  # of the route: one more with each change

    @property
    def routed(self) -> tuple[str, ...]:
        """The versions of the shares, the largest first, then those of the shares before."""
        sizes: dict[str, int] = {}
        for shares in (self.shares, self.fallback):
            begin, own = 0, dict[str, int]()
            for end, version in shares:
                own[version] = own.get(version, 0) + end - begin
                begin = end
            sizes |= {version: size for version, size in own.items() if version not in sizes}
        names = dict.fromkeys(version for _, version in self.shares)
        first = sorted(names, key=lambda version: -sizes[version])
        return (*first, *(version for version in sizes if version not in names))

    @property
    def wanted(self) -> frozenset[str]:
        """Versions that requests reach by share or rule: they serve on though their folder vanishes."""
        return frozenset({version for _, version in self.shares} | {rule.version for rule in self.rules})


def of_file(labels: Mapping[str, str]) -> Naming:
    """What a model.yaml says, where nothing was set at run time."""
    return Naming(labels=labels, pinned=frozenset(labels.values()))
