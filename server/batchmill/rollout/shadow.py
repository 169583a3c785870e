"""What is told of shadows: the data plane's figures, with intervals that hold at every look."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from batchmill.core import shadow_figures
from batchmill.registry.naming import Shadow
from batchmill.registry.status import ModelStatus
from batchmill.rollout import evidence, sequential
from batchmill.rollout.evidence import Moments
from batchmill.rollout.split import SLOTS

ALPHA = 0.05  # of each interval
COUNTS = ("mirrored", "compared", "agreeing", "errors", "shed", "expired", "dropped", "pending", "pending_bytes", "batches", "rows")


def native(model: ModelStatus, shadow: Shadow) -> tuple[str, int, int, dict[str, Any]]:
    """As Server.publish() takes it. paired: runs of the versions that answer may be repeated to measure them."""
    settings = {
        "max_pending_bytes": int(shadow.max_pending_mib * (1 << 20)), "max_cpu": shadow.max_cpu, "rtol": shadow.rtol, "atol": shadow.atol,
        "by_argmax": shadow.agree_by == "argmax", "keep": shadow.keep, "redact": shadow.redact,
        "paired": not any(version.threads.wide for version in model.ready()),
    }  # fmt: skip
    return shadow.version, max(1, round(shadow.share * SLOTS)), shadow.epoch, settings


def reason_against(model: ModelStatus, shadow: Shadow) -> str:
    """Why it gets no requests now; empty: it gets some."""
    version = model.versions.get(shadow.version)
    if version is None or version.state != "READY":
        return f"version {shadow.version} is not ready" + (f": {version.reason}" if version and version.reason else "")
    if version.threads.wide:
        return f"version {shadow.version} runs on threads that callers' runs share; instances.intra_op_threads: 1 gives each run one"
    return ""


def told(model: ModelStatus, shadow: Shadow) -> dict[str, Any]:
    """Settings, state and figures. figures: None while no request can have come to it."""
    version = model.versions.get(shadow.version)
    given = {key: value for key, value in asdict(shadow).items() if key != "epoch"}
    found = shadow_figures.stats_of(version.served) if version and version.served else None
    reason = reason_against(model, shadow)
    about = {**given, "state": "waits" if reason else "mirrors", "reason": reason}
    return {**about, **(figures(found) if found and found["epoch"] == shadow.epoch else {"figures": None})}


def evidence_of(found: shadow_figures.ShadowFigures) -> evidence.Shadow:
    """What a rollout's gates look at, since the shadow began."""
    compared = found["compared"]  # before those that agree, which may be more by now
    return evidence.Shadow(compared, min(compared, found["agreeing"]), found["errors"], moments(found["log_latency_ratio"]))


def figures(found: shadow_figures.ShadowFigures) -> dict[str, Any]:
    ratio, tried = moments(found["log_latency_ratio"]), found["compared"] + found["errors"]
    low, high = sequential.mean(ratio, ALPHA)
    return {
        "figures": {**{key: found[key] for key in COUNTS}, "cpu_seconds": found["cpu_ns"] / 1e9},  # type: ignore[literal-required]
        "agreement": share(found["agreeing"], found["compared"]), "error_rate": share(found["errors"], tried), "last_error": found["last_error"],
        "latency_ratio": {"mean": math.exp(ratio.mean) if ratio.count else None, "batches": ratio.count,
                          "interval": [finite(math.exp(min(low, 700))), finite(math.exp(min(high, 700)))] if math.isfinite(high - low) else None},
        "outputs": {name: output(one) for name, one in found["outputs"].items()},
    }  # fmt: skip


def output(found: shadow_figures.OutputFigures) -> dict[str, Any]:
    """mean_*: of the greatest difference in each request. argmax, top5: of rows, where the output has rows of 2 elements or more than 5."""
    absolute, relative, cosine = moments(found["abs"]), moments(found["rel"]), moments(found["cosine"])
    return {
        **{key: found[key] for key in ("compared", "agreeing", "equal", "shapes_differ", "not_finite")},
        "max_abs": finite(found["max_abs"]), "max_rel": finite(found["max_rel"]),
        "mean_abs": mean(absolute), "mean_rel": mean(relative), "cosine": mean(cosine),
        "argmax": bounded(moments(found["argmax"])), "top5": bounded(moments(found["top"])),
    }  # fmt: skip


def worst(model: ModelStatus, shadow: Shadow) -> list[dict[str, Any]]:
    """The answers that were furthest apart. bytes of tensors: None where they are not kept."""
    version = model.versions.get(shadow.version)
    found = shadow_figures.worst_of(version.served) if version and version.served else []
    return [{**one, **{kind: [tensor(*each) for each in one[kind]] for kind in ("inputs", "answered", "candidate")}} for one in found]


def tensor(name: str, datatype: str, shape: list[int], raw: bytes | None) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "bytes": raw}


def moments(found: shadow_figures.Moments) -> Moments:
    count, value, variance = int(found["count"]), found["mean"], found["variance"]
    return Moments(count, value, max(0.0, variance)) if math.isfinite(value) and math.isfinite(variance) else Moments()


def share(hits: int, count: int) -> dict[str, Any]:
    return {"share": hits / count if count else None, "interval": list(sequential.proportion(min(hits, count), count, ALPHA))}


def bounded(numbers: Moments) -> dict[str, Any] | None:
    """Of numbers in [0, 1]. None: there are none."""
    if not numbers.count:
        return None
    hits = min(1.0, max(0.0, numbers.mean)) * numbers.count
    return {"share": numbers.mean, "interval": list(sequential.proportion(hits, numbers.count, ALPHA))}


def mean(numbers: Moments) -> dict[str, Any] | None:
    if not numbers.count:
        return None
    low, high = sequential.mean(numbers, ALPHA)
    return {"mean": numbers.mean, "deviation": math.sqrt(numbers.variance), "interval": [low, high] if math.isfinite(high - low) else None}


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
