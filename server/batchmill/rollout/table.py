"""A model's entry of the data plane's route table."""

from __future__ import annotations

from collections.abc import Collection

from batchmill.core.route_table import RouteEntry
from batchmill.registry.naming import Naming
from batchmill.registry.settings import PREVIOUS, Fallback
from batchmill.registry.status import ModelStatus
from batchmill.rollout.shadow import native, reason_against
from batchmill.rollout.split import among, shares_of


def entry_of(model: ModelStatus) -> RouteEntry:
    """As Server.publish() takes it. Shares of versions that are not ready go to those that are; see ModelStatus.pick()."""
    name, served, standard, labels = model.route()
    fallbacks, naming, ready = model.settings.fallbacks, model.naming, {version.version for version in served}
    shadows = [native(model, shadow) for shadow in naming.shadows if not reason_against(model, shadow)]
    if not (naming.shares or naming.rules or naming.generation or fallbacks or shadows):
        return RouteEntry(name, served, standard, labels)
    shares = (among(naming.shares, ready) or among(naming.fallback, ready)) if standard else ()
    if len(shares) == 1:  # one has all: no key needs a slot
        ((_, alone),) = shares
        standard, shares = next(version for version in served if version.version == alone), ()
    rules = [(rule.kind == "header", rule.name, rule.equals, rule.version) for rule in naming.rules]
    before = previous(naming, ready, standard.version if standard else "")
    steps = [(("unavailable", *one.when), before if one.version == PREVIOUS else one.version, one.model, outputs_of(one), told(one, before))
             for one in fallbacks]
    return RouteEntry(name, served, standard, labels, shares=shares, rules=rules, shadows=shadows, generation=naming.generation, fallbacks=steps)


def previous(naming: Naming, ready: Collection[str], standard: str) -> str:
    """The version that had most of the traffic before the last change of the route, else the next older one that is ready; empty: there is none."""
    before = {version: share for version, share in shares_of(naming.fallback).items() if version in ready}
    if before:
        return max(before, key=lambda version: before[version])
    return max((version for version in ready if standard and int(version) < int(standard)), key=int, default="")


def outputs_of(one: Fallback) -> list[tuple[bytes, bytes, tuple[int, ...], bytes]]:
    return [(name.encode(), datatype.encode(), shape, bytes.fromhex(raw)) for name, datatype, shape, raw in one.constant]


def told(one: Fallback, before: str) -> str:
    """What an answer says of who made it; it may stand in a header and in JSON as it is."""
    if one.constant:
        return "constant"
    text = f"model {one.model}" if one.model else f"version {before if one.version == PREVIOUS else one.version}"
    return "".join(char if char.isascii() and char.isprintable() and char not in '"\\' else "?" for char in text)
