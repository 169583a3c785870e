"""Every path of REST, as the OpenAPI document, the page of calls and docs/reference.md tell it; and the shapes of what is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from batchmill.registry.settings import TUNABLE

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Call:
    """A path and its method. answer: the name of a schema, or a media type; empty: no body. fails: HTTP statuses.

    query: names, and the values each can have; one alone is an example of many. versions: it is there below /versions/{version} too.
    also: another path for the same.
    """

    method: str
    path: str
    text: str
    answer: str
    fails: tuple[int, ...] = ()
    body: str = ""
    query: tuple[tuple[str, tuple[str, ...]], ...] = ()
    versions: bool = False
    guarded: bool = False
    also: str = ""

    def paths(self) -> list[str]:
        numbered = [self.path.replace("{model}", "{model}/versions/{version}")] if self.versions else []
        return [self.path, *numbered, *([self.also] if self.also else [])]


_MODEL = "/v2/models/{model}"
_TFS = "/v1/models/{model}"
_ADMIN = "/admin/models/{model}"
_TUNING = f"{_ADMIN}/tuning"
_INFER = (400, 404, 408, 413, 415, 429, 500, 503, 504)
_GUARDED = (400, 401, 403, 404, 501, 503)
_CHANGES = (400, 401, 403, 404, 503)
CALLS = (
    Call("get", "/v2", "name, version and extensions of the server", "Server"),
    Call("get", "/v2/health/{which}", "`live`: 200 while the process answers; `ready`: 200 or 503. Answered without Python", "", (503,)),
    Call("get", "/livez", "the same as `live`", ""),
    Call("get", "/healthz", "the same as `live`", ""),
    Call("get", "/readyz", "the same as `ready`", "", (503,)),
    Call("get", "/v2/models", "names", "Models"),
    Call("get", "/v2/models/stats", "statistics of all models", "Statistics"),
    Call("get", _MODEL, "inputs, outputs, versions", "Metadata", (404, 503), versions=True),
    Call("get", f"{_MODEL}/ready", "200, 503 or 404. Answered without Python", "", (404, 503), versions=True),
    Call("post", f"{_MODEL}/infer", "an inference (POST), JSON or binary tensors. Answered without Python", "InferResponse", _INFER, "InferRequest",
         versions=True),
    Call("post", f"{_MODEL}/labels/{{label}}/infer", "of the version that a label names", "InferResponse", _INFER, "InferRequest"),
    Call("post", f"{_MODEL}/feedback", "what was true of answers that have carried tokens, many at once (POST). Each counts or is rejected by itself",
         "FeedbackTaken", (400, 404, 503), "FeedbackRequest"),
    Call("get", f"{_MODEL}/config", "Triton's model configuration", "Config", (404, 503), versions=True),
    Call("get", f"{_MODEL}/stats", "the v2 statistics", "Statistics", (404, 503), versions=True),
    Call("get", f"{_MODEL}/latency", "p50, p90, p99, p99.9 of each stage over the last 10 s, 1 min and 5 min, and expected run times", "Latency",
         (404, 503), versions=True),
    Call("post", "/v2/repository/index", 'all versions with state and reason (POST; `{"ready": true}`: those alone)', "Index", (400,), "IndexRequest",
         also="/v2/repository/{repository}/index"),
    Call("post", "/v2/repository/models/{model}/load",
         "looks at a model's folder now and tries again what failed; may bring files with `--allow-upload` (POST; guarded)",
         "Nothing", (*_GUARDED, 409, 413), "LoadRequest", guarded=True),
    Call("post", "/v2/repository/models/{model}/unload",
         "takes a model out of service until a load call or a change in its folder (POST; guarded)",
         "Nothing", _GUARDED, "UnloadRequest", guarded=True),
    Call("post", f"{_TFS}:predict", "TensorFlow Serving's predict, `instances` or `inputs` (POST)", "TfAnswer", _INFER, "TfRequest",
         versions=True, also=f"{_TFS}/labels/{{label}}:predict"),
    Call("post", f"{_TFS}:classify", "not offered", "Error", (501,), versions=True, also=f"{_TFS}/labels/{{label}}:classify"),
    Call("post", f"{_TFS}:regress", "not offered", "Error", (501,), versions=True, also=f"{_TFS}/labels/{{label}}:regress"),
    Call("get", _TFS, "TensorFlow Serving's model status", "TfStatus", (404, 503), versions=True, also=f"{_TFS}/labels/{{label}}"),
    Call("get", f"{_TFS}/metadata", "TF Serving's metadata", "TfMetadata", (404, 503), versions=True, also=f"{_TFS}/labels/{{label}}/metadata"),
    Call("get", "/admin/models", "what `batchmill models` shows: state, reason, traffic, memory, hash", "AdminModels"),
    Call("get", _TUNING, "how a model is served: the value of each key that a call may set, and where it is from", "Tuning", (404, 503)),
    Call("patch", _TUNING, "sets some of these keys, from the next batch on, before what the model's file says; null takes one back (PATCH; guarded)",
         "Tuning", _CHANGES, "TuneRequest", guarded=True),
    Call("delete", _TUNING, "takes back all that calls have set (DELETE; guarded)", "Tuning", (401, 403, 404, 503), guarded=True),
    Call("get", f"{_ADMIN}/route", "what `batchmill route` shows: weights, rules, labels, and the share of the traffic that each version has had",
         "Route", (404, 503)),
    Call("put", f"{_ADMIN}/route", "sets weights over versions, and rules that go before them (PUT; guarded)", "Route", _CHANGES, "RouteRequest",
         guarded=True),
    Call("delete", f"{_ADMIN}/route", "takes the route back: the newest version that serves gets the traffic (DELETE; guarded)", "Route", _CHANGES,
         guarded=True),
    Call("put", f"{_ADMIN}/labels/{{label}}", "moves a label to a version, in one swap (PUT; guarded)", "Route", _CHANGES, "VersionRequest",
         guarded=True),
    Call("delete", f"{_ADMIN}/labels/{{label}}", "removes a label (DELETE; guarded)", "Route", _CHANGES, guarded=True),
    Call("post", f"{_ADMIN}/promote", "gives all traffic to a version (POST; guarded)", "Route", _CHANGES, "VersionRequest", guarded=True),
    Call("post", f"{_ADMIN}/rollback", "takes the last move of the traffic back (POST; guarded)", "Route", _CHANGES, guarded=True),
    Call("get", f"{_ADMIN}/rollout", "how the last rollout stands: its step, the gates, what is missing, what waits", "Rollout", (404, 503)),
    Call("post", f"{_ADMIN}/rollout", "starts one: a version, and a plan or the usual one (POST; guarded)", "Rollout", _CHANGES, "RolloutRequest",
         guarded=True),
    Call("post", f"{_ADMIN}/rollout/approve", "lets a step that waits for it go on (POST; guarded)", "Rollout", _CHANGES, guarded=True),
    Call("post", f"{_ADMIN}/rollout/abort", "ends it; the traffic goes back (POST; guarded)", "Rollout", _CHANGES, guarded=True),
    Call("get", f"{_ADMIN}/shadow", "what `batchmill shadow` shows: how far the answers of candidates are from those that callers got", "Shadows",
         (404, 503)),
    Call("put", f"{_ADMIN}/shadow", "mirrors a share of the requests to a version (PUT; guarded)", "Shadows", _CHANGES, "ShadowRequest",
         guarded=True),
    Call("delete", f"{_ADMIN}/shadow", "ends it, of all versions or of `?version=NUMBER` (DELETE; guarded)", "Shadows", _CHANGES,
         query=(("version", ("2",)),), guarded=True),
    Call("get", f"{_ADMIN}/shadow/worst", "the worst disagreements with their tensors, in base64 (guarded, as callers' data is in it)", "Worst",
         (401, 403, 404, 503), guarded=True),
    Call("get", "/admin/audit",
         "what `batchmill audit` shows: who has changed what, newest first (`?model=`, `action=`, `since=2h` or a time, `before=SEQ`, `limit=100`), "
         "the head, and whether all of it can be written", "Audit", (400, 503),
         query=(("model", ("digits",)), ("action", ("traffic.moved",)), ("since", ("2h",)), ("before", ("1000",)), ("limit", ("100",)))),
    Call("get", "/admin/audit/export", "the whole audit trail, oldest first, a line of JSON for each entry and one for the head",
         "application/x-ndjson", (503,)),
    Call("get", "/admin/audit/verify", "reads the whole trail and says whether it is as it was written (`?head=SEQ:HASH`: that entry is still there)",
         "AuditVerdict", (400, 503), query=(("head", (f"0:{'0' * 64}",)),)),
    Call("get", "/admin/models/{model}/quality",
         "what `batchmill quality` shows: how right each version turned out to be, and which is better (`?generation=NUMBER` of the route)",
         "Quality", (400, 404, 503)),
    Call("get", "/admin/activity", "what `batchmill top` shows (`?window=10s`, `1m`, `5m`)", "Activity", (400,),
         query=(("window", ("10s", "1m", "5m")),)),
    Call("get", "/metrics", "for Prometheus", "text/plain"),
    Call("get", "/openapi.json", "these calls and the served models as an OpenAPI 3.1 document", "Document"),
    Call("get", "/docs", "the same as a page to read, with curl examples", "text/html"),
    Call("get", "/docs/models/{model}/versions/{version}/example", "a request that the version takes, ready to be posted", "Any", (404, 413)),
)  # fmt: skip


def record(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "object", "required": [*required], "properties": {**required, **(optional or {})}}


def listed(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT, WHOLE, NUMBER, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}
ANY: dict[str, Any] = {"type": "object"}
DATATYPES = ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"]
_CLASS = {"type": ["integer", "string"]}
_SHAPE = listed({"type": "integer", "minimum": 0})
_TENSOR = {"name": TEXT, "datatype": {"enum": DATATYPES}, "shape": _SHAPE}
_SPECS = listed(record({"name": TEXT, "datatype": {"enum": DATATYPES}, "shape": listed(WHOLE)}))
_CONFIG_SPECS = listed(record({"name": TEXT, "data_type": TEXT, "dims": listed(WHOLE)}))
_HEAD = record({"seq": WHOLE, "hash": TEXT})
_AUDIT_STATE = record({"kept": {"enum": ["file", "memory"]}, "waiting": WHOLE, "lost": WHOLE, "problem": TEXT,
                       "verified": {"type": ["object", "null"]}})
_SHARES = {"type": "object", "description": "by version", "additionalProperties": {"type": "number", "minimum": 0}}
_LABELS = {"type": "object", "additionalProperties": TEXT}
_RULE = record({"equals": TEXT, "version": TEXT}, {"header": TEXT, "parameter": TEXT})
_DURATION = record({"count": WHOLE, "ns": WHOLE})
_STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")


def data(leaf: dict[str, Any]) -> dict[str, Any]:
    """Values flat or nested, row by row."""
    return listed({"anyOf": [leaf, {"type": "array"}]})


EXAMPLES: dict[str, Any] = {  # bodies, by schema
    "RouteRequest": {"weights": {"1": 90, "2": 10}, "rules": [{"header": "x-tenant", "equals": "acme", "version": "2"}]},
    "VersionRequest": {"version": "1"},
    "RolloutRequest": {"version": "2", "plan": {"steps": [{"share": 5, "min_samples": 500}, {"share": 100}]}},
    "ShadowRequest": {"version": "2", "share": 0.5},
    "TuneRequest": {"batching.max_batch_size": 32},
    "FeedbackRequest": {"feedback": [{"token": "x-feedback-token of an answer", "label": 3}]},
    "IndexRequest": {"ready": True},
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "Error": record({"error": {"type": "string", "description": "what was given, and what is wanted"}}),
    "Nothing": {"type": "object", "maxProperties": 0},
    "Any": {"description": "an InferRequest, followed by tensors where it says so"},
    "Document": ANY,
    "TfStatus": ANY,
    "TfMetadata": ANY,
    "TfRequest": record({}, {"instances": {"type": "array"}, "inputs": {}, "signature_name": TEXT}),
    "TfAnswer": record({}, {"predictions": {"type": "array"}, "outputs": {}}),
    "Server": record({"name": TEXT, "version": TEXT, "extensions": listed(TEXT)}),
    "Models": record({"models": listed(TEXT)}),
    "Metadata": record({"name": TEXT, "versions": listed(TEXT), "platform": TEXT, "inputs": _SPECS, "outputs": _SPECS}, {"properties": ANY}),
    "Config": record({"name": TEXT, "platform": TEXT, "backend": TEXT, "max_batch_size": WHOLE, "input": _CONFIG_SPECS, "output": _CONFIG_SPECS},
                     {"dynamic_batching": ANY}),
    "Statistics": record({"model_stats": listed(record({
        "name": TEXT, "version": TEXT, "last_inference": {"type": "integer", "description": "ms since 1970"}, "inference_count": WHOLE,
        "execution_count": WHOLE, "inference_stats": record(dict.fromkeys(_STAGES, _DURATION)), "batch_stats": listed(ANY),
        "memory_usage": listed(ANY)}))}),
    "Latency": record({"model_name": TEXT, "versions": listed(record({"version": TEXT, "windows": ANY, "predicted": listed(ANY)}))}),
    "Index": listed(record({"name": TEXT, "version": TEXT, "state": {"enum": ["READY", "LOADING", "UNAVAILABLE"]}, "reason": TEXT})),
    "IndexRequest": record({}, {"ready": {"type": "boolean", "description": "those that are ready alone"}}),
    "LoadRequest": record({}, {"parameters": {
        "type": "object", "additionalProperties": False, "properties": {"config": {"type": "string", "description": "JSON; with --allow-upload"}},
        "patternProperties": {"^file:[1-9][0-9]*/[^/]+$": {"type": "string", "contentEncoding": "base64", "description": "with --allow-upload"}}}}),
    "UnloadRequest": record({}, {"parameters": ANY}),
    "AdminModels": record({"models": listed(record({"model": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT}))}),
    "Tuning": record({"model": TEXT, "tuning": {"type": "object", "additionalProperties": record({
        "value": {"description": "as in model.yaml"}, "from": {"enum": ["default", "model.yaml", "config.pbtxt", "call"]}})}}),
    "TuneRequest": {
        "type": "object", "additionalProperties": False, "description": "keys and values of model.yaml, nested as there, or dotted",
        "properties": {key: {} for key in (*dict.fromkeys(key.partition(".")[0] for key in TUNABLE if "." in key), *TUNABLE)}},
    "Route": record({"model": TEXT, "weights": _SHARES, "generation": WHOLE, "rules": listed(_RULE), "default": {"type": ["string", "null"]},
                     "shares": ANY, "labels": _LABELS, "stand_ins": _LABELS, "before": {"type": ["object", "null"]}}),
    "RouteRequest": record({}, {"weights": _SHARES, "rules": {"type": "array", "maxItems": 32, "items": _RULE}}),
    "VersionRequest": record({"version": TEXT}),
    "Rollout": record({"model": TEXT, "status": TEXT, "incumbent": TEXT, "candidate": TEXT, "step": TEXT, "steps": listed(TEXT),
                       "reasons": listed(TEXT), "approved": FLAG, "decision": {"type": ["object", "null"]}, "plan": {"type": ["object", "null"]},
                       "by": TEXT, "waiting": listed(ANY)}),
    "RolloutRequest": record({"version": TEXT}, {"plan": {"type": "object", "description": "as in model.yaml's `rollout`: docs/rollouts.md"}}),
    "Shadows": record({"model": TEXT, "shadows": listed(ANY)}),
    "ShadowRequest": record({"version": TEXT}, {
        "share": {"type": "number", "minimum": 0.0001, "maximum": 1}, "max_cpu": {"type": "number", "minimum": 0, "maximum": 1},
        "max_pending_mib": {"type": "number", "exclusiveMinimum": 0}, "rtol": NUMBER, "atol": NUMBER, "agree_by": {"enum": ["tolerance", "argmax"]},
        "keep": {"type": "integer", "minimum": 0, "maximum": 64}, "redact": FLAG}),
    "Worst": record({"model": TEXT, "worst": ANY}),
    "Audit": record({"entries": listed(record({
        "seq": WHOLE, "at": TEXT, "actor": TEXT, "key": FLAG, "action": TEXT, "model": TEXT, "version": TEXT, "before": {}, "after": {}, "files": ANY,
        "outcome": {"enum": ["ok", "refused", "failed"]}, "reason": TEXT, "hash": TEXT})), "head": _HEAD, "state": _AUDIT_STATE}),
    "AuditVerdict": record({"head": _HEAD, "broken": {"type": ["integer", "null"]}, "reason": TEXT, "state": _AUDIT_STATE}),
    "FeedbackRequest": record({"feedback": {"type": "array", "maxItems": 10_000, "items": record(
        {"token": TEXT}, {"label": _CLASS, "prediction": _CLASS, "correct": FLAG, "reward": NUMBER})}}),
    "FeedbackTaken": record({"counted": WHOLE, "rejected": listed(record({
        "index": WHOLE, "reason": {"enum": ["invalid", "expired", "repeated", "no_prediction"]}, "error": TEXT}))}),
    "Quality": record({"model": TEXT, "versions": listed(ANY), "verdicts": listed(record({
        "version": TEXT, "than": TEXT, "measure": {"enum": ["accuracy", "reward"]},
        "verdict": {"enum": ["better", "worse", "not_worse", "undecided"]}, "text": TEXT})), "rejected": ANY, "feedback": FLAG}),
    "Activity": record({"window": TEXT, "versions": listed(record({"model": TEXT, "version": TEXT, "waiting": WHOLE}))}),
    "Numbers": data({"anyOf": [NUMBER, {"enum": ["NaN", "Infinity", "-Infinity"]}]}),
    "Integers": data(WHOLE),
    "Booleans": data(FLAG),
    "Texts": data(TEXT),
    "TensorParameters": record({}, {"binary_data_size": {
        "type": "integer", "minimum": 0,
        "description": "bytes of this tensor after the JSON, in the place of `data`; see Inference-Header-Content-Length"}}),
    "RequestParameters": record({}, {
        "timeout": {"type": "integer", "minimum": 1, "description": "µs until the run has to start"},
        "binary_data_output": {
            "type": "boolean", "description": "all outputs as binary tensors, if their own `binary_data` does not say otherwise"}}),
    "RequestedOutput": record({"name": TEXT}, {"parameters": record({}, {
        "binary_data": FLAG, "classification": {"type": "integer", "minimum": 1, "description": "the so many greatest values as `value:index`"}})}),
    "Tensor": record(_TENSOR, {"data": {"type": "array"}, "parameters": ref("TensorParameters")}),
    "InferRequest": record(
        {"inputs": listed(ref("Tensor"))},
        {"id": TEXT, "parameters": ref("RequestParameters"), "outputs": listed(ref("RequestedOutput"))}),
    "InferResponse": record(
        {"model_name": TEXT, "model_version": TEXT, "outputs": listed(ref("Tensor"))},
        {"id": TEXT, "parameters": ANY}),
}  # fmt: skip
