"""The page of calls: plain HTML, nothing from the network, no script. What comes from models is escaped, for the shell and for HTML."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from batchmill.backends import Signature

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; background: #fff }
h1, h2, h3 { line-height: 1.2 } h3 { margin-bottom: .2rem }
pre { background: #f3f4f6; padding: .6rem; overflow-x: auto; user-select: all; border-radius: 4px }
table { border-collapse: collapse } td, th { text-align: left; padding: .1rem 1rem .1rem 0; vertical-align: top }
code, pre { font-family: ui-monospace, monospace; font-size: 13px } .m { text-transform: uppercase; color: #555 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #16181c } pre { background: #23262c } .m { color: #aaa } }
"""
POLICY = "; ".join((
    "default-src 'none'", f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'",
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
))  # fmt: skip
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-cache"}
ORIGIN = "\0"  # stands for it in what is kept: no text of a model has this character
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?", re.ASCII)
_MAX_INLINE = 1500  # characters of a body in a command


def origin_of(host: str) -> str:
    """From a Host header; a made-up one must not become part of a command."""
    return f"http://{host}" if _HOST.fullmatch(host) else "http://localhost:8000"


def page(paths: dict[str, Any], models: Sequence[bytes], origin: str) -> bytes:
    """paths: of the document. models: what model() has made of each."""
    calls = "".join(call(path, method, operation) for path, item in paths.items() for method, operation in item.items())
    head = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>batchmill: calls</title><style>{STYLE}</style></head><body><h1>batchmill</h1>"
        f'<p>What this server serves now and how to ask for it. For programs: <a href="/openapi.json">openapi.json</a>. '
        f"A click marks a whole command.</p><h2>Models</h2>"
    )
    none = b"<p>No version is ready.</p>"
    told = (
        "<p>With the names of one model, where a path has one. <code>request.json</code> stands for a body: "
        "<code>/docs/models/NAME/versions/NUMBER/example</code> has one for <code>infer</code>. "
        "Guarded calls are for callers on the server's machine, or with the admin key.</p>"
    )
    tail = f"<h2>Calls</h2>{told}{calls}</body></html>"
    return b"".join([head.encode(), *(models or [none]), tail.encode()]).replace(ORIGIN.encode(), escape(origin).encode())


def model(name: str, number: str, inputs: Signature, outputs: Signature, command: str) -> bytes:
    """A version, and the command that asks it."""
    rows = "".join(tensor_row(kind, *one) for kind, tensors in (("input", inputs), ("output", outputs)) for one in tensors)
    table = f"<table><tr><th></th><th>name</th><th>datatype</th><th>shape</th></tr>{rows}</table>"
    return f"<h3>{escape(name)} <small>version {escape(number)}</small></h3>{table}<pre>{escape(command)}</pre>".encode()


def tensor_row(kind: str, name: str, datatype: str, shape: list[int], axes: list[str]) -> str:
    sizes = [str(size) if size >= 0 else (axes[at] if at < len(axes) and axes[at] else "any") for at, size in enumerate(shape)]
    return f"<tr><td>{kind}</td><td>{escape(name)}</td><td>{escape(datatype)}</td><td>[{escape(', '.join(sizes))}]</td></tr>"


def command(path: str, body: str, example_at: str, json_bytes: int) -> str:
    """Asks with that body; with the example that is to be fetched when it is empty or long. json_bytes: of one with tensors after them."""
    if body and len(body) <= _MAX_INLINE:
        return f"curl -s {ORIGIN}{path} -d {shlex.quote(body)}"
    length = f" -H 'Inference-Header-Content-Length: {json_bytes}'" if json_bytes else ""
    return f"curl -s {ORIGIN}{example_at} |\n  curl -s {ORIGIN}{path}{length} --data-binary @- -o answer"


def call(path: str, method: str, operation: dict[str, Any]) -> str:
    at, query = path, []
    for parameter in operation["parameters"]:
        if parameter.get("in") == "path":
            at = at.replace(f"{{{parameter['name']}}}", quote(parameter["example"], safe=""))
        elif parameter.get("in") == "query":
            query.append(f"{parameter['name']}={quote(parameter['example'], safe='')}")
    target = f"{ORIGIN}{at}" + (f"?{'&'.join(query)}" if query else "")
    how = "" if method == "get" else f" -X {method.upper()}"
    if path.endswith(("/infer", ":predict")):
        how = " -d @request.json"
    elif example := operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example"):
        how = f"{'' if method == 'post' else how} -d {shlex.quote(json.dumps(example))}"
    command = f"curl -s {shlex.quote(target) if query else target}{how}"
    return f"<h3><span class=m>{method}</span> <code>{escape(path)}</code></h3><p>{escape(operation['summary'])}</p><pre>{escape(command)}</pre>"
