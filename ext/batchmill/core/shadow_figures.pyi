from typing import Any, TypedDict, type_check_only

from batchmill.core.router import Version

@type_check_only
class Moments(TypedDict):
    count: int
    mean: float
    variance: float

@type_check_only
class OutputFigures(TypedDict):
    compared: int
    agreeing: int
    equal: int
    shapes_differ: int
    not_finite: int
    rows: int
    argmax_same: int
    max_abs: float
    max_rel: float
    abs: Moments
    rel: Moments
    cosine: Moments
    argmax: Moments
    top: Moments

@type_check_only
class ShadowFigures(TypedDict):
    epoch: int
    active: bool
    mirrored: int
    compared: int
    agreeing: int
    errors: int
    shed: int
    expired: int
    dropped: int
    pending: int
    pending_bytes: int
    batches: int
    rows: int
    cpu_ns: int
    log_latency_ratio: Moments
    last_error: str
    outputs: dict[str, OutputFigures]

def stats_of(version: Version) -> ShadowFigures | None: ...
def worst_of(version: Version) -> list[dict[str, Any]]: ...
