"""model.yaml: what a model's owner may say about it. All of it is optional; unknown keys are errors with line and nearest key."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from batchmill.errors import ConfigError
from batchmill.registry.policy import VersionPolicy
from batchmill.registry.settings import ModelSettings

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1 << 20
# Valid keys that this release does not act on; a file that has one is told so.
_NOT_YET = (
    "slo", "golden", "signature_change", "batching.preferred_batch_sizes", "queue.max_wait_ms", "queue.timeout_action",
)  # fmt: skip


def read(path: Path) -> ModelSettings:
    """The settings of a model.yaml; the defaults when there is no such file. ConfigError names file, line and key."""
    if not path.is_file():
        return ModelSettings()
    import yaml

    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path}: larger than 1 MiB")
    try:
        text = path.read_text(encoding="utf-8")
        if any(isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) for event in yaml.parse(text)):
            raise ConfigError(f"{path}: anchors and aliases are not allowed")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        given = yaml.safe_load(text) or {}
    except (yaml.YAMLError, UnicodeDecodeError, OSError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or 'not readable as YAML'}") from None
    return validated(path, node, given)


def validated(path: Path, node: yaml.Node | None, given: Any) -> ModelSettings:
    import pydantic

    if not isinstance(given, dict):
        raise ConfigError(f"{path}:1: keys and values wanted")
    try:
        model = schema().model_validate(given)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        line = line_of(node, place)
        text = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(place[-1], known_keys(place[:-1]), 1)
            text = "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
        raise ConfigError(f"{path}:{line}: {'.'.join(place)}: {text}") from None
    return dataclasses.replace(settings_of(model), without_effect=tuple(key for key in _NOT_YET if is_given(given, key)))


def is_given(given: Any, key: str) -> bool:
    """Whether a dotted key is in a mapping of mappings."""
    for part in key.split("."):
        if not isinstance(given, dict) or part not in given:
            return False
        given = given[part]
    return True


def line_of(node: Any, place: list[str]) -> int:
    """The line of a key, counted from 1; of the closest thing above it when the key itself is not there."""
    line = 1
    for part in place:
        pairs = node.value if node is not None and isinstance(node.value, list) else []
        found = [pair for pair in pairs if isinstance(pair, tuple) and str(pair[0].value) == part]
        if not found:
            break
        line, node = found[0][0].start_mark.line + 1, found[0][1]
    return line


_schema: Any = None


def schema() -> Any:
    """The pydantic model; made on first use, because most models have no file and pydantic takes 70 ms to import."""
    global _schema
    if _schema is None:
        _schema = make_schema()
    return _schema


def make_schema() -> Any:
    from pydantic import BaseModel, ConfigDict, Field

    class Part(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

    class Versions(Part):
        policy: Literal["latest", "all"] | list[int] = "latest"
        count: int = Field(default=1, ge=1)

    class Batching(Part):
        mode: Literal["auto", "on", "off"] = "auto"
        max_batch_size: int = Field(default=64, ge=1, le=65536)
        max_queue_delay_us: int = Field(default=0, ge=0)
        preferred_batch_sizes: list[int] = []

    class Queue(Part):
        max_rows: int = Field(default=4096, ge=1)
        max_wait_ms: int = Field(default=2000, ge=0)
        default_timeout_us: int = Field(default=0, ge=0)
        timeout_action: Literal["reject", "delay"] = "reject"

    class Instances(Part):
        count: int | Literal["auto"] = "auto"
        intra_op_threads: int | Literal["auto"] = "auto"

    class Slo(Part):
        latency_ms: float = Field(gt=0)
        target: float = Field(default=0.99, gt=0, le=1)

    class Warmup(Part):
        runs: int = Field(default=3, ge=0, le=1000)

    class Golden(Part):
        rtol: float = 1e-4
        atol: float = 1e-6
        p99_ms: float | None = None

    class Lineage(Part):
        git_commit: str = ""
        training_run: str = ""
        data_sha256: str = ""
        note: str = ""

    class Model(Part):
        backend: Literal["onnxruntime"] = "onnxruntime"
        versions: Versions = Versions()
        labels: dict[str, int] = {}
        batching: Batching = Batching()
        queue: Queue = Queue()
        instances: Instances = Instances()
        slo: Slo | None = None
        execution_providers: list[str] = ["CPUExecutionProvider"]
        run_timeout_ms: int = Field(default=30000, ge=0)
        warmup: Warmup = Warmup()
        golden: Golden = Golden()
        signature_change: Literal["hold", "allow"] = "hold"
        lineage: Lineage = Lineage()
        parameters: dict[str, Any] = {}

    return Model


def known_keys(place: list[str]) -> list[str]:
    model = schema()
    for part in place:
        model = getattr(model.model_fields.get(part), "annotation", None)
        if not hasattr(model, "model_fields"):
            return []
    return list(model.model_fields)


def settings_of(model: Any) -> ModelSettings:
    policy = model.versions.policy
    versions = VersionPolicy("specific", numbers=tuple(policy)) if isinstance(policy, list) else VersionPolicy(policy, model.versions.count)
    count, threads = model.instances.count, model.instances.intra_op_threads
    return ModelSettings(
        versions=versions,
        labels={label: str(number) for label, number in model.labels.items()},
        batching=model.batching.mode,
        max_batch_size=model.batching.max_batch_size,
        max_queue_rows=model.queue.max_rows,
        max_queue_delay_us=model.batching.max_queue_delay_us,
        default_timeout_us=model.queue.default_timeout_us,
        run_timeout_ms=model.run_timeout_ms,
        instances=0 if count == "auto" else count,
        intra_op_threads=1 if threads == "auto" else threads,
        execution_providers=tuple(model.execution_providers),
        warmup_runs=model.warmup.runs,
    )
