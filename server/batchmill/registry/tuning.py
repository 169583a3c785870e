"""What calls have set of how a model is served: keys of model.yaml that need no loading anew. A call wins over the file, and is kept.

Keys are dotted here, `batching.max_batch_size`; a body of a call may also nest them, as model.yaml does.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from batchmill import complaints
from batchmill.errors import InvalidRequest
from batchmill.registry import model_config
from batchmill.registry.model_schema import schema
from batchmill.registry.settings import TUNABLE, ModelSettings

Set = dict[str, Any]  # value by key
Change = Callable[[Set], Set]  # of what calls have set


def changed(before: Set, body: Mapping[str, Any]) -> Set:
    """What calls have set after one more with this body, where null takes a key or a group of keys back. Raises InvalidRequest."""
    after = dict(before)
    for key, value in leaves(body):
        group = [one for one in TUNABLE if one.startswith(f"{key}.")]
        if value is None and (group or key in TUNABLE):
            for one in (key, *group):
                after.pop(one, None)
        elif key in TUNABLE:
            after[key] = value
        else:
            raise InvalidRequest(f"{key[: complaints.MAX_ECHO]}: {why_not(key, bool(group))}")
    return after


def nothing(_: Set) -> Set:
    return {}


def leaves(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in body.items():
        if isinstance(value, dict) and value:
            yield from ((f"{key}.{inner}", one) for inner, one in value.items())
        else:
            yield key, value


def why_not(key: str, is_group: bool) -> str:
    *above, name = key[: 2 * complaints.MAX_ECHO].split(".")
    if is_group:
        return "keys and values wanted, or null"
    if name in complaints.known_keys(above, schema()):
        return "takes effect when the versions are loaded, so no call can set it; model.yaml can"
    near = difflib.get_close_matches(key, TUNABLE, 1)
    return f"unknown key; did you mean {near[0]!r}?" if near else complaints.unknown([*above, name], schema())


def in_force(file: ModelSettings, called: Set) -> ModelSettings:
    """The settings of a file and what calls have set. Raises InvalidRequest when both together are wrong."""
    return replace(file, tuning=model_config.tuning_of(parsed({**file.given, **called})), called=called) if called else file


def told(settings: ModelSettings) -> dict[str, dict[str, Any]]:
    """By key: its value, and where that is from: default, the name of the model's file, or call."""
    values = parsed({**settings.given, **settings.called}).model_dump()
    return {key: {"value": value_at(values, key), "from": origin(settings, key)} for key in TUNABLE}


def origin(settings: ModelSettings, key: str) -> str:
    return "call" if key in settings.called else settings.file if key in settings.given else "default"


def value_at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part] if values is not None else None
    return values


def parsed(given: Set) -> Any:
    """By the schema of model.yaml."""
    import pydantic

    nested: dict[str, Any] = {}
    for key, value in given.items():
        group, _, name = key.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[name] = value
    try:
        return schema().model_validate(nested)
    except pydantic.ValidationError as error:
        raise InvalidRequest(complaints.told(error, schema())) from None
