"""One mistake in keys and values from outside, as people are told of it: where it is, what was given, what is wanted, and the nearest key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args, get_origin

if TYPE_CHECKING:
    import pydantic

MAX_ECHO = 100  # characters of what was given
SURE = 0.8  # how alike two keys are of which one is the other misspelt, though the key as given is known elsewhere
_AROUND = re.compile(r"^(?:Value error, |Input should be |\w+ should have )| after validation, not \d+$")  # what is wanted


class Below(ValueError):
    """Raised by a validator of keys that are right one by one: the mistake is at a place below. problem: `steps.1.share: what is wrong there`."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        place, _, self.text = problem.partition(": ")
        self.place = place.split(".")


def told(error: pydantic.ValidationError, schema: Any = None) -> str:
    """The place of the first mistake and what is wrong there. schema: the pydantic model, for the nearest key."""
    place, text = first(error, schema)
    return f"{'.'.join(place)[:MAX_ECHO]}: {text}" if place else text


def first(error: pydantic.ValidationError, schema: Any) -> tuple[list[str], str]:
    """The same apart: keys and indices, and what is wrong."""
    one = error.errors(include_url=False)[0]
    place = [str(part) for part in one["loc"] if part != "[key]"]
    below = one.get("ctx", {}).get("error")
    if isinstance(below, Below):
        return [*place, *below.place], below.text
    return place, complaint(one, place, schema)


def complaint(error: Any, place: list[str], schema: Any) -> str:
    """Of one of pydantic's errors."""
    if error["type"] == "extra_forbidden":
        return unknown(place, schema)
    if error["type"] == "missing":
        return "missing"
    if error["type"] == "json_invalid":
        return str(error["msg"])
    wanted = _AROUND.sub("", error["msg"].replace("String should match pattern", "a text like"))
    if error["type"] == "model_type" and (keys := known_keys(place, schema)):
        wanted = f"keys such as {{{keys[0]}: ...}}"
    return f"{repr(error['input'])[:MAX_ECHO]} given, {wanted} wanted"


def unknown(place: list[str], schema: Any) -> str:
    key, keys = place[-1], known_keys(place[:-1], schema)
    near = difflib.get_close_matches(key, keys, 1, SURE) or sorted(homes(key, schema), key=len)[:1] or difflib.get_close_matches(key, keys, 1)
    return "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")


def known_keys(place: list[str], schema: Any) -> list[str]:
    """Of a pydantic model, below those keys, names and indices; none: what stands there is the owner's own."""
    parts = iter(place)
    for part in parts:
        if schema is None or part not in schema.model_fields:
            return []
        annotation = schema.model_fields[part].annotation
        if is_many(annotation):
            next(parts, None)
        schema = part_of(annotation)
    return [*schema.model_fields] if schema is not None else []


def homes(key: str, schema: Any, above: str = "") -> Iterator[str]:
    """Where a key belongs that was given in another place."""
    if schema is None:
        return
    if key in schema.model_fields:
        yield f"{above}{key}"
    for name, field in schema.model_fields.items():
        yield from homes(key, part_of(field.annotation), f"{above}{name}." + "NAME." * is_by_name(field.annotation))


def part_of(annotation: Any) -> Any:
    """The pydantic model in the type of a field: alone, of the elements, or where it may be left out; None: there is none."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((found for one in get_args(annotation) if (found := part_of(one)) is not None), None)


def is_by_name(annotation: Any) -> bool:
    """Whether names of the owner's stand below a key."""
    return get_origin(annotation) is dict


def is_many(annotation: Any) -> bool:
    """Whether names or indices do."""
    return get_origin(annotation) in (dict, list) or any(map(is_many, get_args(annotation)))
