"""What the data plane has counted of two versions, as evidence of a rollout."""

from __future__ import annotations

from batchmill.core.histogram import difference
from batchmill.core.shadow_figures import stats_of
from batchmill.registry.status import ModelStatus, VersionStatus
from batchmill.rollout.evidence import Arm, Evidence, Shadow, latencies_of
from batchmill.rollout.shadow import evidence_of as evidence_of_shadow

# Reasons of failures that a version is to blame for. RUN_FAILED is: inputs that no version can run fail in both, and only the rise counts.
BLAMED = ("RUN_FAILED", "RUNTIME_ERROR", "RUN_TIMEOUT", "RUN_OUT_OF_MEMORY", "WRONG_ROWS", "WRONG_LENGTH")


def evidence_of(model: ModelStatus, incumbent: str, candidate: str) -> Evidence:
    """Since the versions were loaded. A version that does not serve has counted nothing."""
    return Evidence(arm_of(model.versions.get(incumbent)), arm_of(model.versions.get(candidate)), shadow_of(model, candidate))


def shadow_of(model: ModelStatus, candidate: str) -> Shadow:
    """Since it was set: figures of a shadow before it are not its own."""
    version, epochs = model.versions.get(candidate), [one.epoch for one in model.naming.shadows if one.version == candidate]
    found = stats_of(version.served) if version and version.served else None
    return evidence_of_shadow(found) if found and found["epoch"] in epochs else Shadow()


def arm_of(version: VersionStatus | None) -> Arm:
    if version is None or version.served is None:
        return Arm()
    stats, stages = version.served.stats(), difference(version.served.snapshot(), b"")["stages"]
    latencies: dict[tuple[int, int], int] = {}
    for stage in ("total_grpc", "total_rest"):
        for bounds, count in stages[stage].items():
            latencies[bounds] = latencies.get(bounds, 0) + count
    errors = sum(count for reason, count in stats["reasons"].items() if reason in BLAMED)
    moments, buckets = latencies_of(latencies)
    return Arm(stats["success"] + errors, errors, moments, buckets)
