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
class Shadow:
    """A candidate: so many of the requests that the model's route serves are run by it, too, once they are answered. Nobody gets its answers."""

    version: str
    share: float = 1.0  # above 0, at most 1
    max_cpu: float = 0.0  # cores' worth of processor time; 0: what is idle, of one core
    max_pending_mib: float = 64.0  # of requests that wait for it
    rtol: float = 1e-3  # as golden answers are compared
    atol: float = 1e-5
    agree_by: str = "tolerance"  # or argmax: outputs of floats agree when each row's greatest element is the same
    keep: int = 8  # worst disagreements
    redact: bool = False  # of them scores and shapes alone
    epoch: int = 0  # generation of the route that it came with: figures of another one are not its own


@dataclass(frozen=True, slots=True)
class Naming:
    """Immutable: replaced as a whole. Versions are numbers as texts.

    shares: (end, version) over 10,000 slots, ascending; empty: the newest version that is ready has the traffic. fallback: the shares
    before those. awaited: while none of the newer ones is ready, these serve on; else nobody does: it may be them that were rolled back.
    pinned: versions that are served though the policy does not want them.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    shares: tuple[tuple[int, str], ...] = ()
    fallback: tuple[tuple[int, str], ...] = ()
    awaited: bool = False
    rules: tuple[Rule, ...] = ()
    pinned: frozenset[str] = frozenset()
    generation: int = 0  # of the route: one more with each change
    shadows: tuple[Shadow, ...] = ()

    @property
    def routed(self) -> tuple[str, ...]:
        """The versions of the shares, the largest first, then, where they serve on, those of the shares before."""
        sizes: dict[str, int] = {}
        for shares in (self.shares, self.fallback if self.awaited else ()):
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
