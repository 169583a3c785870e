"""Statuses of models that were never loaded."""

from types import SimpleNamespace

from batchmill.registry.status import ModelStatus, VersionStatus

HISTOGRAM = {"count": 3, "sum_ns": 6_000_000, "bounds_ns": [1_000_000, 2_000_000, 4_000_000], "counts": [1, 0, 2, 0]}
STATS = {"success": 2, "failure": {"INVALID_ARGUMENT": 1}, "rows": 5, "batches": 2, "queue_ns": 10, "compute_ns": 20, "queue_rows": 4,
         "total": HISTOGRAM, "queue": HISTOGRAM, "compute": HISTOGRAM}
UNUSED = {**STATS, "success": 0, "failure": {}}
INPUTS = [("x", "FP32", [-1, 8], ["n", ""]), ("t", "BYTES", [-1, 1], ["n", ""])]
OUTPUTS = [("y", "INT64", [-1], ["n"])]


def ready(number, *, name="m", batched=True, pinned=False, stats=STATS):
    served = SimpleNamespace(name=name, version=number, stats=lambda: stats)
    return VersionStatus(number, "READY", "", batched, "proved" if batched else "not proved", 64 if batched else 0, served,
                         SimpleNamespace(inputs=INPUTS, outputs=OUTPUTS), pinned=pinned)


def model(name, *versions, reason=""):
    return ModelStatus(name, versions={version.number: version for version in versions}, reason=reason)


MODELS = {
    "m": model("m", ready("1", pinned=True), ready("2"), VersionStatus("3", "FAILED", "truncated")),
    "alone": model("alone", ready("1", name="alone", batched=False, stats=UNUSED)),
    "wrong": model("wrong", reason="model.yaml:1: unknown key"),
}
