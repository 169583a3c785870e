"""Calls to a running server over HTTP, for the commands that talk to one."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from batchmill.errors import RemoteError, UnreachableError, UsageError

PART_BYTES = 64 << 10


def call(url: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str | None = None) -> bytes:
    with reached(url), urllib.request.urlopen(urllib.request.Request(url, body, headers or {}, method=method), timeout=60) as answer:
        size = answer.headers.get("Inference-Header-Content-Length", "")
        data: bytes = answer.read()
        return size.encode() + b"\n" + data if body is not None else data


def saved(url: str, path: str, write: Callable[[bytes], object]) -> None:
    """Hands on what a GET of our own answers, part by part."""
    address = url.rstrip("/") + path
    with reached(address):
        answer = urllib.request.urlopen(address, timeout=60)
    with answer:
        while True:
            with reached(address):
                part = answer.read(PART_BYTES)
            if not part:
                break
            write(part)


@contextlib.contextmanager
def reached(url: str) -> Iterator[None]:
    """RemoteError: the server has answered with an error; UnreachableError: none has answered."""
    try:
        yield
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = json.loads(text)["error"]
        raise RemoteError(f"{error.code}: {text}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UnreachableError(f"no server answers at {url}: {getattr(error, 'reason', error)}") from None


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns side by side; the last may be of any width."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in (head, *rows))


def asked(url: str, path: str) -> Any:
    """What a GET of our own answers. UnreachableError when it is not a server of ours that does."""
    return answered(url, path, lambda target: call(target))


def changed(url: str, path: str, method: str, body: Any, key_file: Path | None) -> Any:
    """What a call that changes something answers. key_file: holds the server's admin key; None: it has none."""
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key_of(key_file)}"} if key_file else {})}
    return answered(url, path, lambda target: call(target, None if body is None else json.dumps(body).encode(), headers, method))


def key_of(file: Path) -> str:
    try:
        return file.read_text(encoding="latin-1").strip()
    except OSError as error:
        raise UsageError(f"--admin-key-file: {file}: {error.strerror}") from None


def answered(url: str, path: str, ask: Callable[[str], bytes]) -> Any:
    base = url.rstrip("/")
    try:
        return json.loads(ask(base + path))
    except ValueError:
        raise UnreachableError(f"no model server answers at {base}") from None
