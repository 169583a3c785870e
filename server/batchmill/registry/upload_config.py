"""The `config` of a load call as the file that a registry would have in its place.

It is one of two things, which its keys tell apart: Triton's ModelConfig in JSON, which becomes a config.pbtxt, or the keys of
model.yaml. Written out, it is read and judged as any other such file.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any

from batchmill import document
from batchmill.errors import InvalidUpload
from batchmill.registry import config_pbtxt
from batchmill.registry.model_schema import schema

SETTINGS = ("model.yaml", "config.pbtxt")
MAX_DEPTH = 32  # of what is given; the deepest that is known has six
_ENUM = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_WHOLE = re.compile(r"-?[0-9]{1,20}", re.ASCII)


def settings_file(text: str, model: str) -> tuple[str, str] | None:
    """Name and text of a file; None when the config has nothing to say. InvalidUpload when it is none."""
    given = object_of(text)
    if not given:
        return None
    # A config.pbtxt of some lines may be a long JSON text, so what is given is bounded, and what is written is when it is read.
    known = {*config_pbtxt.known_names(()), *(name for name in config_pbtxt.ELSEWHERE if "." not in name)}
    if given.keys() & (set(schema().model_fields) - known):
        import yaml

        return SETTINGS[0], yaml.safe_dump(given, allow_unicode=True, sort_keys=False)
    return SETTINGS[1], "\n".join([f"# written from the config of a load call of {model!r}", *lines(given, ())]) + "\n"


def object_of(text: str) -> dict[str, Any]:
    if len(text) > document.MAX_BYTES:
        raise InvalidUpload(f"'config': {len(text)} characters given, at most {document.MAX_BYTES} wanted")
    try:
        given = json.loads(text, object_pairs_hook=once, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidUpload(f"'config' is no JSON: {str(error)[:200]}") from None
    if not isinstance(given, dict):
        raise InvalidUpload("'config': a JSON object wanted")
    if is_deeper(given, MAX_DEPTH):
        raise InvalidUpload(f"'config': nested deeper than {MAX_DEPTH}")
    return given


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key[:100]!r} is given twice")
        found[key] = value
    return found


def refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def is_deeper(given: Any, most: int) -> bool:
    level = [given]
    for _ in range(most):
        level = [inner for one in level if isinstance(one, (dict, list)) for inner in (one.values() if isinstance(one, dict) else one)]
    return any(isinstance(one, (dict, list)) for one in level)


def lines(given: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """A message in protobuf's text format."""
    fields = config_pbtxt.fields_of(path)
    for name, value in given.items():
        field = fields.get(name)
        if field is None:
            yield from left_out(path, name, list(fields))
        elif value is not None:  # JSON's null stands for what is not given
            yield from field_lines(field, value, (*path, name))


def left_out(path: tuple[str, ...], name: str, known: list[str]) -> Iterator[str]:
    """A field of Triton's that has no effect here stands in the file as a comment; anything else is a mistake."""
    dotted = ".".join((*path, name))
    if dotted not in config_pbtxt.ELSEWHERE:
        ours = list(schema().model_fields) if not path else []
        near = difflib.get_close_matches(name, [*known, *ours], 1)
        raise InvalidUpload(f"'config': {dotted[:200]}: unknown key" + (f"; did you mean {near[0]!r}?" if near else ""))
    yield f"{'  ' * len(path)}# {dotted} has no effect in this release"


def field_lines(field: Any, value: Any, path: tuple[str, ...]) -> Iterator[str]:
    indent = "  " * (len(path) - 1)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        parts = field.message_type.fields_by_name
        for key, one in wanted(value, dict, "an object", path).items():
            yield f"{indent}{field.name} {{"
            yield from value_lines(parts["key"], key, (*path, "key"))
            yield from value_lines(parts["value"], one, (*path, "value"))
            yield f"{indent}}}"
    elif field.default_value == []:  # a field that may be given more than once
        for one in wanted(value, list, "a list", path):
            yield from value_lines(field, one, path)
    else:
        yield from value_lines(field, value, path)


def value_lines(field: Any, value: Any, path: tuple[str, ...]) -> Iterator[str]:
    indent = "  " * (len(path) - 1)
    if field.message_type is None:
        yield f"{indent}{field.name}: {scalar(field, value, path)}"
    else:
        yield f"{indent}{field.name} {{"
        yield from lines(wanted(value, dict, "an object", path), path)
        yield f"{indent}}}"


def scalar(field: Any, value: Any, path: tuple[str, ...]) -> str:
    from google.protobuf import text_encoding

    if field.type == field.TYPE_STRING:
        return f'"{text_encoding.CEscape(wanted(value, str, "a text", path), as_utf8=True)}"'
    if field.type == field.TYPE_BOOL:
        return str(wanted(value, bool, "true or false", path)).lower()
    if field.type == field.TYPE_ENUM and isinstance(value, str) and _ENUM.fullmatch(value):
        return value
    # protobuf writes numbers of 64 bits as texts into JSON
    if type(value) is int or (isinstance(value, str) and field.type != field.TYPE_ENUM and _WHOLE.fullmatch(value)):
        return str(int(value))
    raise InvalidUpload(complaint(value, "one of its names" if field.type == field.TYPE_ENUM else "a whole number", path))


def wanted(value: Any, kind: type, name: str, path: tuple[str, ...]) -> Any:
    if not isinstance(value, kind):
        raise InvalidUpload(complaint(value, name, path))
    return value


def complaint(value: Any, name: str, path: tuple[str, ...]) -> str:
    return f"'config': {'.'.join(path)[:200]}: {repr(value)[:100]} given, {name} wanted"
