"""What the data plane has counted of two versions, as evidence of a rollout."""

from __future__ import annotations

from batchmill.core.histogram import difference
from batchmill.core.router import Version
from batchmill.registry.status import ModelStatus
from batchmill.rollout.evidence import Arm, Evidence, latencies_of

# Reasons of failures that a version is to blame for. RUN_FAILED is: inputs that no version can run fail in both, and only the rise counts.
BLAMED = ("RUN_FAILED", "RUN_ERROR", "RUN_TIMEOUT", "RUN_OUT_OF_MEMORY", "WRONG_ROWS", "WRONG_LENGTH")


def evidence_of(model: ModelStatus, incumbent: str, candidate: str) -> Evidence:
    """Since the versions were loaded. A version that does not serve has counted nothing."""
    return Evidence(*(arm_of(version.served) if (version := model.versions.get(number)) and version.served else Arm()
                      for number in (incumbent, candidate)))  # fmt: skip


def arm_of(version: Version) -> Arm:
    stats, stages = version.stats(), difference(version.snapshot(), b"")["stages"]
    latencies: dict[tuple[int, int], int] = {}
    for stage in ("total_grpc", "total_rest"):
        for bounds, count in stages[stage].items():
            latencies[bounds] = latencies.get(bounds, 0) + count
    errors = sum(count for reason, count in stats["reasons"].items() if reason in BLAMED)
    moments, buckets = latencies_of(latencies)
    return Arm(stats["success"] + errors, errors, moments, buckets)
