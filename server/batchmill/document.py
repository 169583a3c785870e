"""A file of YAML or JSON from outside: what is in it, and where each key stands."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchmill import complaints
from batchmill.complaints import MAX_ECHO
from batchmill.errors import ConfigError

if TYPE_CHECKING:
    import pydantic
    import yaml

MAX_BYTES = 256 << 10
MAX_DEPTH = 64  # the reader takes minutes for half a million brackets


def read(path: Path) -> tuple[yaml.Node | None, Any]:
    """What is in a file of YAML, with the places of its keys; an empty one has no keys. ConfigError names file and line."""
    import yaml

    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES >> 10} KiB")
    try:
        text = path.read_text(encoding="utf-8")
        refuse_bombs(path, yaml.parse(text))
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        twice = repeated_key(node)
        given = yaml.safe_load(text) or {}
    except (yaml.YAMLError, UnicodeDecodeError, OSError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or 'not readable as YAML'}") from None
    if twice is not None:
        raise ConfigError(f"{path}:{twice.start_mark.line + 1}:{twice.start_mark.column + 1}: {twice.value[:MAX_ECHO]}: given twice")
    return node, given


def refuse_bombs(path: Path, events: Iterable[Any]) -> None:
    """What costs much more to read than its size: references, and nesting."""
    import yaml

    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{path}: anchors and aliases are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{path}:{event.start_mark.line + 1}:{event.start_mark.column + 1}: nested deeper than {MAX_DEPTH}")


def repeated_key(node: Any) -> Any:
    """The first key that stands twice in its mapping; YAML's reader would take the last in silence."""
    if node is None or node.id == "scalar":
        return None
    seen: set[str] = set()
    for one in node.value:
        key, value = one if node.id == "mapping" else (None, one)
        if key is not None and key.id == "scalar" and key.value in seen:
            return key
        seen |= {key.value} if key is not None and key.id == "scalar" else set()
        if (found := repeated_key(value)) is not None:
            return found
    return None


def place_of(node: Any, place: list[str]) -> str:
    """line:column of a key, counted from 1; of the closest thing above it when the key itself is not there."""
    found = "1:1"
    for part in place:
        inside = node.value if node is not None and isinstance(node.value, list) else []
        entries = {str(one[0].value): one for one in inside if isinstance(one, tuple)} or {str(index): (one, one) for index, one in enumerate(inside)}
        if part not in entries:
            break
        mark, node = entries[part][0].start_mark, entries[part][1]
        found = f"{mark.line + 1}:{mark.column + 1}"
    return found


def mistake(path: Path, node: yaml.Node | None, error: pydantic.ValidationError, schema: Any) -> ConfigError:
    """Names file, line and key of the first. node: as read() has found it. schema: the pydantic model that wanted something else."""
    place, _ = complaints.first(error, schema)
    return ConfigError(f"{path}:{place_of(node, place)}: {complaints.told(error, schema)}")
