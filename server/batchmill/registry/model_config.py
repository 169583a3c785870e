"""model.yaml: what a model's owner may say about it. All of it is optional; unknown keys are errors with line and nearest key."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from batchmill import document
from batchmill.backends import Tuning
from batchmill.registry.model_schema import schema
from batchmill.registry.policy import VersionPolicy
from batchmill.registry.settings import TUNABLE, DeclaredPadding, Fallback, ModelSettings, PaddedInput
from batchmill.rollout.plan_schema import plan_of

# Valid keys that this release does not act on; a file that has one is told so.
_NOT_YET = ("parameters",)


def read_folder(folder: Path, name: str) -> ModelSettings:
    """By model.yaml; where there is none, by Triton's config.pbtxt. name: the model's."""
    if (folder / "config.pbtxt").is_file() and not (folder / "model.yaml").is_file():
        from batchmill.registry import config_pbtxt

        return config_pbtxt.read(folder / "config.pbtxt", name)
    return read(folder / "model.yaml")


def read(path: Path) -> ModelSettings:
    """The settings of a model.yaml; the defaults when there is no such file. ConfigError names file, line and key."""
    if not path.is_file():
        return ModelSettings()
    import pydantic

    node, given = document.read(path)
    try:
        model = schema().model_validate(given)
    except pydantic.ValidationError as error:
        raise document.mistake(path, node, error, schema()) from None
    without_effect = tuple(key for key in _NOT_YET if is_given(given, key))
    return dataclasses.replace(settings_of(model), without_effect=without_effect, file=path.name, given=tunable(given))


def tunable(given: Any) -> dict[str, Any]:
    """What of TUNABLE is in a mapping of mappings, by dotted key."""
    return {key: functools.reduce(lambda inside, part: inside[part], key.split("."), given) for key in TUNABLE if is_given(given, key)}


def is_given(given: Any, key: str) -> bool:
    """Whether a dotted key is in a mapping of mappings."""
    for part in key.split("."):
        if not isinstance(given, dict) or part not in given:
            return False
        given = given[part]
    return True


def tuning_of(model: Any) -> Tuning:
    batching, queue, instances, breaker = model.batching, model.queue, model.instances, model.breaker
    return Tuning(
        max_batch_size=batching.max_batch_size,
        preferred_batch_sizes=tuple(sorted({size for size in batching.preferred_batch_sizes if size <= batching.max_batch_size})),
        max_queue_delay_us=batching.max_queue_delay_us,
        instances=0 if instances.count == "auto" else instances.count,
        run_on=instances.run_on,
        weight=instances.weight,
        run_timeout_ms=model.run_timeout_ms,
        max_queue_rows=queue.max_rows,
        max_wait_ms=queue.max_wait_ms,
        default_timeout_us=queue.default_timeout_us,
        timeout_action=queue.timeout_action,
        priority_levels=queue.priority_levels,
        default_priority_level=min(queue.default_priority_level or (queue.priority_levels + 1) // 2, queue.priority_levels),
        latency_ms=model.slo.latency_ms if model.slo else 0.0,
        target=model.slo.target if model.slo else Tuning().target,
        feedback=model.feedback,
        breaker_failures=breaker.failures if breaker else 0.0,
        breaker_window_s=breaker.window_s if breaker else Tuning().breaker_window_s,
        breaker_min_requests=breaker.min_requests if breaker else Tuning().breaker_min_requests,
        breaker_open_s=breaker.open_s if breaker else Tuning().breaker_open_s,
        breaker_invalid=bool(breaker and "invalid" in breaker.when),
    )


def padding_of(model: Any) -> DeclaredPadding | None:
    given = model.batching.padding
    inputs = tuple(PaddedInput(name, one.axis, one.value) for name, one in given.inputs.items()) if given else ()
    return DeclaredPadding(inputs, tuple(given.outputs.items()), tuple(given.edges or ())) if given else None


def settings_of(model: Any) -> ModelSettings:
    policy = model.versions.policy
    versions = VersionPolicy("specific", numbers=tuple(policy)) if isinstance(policy, list) else VersionPolicy(policy, model.versions.count)
    threads = model.instances.intra_op_threads
    return ModelSettings(
        versions=versions,
        labels={label: str(number) for label, number in model.labels.items()},
        batching=model.batching.mode,
        padding=padding_of(model),
        tuning=tuning_of(model),
        intra_op_threads=None if threads == "auto" else threads,
        execution_providers=tuple(model.execution_providers),
        warmup_runs=model.warmup.runs,
        golden_rtol=model.golden.rtol,
        golden_atol=model.golden.atol,
        golden_p99_ms=model.golden.p99_ms,
        signature_change=model.signature_change,
        rollout=None if model.rollout is None else plan_of(model.rollout),
        fallbacks=tuple(Fallback(str(one.version or ""), one.model or "", one.constant or (), tuple(one.when)) for one in model.fallback),
        lineage={key: value for key, value in model.lineage.model_dump().items() if value},
    )
