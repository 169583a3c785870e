"""`batchmill tune`: how a running server batches and queues a model, and changes of it that count from the next batch on."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from batchmill.errors import UsageError
from batchmill.remote import asked, changed, table


def run(model: str, settings: list[str], cleared: list[str] | None, url: str, key_file: Path | None, as_json: bool) -> int:
    """Changes or asks, and prints; the exit code. cleared: empty: all; None: nothing."""
    path = f"/admin/models/{quote(model, safe='')}/tuning"
    wanted = dict(map(value_of, settings)) | dict.fromkeys(cleared or ())
    if cleared == [] and settings:
        raise UsageError("--clear without a key takes back all: no KEY=VALUE beside it")
    if cleared == []:
        answer = changed(url, path, "DELETE", None, key_file)
    elif wanted:
        answer = changed(url, path, "PATCH", wanted, key_file)
    else:
        answer = asked(url, path)
    print(json.dumps(answer) if as_json else shown(answer["tuning"]))
    return 0


def value_of(given: str) -> tuple[str, Any]:
    """Values are JSON, or a list without its brackets; what is neither is a text."""
    key, is_given, value = given.partition("=")
    if not is_given:
        raise UsageError(f"{given!r} given, KEY=VALUE wanted")
    for text in (value, f"[{value}]" if "," in value else value):
        with contextlib.suppress(ValueError):
            return key, json.loads(text)
    return key, value


def shown(tuning: dict[str, Any]) -> str:
    return table(["KEY", "VALUE", "FROM"], [[key, text_of(one["value"]), one["from"]] for key, one in tuning.items()])


def text_of(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)
