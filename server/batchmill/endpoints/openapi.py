"""The OpenAPI 3.1 document of this server: every call, and of each version that serves what it takes and answers.

It is made of pieces, one of them for each version, which are kept for as long as the version's signature stays. Each piece is
serialised alone, so that a thousand models hold the interpreter for moments, not for seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

import batchmill
from batchmill.backends import Signature
from batchmill.endpoints import docs_page, signature_schema
from batchmill.endpoints.calls import CALLS, EXAMPLES, JSON, SCHEMAS, Call, ref
from batchmill.errors import DATA_PLANE, BatchmillError, InvalidRequest, NotFound
from batchmill.registry.status import ModelStatus

Pieces = dict[str, bytes]  # by their place in the document: paths, schemas, requestBodies, responses
BINARY = "application/octet-stream"
HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass(frozen=True, slots=True)
class Described:
    """A version as the document has it. inputs, outputs: by which it was made. default, numbered: the two paths it may be asked by."""

    inputs: Signature
    outputs: Signature
    components: Pieces
    default: bytes
    numbered: bytes
    default_html: bytes
    numbered_html: bytes


class OpenApi:
    """document() and page() are for any thread, and take a while the first time: not for the event loop."""

    def __init__(self, models: Callable[[], Mapping[str, ModelStatus]]) -> None:
        self._models = models
        self._known: dict[tuple[str, str], Described] = {}
        self._lock = threading.Lock()

    def document(self) -> bytes:
        served, standards = self._described()
        fixed = fixed_part(*self._examples())
        parts = {"paths": [orjson.dumps(fixed["paths"])[1:-1]]}
        for place, content in fixed["components"].items():
            parts[place] = [orjson.dumps(content)[1:-1]] if content else []
        for key, one in served.items():
            parts["paths"] += [one.default, one.numbered] if key in standards else [one.numbered]
            for place, piece in one.components.items():
                parts[place].append(piece)
        head = orjson.dumps({name: content for name, content in fixed.items() if name not in ("paths", "components")})[:-1]
        components = b",".join(b'"%s":{%s}' % (place.encode(), b",".join(parts[place])) for place in fixed["components"])
        return b'%s,"paths":{%s},"components":{%s}}' % (head, b",".join(parts["paths"]), components)

    def page(self, origin: str) -> bytes:
        """origin: scheme and host as the reader has them."""
        served, standards = self._described()
        models = [one.default_html if key in standards else one.numbered_html for key, one in served.items()]
        return docs_page.page(fixed_part(*self._examples())["paths"], models, origin)

    def example(self, name: str, number: str) -> signature_schema.Example:
        model = self._models().get(name)
        version = model.pick(number) if model and number else None
        if version is None:
            raise NotFound(f"no version {number[:40]!r} of model {name[:200]!r} is ready")
        if signature_schema.elements(version.inputs) > signature_schema.MAX_EXAMPLE_ELEMENTS:
            raise InvalidRequest(f"an example for version {number} of {name!r} would have more than {signature_schema.MAX_EXAMPLE_ELEMENTS} elements")
        return signature_schema.example(version.inputs, version.outputs)

    def _described(self) -> tuple[dict[tuple[str, str], Described], set[tuple[str, str]]]:
        """All versions that serve, and which of them get default traffic."""
        with self._lock:  # two readers at once need not do the same work
            fresh, standards = {}, set()
            for model in self._models().values():
                standard = model.pick()
                for version in model.ready():
                    key, before = (model.name, version.number), self._known.get((model.name, version.number))
                    inputs, outputs = version.inputs, version.outputs
                    same = before is not None and (before.inputs, before.outputs) == (inputs, outputs)
                    fresh[key] = before if before is not None and same else describe(*key, inputs, outputs)
                    if version is standard:
                        standards.add(key)
            self._known = fresh
            return fresh, standards

    def _examples(self) -> tuple[dict[str, str], dict[str, str]]:
        """Values for the parameters of paths, so that each can be tried: in general, and with a label."""
        models = self._models().values()
        served = ({"model": model.name, "version": standard.number} for model in models if (standard := model.pick()))
        labels = ((model, label, number) for model in models for label, number in model.leads().items())
        labelled = ({"model": model.name, "label": label} for model, label, number in labels if model.pick(number))
        general = {"version": "1", "label": "stable", "repository": "models", "which": "ready", **next(served, {"model": "digits"})}
        return general, {**general, **next(labelled, {})}


def key_of(name: str, number: str) -> str:
    """A name that a component may have: [A-Za-z0-9._-]. Different for different models."""
    return f"{''.join(char if char.isascii() and char.isalnum() else f'_{ord(char):x}_' for char in name)}.{number}"


def describe(name: str, number: str, inputs: Signature, outputs: Signature) -> Described:
    key = key_of(name, number)
    below = f"/v2/models/{quote(name, safe='')}"
    numbered, example_at = f"{below}/versions/{number}", f"/docs{below.removeprefix('/v2')}/versions/{number}/example"
    inline = signature_schema.is_inline(inputs)
    made = signature_schema.example(inputs, outputs) if inline else None
    example = {"summary": "one row of ones", **({"value": orjson.loads(made.body)} if made else {"externalValue": example_at})}
    components: dict[str, dict[str, Any]] = {
        "schemas": {f"{key}.request": signature_schema.request_schema(inputs, outputs),
                    f"{key}.response": signature_schema.response_schema(name, number, outputs)},
        "requestBodies": {key: request_body(f"{key}.request", example, is_json=not has_binary_only(inputs))},
        "responses": {key: infer_response(f"{key}.response")},
    }  # fmt: skip
    paths = f"{below}/infer", f"{numbered}/infer"
    default, own = (orjson.dumps({path: {"post": infer_operation(name, number, key, path == paths[1])}})[1:-1] for path in paths)
    length = 0  # of the JSON, where tensors come after it
    if has_binary_only(inputs) and signature_schema.elements(inputs) <= signature_schema.MAX_EXAMPLE_ELEMENTS:
        length = signature_schema.example(inputs, outputs).json_bytes
    commands = [docs_page.command(path, made.body.decode() if made else "", example_at, length) for path in paths]
    pages = [docs_page.model(name, number, inputs, outputs, command) for command in commands]
    return Described(inputs, outputs, {place: orjson.dumps(content)[1:-1] for place, content in components.items()}, default, own, *pages)


def has_binary_only(tensors: Signature) -> bool:
    return any(datatype in signature_schema.BINARY_ONLY for _, datatype, _, _ in tensors)


def infer_operation(name: str, number: str, key: str, is_numbered: bool) -> dict[str, Any]:
    call = next(call for call in CALLS if call.body == "InferRequest")
    text = f"version {number} of {name}" if is_numbered else f"{name}: the version in service, now {number}"
    return {
        "operationId": f"infer.{key}" if is_numbered else f"infer.{key}.default",
        "summary": text,
        "tags": ["inference"],
        "parameters": infer_headers(),
        "requestBody": {"$ref": f"#/components/requestBodies/{key}"},
        "responses": {"200": {"$ref": f"#/components/responses/{key}"}, **refusals(call)},
    }


def request_body(schema: str, example: dict[str, Any] | None, *, is_json: bool = True) -> dict[str, Any]:
    examples = {"examples": {"ones": example}} if example else {}
    return {
        "required": True,
        "content": {
            JSON: {"schema": ref(schema), **(examples if is_json else {})},
            BINARY: {"schema": {"description": f"the same JSON, and after it the tensors that have a binary_data_size; {HEADER_LENGTH} says where"},
                     **({} if is_json else examples)},
        },
    }  # fmt: skip


def infer_response(schema: str) -> dict[str, Any]:
    length = {"description": "bytes of JSON before the tensors; absent when no output is binary", "schema": {"type": "integer"}}
    return {
        "description": "the outputs",
        "headers": {"x-model-version": {"description": "which version answered", "schema": {"type": "string"}}, HEADER_LENGTH: length},
        "content": {JSON: {"schema": ref(schema)}, BINARY: {"schema": {}}},
    }


def infer_headers() -> list[dict[str, str]]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in HEADERS]


HEADERS: dict[str, dict[str, Any]] = {
    name: {"name": name, "in": "header", "description": text, "schema": schema}
    for name, text, schema in (
        (HEADER_LENGTH, "bytes of JSON before the binary tensors", {"type": "integer", "minimum": 0}),
        ("x-request-timeout-ms", "deadline from now", {"type": "integer", "minimum": 1}),
        ("x-request-id", "comes back with the answer", {"type": "string"}),
        ("x-server-timing", "1: the answer tells the time of each stage, as Server-Timing", {"enum": ["1"]}),
        ("traceparent", "goes to the access log", {"type": "string"}),
    )
}


def refusals(call: Call) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/E{status}"} for status in sorted(call.fails)}


def fixed_part(examples: dict[str, str], with_label: dict[str, str]) -> dict[str, Any]:
    """What does not depend on the models, but for the values that parameters are tried with."""
    paths: dict[str, Any] = {}
    for call in CALLS:
        for path in call.paths():
            paths.setdefault(path, {})[call.method] = operation(call, path, with_label if "{label}" in path else examples)
    statuses = sorted({status for call in CALLS for status in call.fails})
    return {
        "openapi": "3.1.0",
        "info": {"title": "batchmill", "version": batchmill.__version__, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
                 "description": "The v2 protocol (KServe, Open Inference Protocol) over REST; the same is there over gRPC."},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in ("inference", "models", "repository", "health", "operations")],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "requestBodies": {},
            "responses": {f"E{status}": refusal(status) for status in statuses},
            "parameters": HEADERS,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "the key of --admin-key-file"}},
        },
    }  # fmt: skip


def refusal(status: int) -> dict[str, Any]:
    """What may stand behind an HTTP status, by the tables of errors."""
    control = [one.__doc__ or "" for one in classes(BatchmillError) if one.http_status == status and one.exit_code == 1]
    said = [one.when for one in DATA_PLANE if one.http_status == status] + control
    later = {"headers": {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}} if status in (429, 503) else {}
    native = {408: "The request did not arrive in time.", 415: "The encoding is not accepted."}
    return {"description": " ".join(" ".join(said).split()) or native.get(status, "Refused."), **later, "content": {JSON: {"schema": ref("Error")}}}


def classes(above: type[BatchmillError]) -> Iterator[type[BatchmillError]]:
    for one in above.__subclasses__():
        yield one
        yield from classes(one)


def operation(call: Call, path: str, examples: dict[str, str]) -> dict[str, Any]:
    names = [part[1 : part.index("}")] for part in path.split("/") if part.startswith("{")]
    which = {"schema": {"enum": ["live", "ready"]}}
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, **(which if name == "which" else {}), "example": examples[name]}
        for name in names
    ]
    for name, values in call.query:
        schema = {"enum": list(values)} if len(values) > 1 else {"type": "string"}
        parameters.append({"name": name, "in": "query", "schema": schema, "example": values[0]})
    is_infer = call.body == "InferRequest"
    if is_infer:
        content: dict[str, Any] = infer_response(call.answer)
        parameters += infer_headers()
    elif call.answer == "Any":
        content = {"description": call.text, "content": {JSON: {"schema": ref("InferRequest")}, BINARY: {"schema": {}}}}
    elif call.answer in SCHEMAS:
        content = {"description": call.text, "content": {JSON: {"schema": ref(call.answer)}}}
    else:
        content = {"description": call.text, **({"content": {call.answer: {"schema": {"type": "string"}}}} if call.answer else {})}
    example = {"example": EXAMPLES[call.body]} if call.body in EXAMPLES else {}
    given = request_body(call.body, None) if is_infer else {"content": {JSON: {"schema": ref(call.body), **example}}}
    body = {"requestBody": given} if call.body else {}
    return {
        "operationId": f"{call.method} {path}",
        "summary": call.text,
        "tags": [tag_of(path)],
        "parameters": parameters,
        **body,
        "responses": {"200": content, **refusals(call)},
        **({"security": [{}, {"key": []}]} if call.guarded else {}),
    }


def tag_of(path: str) -> str:
    if path.endswith("/infer"):
        return "inference"
    if path.startswith("/v2/repository"):
        return "repository"
    if path.endswith(("/ready", "z")) or "/health" in path:
        return "health"
    return "models" if path.startswith("/v2") else "operations"
