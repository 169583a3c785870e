"""Triton's config.pbtxt, read where there is no model.yaml: what of it has a meaning here; the rest is told with line and column.

The text is scanned for where each field stands, fields that are not known here are blanked out, and what is left is parsed
strictly by protobuf, which is imported for that alone. Then it goes the way of a model.yaml.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchmill import complaints
from batchmill.errors import ConfigError
from batchmill.registry import model_config
from batchmill.registry.model_schema import schema
from batchmill.registry.pbtxt_scan import Field, scan
from batchmill.registry.settings import DeclaredTensor, ModelSettings

MAX_BYTES = 256 << 10
MAX_NOTES = 100  # lines of the log that one file may cause
_UNBOUNDED_ROWS = 1_000_000_000
# Fields that have no effect here, and the values for which that makes no difference.
_NO_EFFECT: dict[str, tuple[str, ...]] = {
    "default_model_filename": ('"model.onnx"', '""'),
    "input.format": ("FORMAT_NONE",), "input.reshape": (), "input.is_shape_tensor": ("false",), "input.allow_ragged_batch": ("false",),
    "input.optional": ("false",), "output.label_filename": ('""',), "output.reshape": (), "output.is_shape_tensor": ("false",),
    "instance_group.name": (), "instance_group.gpus": (), "instance_group.kind": ("KIND_AUTO", "KIND_CPU"),
    "dynamic_batching.preserve_ordering": ("false",),
    "dynamic_batching.priority_queue_policy": (), "dynamic_batching.default_queue_policy.allow_timeout_override": ("true",),
    "parameters.key": ('"intra_op_thread_count"',),
}  # fmt: skip
# Fields of Triton's that the parser does not know: valid, and without effect.
ELSEWHERE = {
    "model_warmup", "response_cache", "ensemble_scheduling", "sequence_batching", "optimization", "model_metrics", "model_operations",
    "model_transaction_policy", "model_repository_agents", "cc_model_filenames", "metric_tags", "runtime", "batch_input", "batch_output",
    "instance_group.host_policy", "instance_group.rate_limiter", "instance_group.secondary_devices", "instance_group.profile",
    "instance_group.passive", "input.is_non_linear_format_io", "output.is_non_linear_format_io",
}  # fmt: skip
# Where a key of model.yaml comes from.
_ORIGINS = {
    "versions.policy": "version_policy", "versions.count": "version_policy.latest.num_versions", "batching.max_batch_size": "max_batch_size",
    "batching.max_queue_delay_us": "dynamic_batching.max_queue_delay_microseconds",
    "queue.max_rows": "dynamic_batching.default_queue_policy.max_queue_size",
    "queue.default_timeout_us": "dynamic_batching.default_queue_policy.default_timeout_microseconds",
    "batching.preferred_batch_sizes": "dynamic_batching.preferred_batch_size",
    "queue.timeout_action": "dynamic_batching.default_queue_policy.timeout_action",
    "queue.priority_levels": "dynamic_batching.priority_levels", "queue.default_priority_level": "dynamic_batching.default_priority_level",
    "instances.count": "instance_group.count", "instances.intra_op_threads": "parameters.value.string_value",
}  # fmt: skip


def read(path: Path, model: str) -> ModelSettings:
    """model: the folder's name. ConfigError names file, line and column."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES >> 10} KiB")
        text = path.read_text(encoding="utf-8")
        fields = scan(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable: {error}") from None
    unknown = list(unknown_fields(fields))
    config = parsed(path, blanked(text, unknown))
    check_identity(path, config, model, fields)
    given = settings_given(config, fields)
    settings = validated(path, given, fields)
    notes = [note_on_unknown(field) for field in unknown] + [note for field in fields if (note := note_on(field))]
    told = [f"{path.name}:{note}" for note in notes[:MAX_NOTES]] + [f"{path.name}: {len(notes) - MAX_NOTES} more"] * (len(notes) > MAX_NOTES)
    found = tuple(declared(path, config, fields))
    return dataclasses.replace(settings, notes=tuple(told), declared=found, file=path.name, given=model_config.tunable(given))


# Fields, by where they stand.
def unknown_fields(fields: list[Field]) -> Iterator[Field]:
    """Those that the parser does not know; not what is inside of them."""
    end = 0
    for field in fields:
        if field.start >= end and field.name not in known_names(field.path[:-1]):
            end = field.end
            yield field


def known_names(path: tuple[str, ...]) -> list[str]:
    return list(fields_of(path))


@functools.cache
def fields_of(path: tuple[str, ...]) -> dict[str, Any]:
    """What protobuf says of the fields of the message at that path, by name."""
    from batchmill.proto import model_config_pb2 as pb

    message: Any = pb.ModelConfig.DESCRIPTOR
    for name in path:
        field = message.fields_by_name.get(name) if message else None
        message = field.message_type if field else None
    return dict(message.fields_by_name) if message else {}


def blanked(text: str, fields: list[Field]) -> str:
    """The text without these fields; everything else keeps its place."""
    parts, at = [], 0
    for field in fields:
        parts += [text[at : field.start], re.sub(r"[^\n]", " ", text[field.start : field.end])]
        at = field.end
    return "".join(parts) + text[at:]


def note_on_unknown(field: Field) -> str:
    if field.dotted in ELSEWHERE:
        return f"{field.place}: {field.dotted} has no effect in this release"
    near = difflib.get_close_matches(field.name, [*known_names(field.path[:-1]), *(name for name in ELSEWHERE if len(field.path) == 1)], 1)
    return f"{field.place}: {field.dotted}: unknown field" + (f"; did you mean {near[0]!r}?" if near else "")


def note_on(field: Field) -> str:
    harmless = _NO_EFFECT.get(field.dotted)
    if harmless is None or field.value in harmless:
        return ""
    what = f"parameter {field.value}" if field.dotted == "parameters.key" else field.dotted
    value = f" {field.value}" if harmless and field.dotted != "parameters.key" else ""
    return f"{field.place}: {what}{value} has no effect in this release"


def place_of(fields: list[Field], dotted: str) -> str:
    """line:column of the first field of that path, or of what is above it."""
    while dotted:
        for field in fields:
            if field.dotted == dotted:
                return field.place
        dotted = dotted.rpartition(".")[0]
    return "1:1"


# Their meaning.
def parsed(path: Path, text: str) -> Any:
    from google.protobuf import text_format

    from batchmill.proto import model_config_pb2 as pb

    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        line, column = error.GetLine() or 1, error.GetColumn() or 1
        message = str(error).removeprefix(f"{line}:{column} : ")
        raise ConfigError(f"{path}:{line}:{column}: {message[:300]}") from None


def check_identity(path: Path, config: Any, model: str, fields: list[Field]) -> None:
    for key, wanted in (("name", model), ("platform", "onnxruntime_onnx"), ("backend", "onnxruntime")):
        given = getattr(config, key)
        if given and given != wanted:
            raise ConfigError(f"{path}:{place_of(fields, key)}: {key}: {given[:100]!r} given, {wanted!r} wanted")


def settings_given(config: Any, fields: list[Field]) -> dict[str, Any]:
    """The same in the words of model.yaml; only what is given."""
    names = {field.dotted for field in fields}
    batching: dict[str, Any] = {}
    queue: dict[str, Any] = {}
    instances: dict[str, Any] = {}
    if "max_batch_size" in names:  # 0 says that there is no batch axis
        batching = {"max_batch_size": config.max_batch_size} if config.max_batch_size else {"mode": "off"}
    policy = config.dynamic_batching.default_queue_policy
    if "dynamic_batching.preferred_batch_size" in names:
        batching["preferred_batch_sizes"] = list(config.dynamic_batching.preferred_batch_size)
    if "dynamic_batching.default_queue_policy.timeout_action" in names:
        queue["timeout_action"] = "delay" if policy.timeout_action == policy.DELAY else "reject"
    if "dynamic_batching.max_queue_delay_microseconds" in names:
        batching["max_queue_delay_us"] = config.dynamic_batching.max_queue_delay_microseconds
    if "dynamic_batching.default_queue_policy.max_queue_size" in names:
        queue["max_rows"] = policy.max_queue_size or _UNBOUNDED_ROWS
    if "dynamic_batching.default_queue_policy.default_timeout_microseconds" in names:
        queue["default_timeout_us"] = policy.default_timeout_microseconds
    for key in ("priority_levels", "default_priority_level"):
        if f"dynamic_batching.{key}" in names:
            queue[key] = getattr(config.dynamic_batching, key)
    groups = [group for group in config.instance_group if group.kind in (group.KIND_AUTO, group.KIND_CPU)]
    if any(group.count for group in groups):
        instances["count"] = sum(group.count or 1 for group in groups)
    if "intra_op_thread_count" in config.parameters:
        threads = config.parameters["intra_op_thread_count"].string_value
        instances["intra_op_threads"] = (int(threads) or "auto") if threads.isascii() and threads.isdigit() and len(threads) < 9 else threads
    return {"versions": versions_given(config.version_policy), "batching": batching, "queue": queue, "instances": instances}


def versions_given(policy: Any) -> dict[str, Any]:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return {"policy": "all"}
        case "specific":
            return {"policy": list(policy.specific.versions)}
        case "latest":
            return {"policy": "latest", "count": policy.latest.num_versions or 1}
    return {}


def validated(path: Path, given: dict[str, Any], fields: list[Field]) -> ModelSettings:
    import pydantic

    try:
        return model_config.settings_of(schema().model_validate(given))
    except pydantic.ValidationError as error:
        place, text = complaints.first(error, schema())
        origin = _ORIGINS.get(".".join(place[:2]), "")
        raise ConfigError(f"{path}:{place_of(fields, origin)}: {origin}: {text}") from None


def declared(path: Path, config: Any, fields: list[Field]) -> Iterator[DeclaredTensor]:
    """Inputs and outputs, in the words of the protocol; what max_batch_size says of their dims."""
    batch = "with" if config.max_batch_size else "without" if any(field.dotted == "max_batch_size" for field in fields) else "either"
    for kind, tensors in (("input", config.input), ("output", config.output)):
        names = [field for field in fields if field.dotted == f"{kind}.name"]
        for number, tensor in enumerate(tensors):
            types = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
            datatype = types[tensor.data_type].name.removeprefix("TYPE_") if tensor.data_type in types else ""
            datatype = {"STRING": "BYTES", "INVALID": ""}.get(datatype, datatype)
            dims = tuple(tensor.dims) if tensor.dims and not tensor.HasField("reshape") else None
            where = names[number].place if len(names) == len(tensors) else place_of(fields, kind)
            yield DeclaredTensor(f"{path.name}:{where}", kind, tensor.name, datatype, dims, batch)
