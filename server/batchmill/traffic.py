"""`batchmill route`, `label`, `promote`, `rollback`: who of a model's versions gets its traffic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batchmill.errors import UsageError
from batchmill.remote import asked, changed, table


def route(model: str, weights: list[str], rules: list[str], clear: bool, no_rules: bool, url: str, key_file: Path | None, as_json: bool) -> int:
    """Shows the route, or changes what is given of it. weights: VERSION=WEIGHT; rules: header:NAME=VALUE:VERSION."""
    path = f"{base(model)}/route"
    if clear and (weights or rules or no_rules):
        raise UsageError("--clear takes back the whole route: no weights or rules beside it")
    if clear:
        return show(changed(url, path, "DELETE", None, key_file), as_json)
    answer = asked(url, path)
    if weights or rules or no_rules:
        kept = [] if no_rules else answer["rules"]
        body = {"weights": dict(map(weight_of, weights)) or answer["weights"], "rules": merged(kept, list(map(rule_of, rules)))}
        answer = changed(url, path, "PUT", body, key_file)
    return show(answer, as_json)


def label(model: str, settings: list[str], removed: list[str], url: str, key_file: Path | None, as_json: bool) -> int:
    """settings: LABEL=VERSION."""
    answer = asked(url, f"{base(model)}/route")
    for name, version in map(pair_of, settings):
        answer = changed(url, f"{base(model)}/labels/{quote(name, safe='')}", "PUT", {"version": version}, key_file)
    for name in removed:
        answer = changed(url, f"{base(model)}/labels/{quote(name, safe='')}", "DELETE", None, key_file)
    if as_json:
        print(json.dumps(answer["labels"]))
    else:
        print("\n".join([table(["LABEL", "VERSION"], [[name, version] for name, version in sorted(answer["labels"].items())]), *stand_ins(answer)]))
    return 0


def promote(model: str, version: str, url: str, key_file: Path | None, as_json: bool) -> int:
    return show(changed(url, f"{base(model)}/promote", "POST", {"version": version}, key_file), as_json)


def rollback(model: str, url: str, key_file: Path | None, as_json: bool) -> int:
    return show(changed(url, f"{base(model)}/rollback", "POST", None, key_file), as_json)


def base(model: str) -> str:
    return f"/admin/models/{quote(model, safe='')}"


def pair_of(text: str) -> tuple[str, str]:
    name, is_given, value = text.partition("=")
    if not is_given or not name or not value:
        raise UsageError(f"{text!r} given, LABEL=VERSION wanted")
    return name, value


def weight_of(text: str) -> tuple[str, float]:
    version, _, weight = text.partition("=")
    try:
        return version, float(weight)
    except ValueError:
        raise UsageError(f"{text!r} given, VERSION=WEIGHT wanted, such as 2=10") from None


def rule_of(text: str) -> dict[str, str]:
    kind, _, rest = text.partition(":")
    selector, _, version = rest.rpartition(":")
    name, is_given, value = selector.partition("=")
    if kind not in ("header", "parameter") or not is_given or not name or not version:
        raise UsageError(f"{text!r} given, header:NAME=VALUE:VERSION or parameter:NAME=VALUE:VERSION wanted")
    return {kind: name, "equals": value, "version": version}


def merged(kept: list[dict[str, str]], given: list[dict[str, str]]) -> list[dict[str, str]]:
    """A rule that asks for the same is replaced where it stands."""
    rules = {selector_of(rule): rule for rule in kept}
    return [*(rules | {selector_of(rule): rule for rule in given}).values()]


def selector_of(rule: dict[str, str]) -> tuple[str, str, str]:
    kind = "header" if "header" in rule else "parameter"
    return kind, rule[kind].lower() if kind == "header" else rule[kind], rule["equals"]


def show(answer: dict[str, Any], as_json: bool) -> int:
    print(json.dumps(answer) if as_json else shown(answer))
    return 0


def stand_ins(answer: dict[str, Any]) -> list[str]:
    return [f"label {name}: version {version} answers until version {answer['labels'][name]} is ready"
            for name, version in sorted(answer["stand_ins"].items())]  # fmt: skip


def shown(answer: dict[str, Any]) -> str:
    labels: dict[str, list[str]] = {}
    for name, version in sorted(answer["labels"].items()):
        labels.setdefault(version, []).append(name)
    weights, default = answer["weights"], answer["default"]
    versions = sorted({*answer["shares"], *labels, *([default] if default else [])}, key=int)
    rows = []
    for version in versions:
        share = answer["shares"].get(version, {})
        wanted = share.get("configured", 0.0) if weights else float(version == default)
        observed = share.get("observed")
        rows.append([version, f"{wanted:.2%}", "-" if observed is None else f"{observed:.2%}", str(share.get("requests", 0)),
                     share.get("state", "-"), ",".join(labels.get(version, [])) or "-"])  # fmt: skip
    lines = [table(["VERSION", "SHARE", "OBSERVED", "REQUESTS", "STATE", "LABELS"], rows)]
    lines += [f"rule: {kind} {rule[kind]} = {rule['equals']} -> version {rule['version']}"
              for rule in answer["rules"] for kind in ("header", "parameter") if kind in rule]  # fmt: skip
    lines += stand_ins(answer)
    if not weights:
        lines.append("no weights are set: the newest version that is ready has the traffic")
    if answer["before"]:
        lines.append("rollback goes to: " + " ".join(f"{version}={weight:g}" for version, weight in answer["before"].items()))
    return "\n".join(lines)
