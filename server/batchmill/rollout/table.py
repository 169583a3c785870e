"""A model's entry of the data plane's route table."""

from __future__ import annotations

from typing import Any

from batchmill.registry.status import ModelStatus
from batchmill.rollout.shadow import native, reason_against
from batchmill.rollout.split import among


def entry_of(model: ModelStatus) -> tuple[Any, ...]:
    """As Server.publish() takes it. Shares of versions that are not ready go to those that are; while none is, the shares before serve on."""
    name, served, standard, labels = model.route()
    naming, ready = model.naming, {version.version for version in served}
    shadows = [native(model, shadow) for shadow in naming.shadows if not reason_against(model, shadow)]
    if not naming.shares and not naming.rules and not shadows:
        return name, served, standard, labels
    shares = among(naming.shares, ready) or among(naming.fallback, ready)
    if len(shares) == 1:  # one has all: no key needs a slot
        ((_, alone),) = shares
        standard, shares = next(version for version in served if version.version == alone), ()
    rules = [(rule.kind == "header", rule.name, rule.equals, rule.version) for rule in naming.rules]
    return name, served, standard, labels, (shares, rules, shadows)
