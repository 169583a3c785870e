"""Statuses of models that were never loaded."""

from types import SimpleNamespace

from batchmill.registry.status import ModelStatus, VersionStatus

HISTOGRAM = {"count": 3, "sum_ns": 120_000}
NONE = {"count": 0, "sum_ns": 0}
STAGES = dict.fromkeys(("decode", "queue", "assembly", "compute", "encode", "total_grpc"), HISTOGRAM) | {"total_rest": NONE}
STATS = {"success": 2, "failure": {"INVALID_ARGUMENT": 1}, "reasons": {"RUN_FAILED": 1}, "rows": 5, "batches": 2, "batch_failures": 1,
         "bytes_in": 100, "bytes_out": 50, "failed_ns": 7, "last_ns": 1, "queue_ns": 90_000, "assembly_ns": 10, "compute_ns": 20, "encode_ns": 30,
         "closed": {"full": (1, 3, 500), "idle": (1, 2, 40), "drain": (0, 0, 0)}, "batch_sizes": {2: (1, 3, 6, 9), 3: (1, 4, 8, 12)}, "stages": STAGES}
UNUSED = {**STATS, "success": 0, "failure": {}}
INPUTS = [("x", "FP32", [-1, 8], ["n", ""]), ("t", "BYTES", [-1, 1], ["n", ""])]
OUTPUTS = [("y", "INT64", [-1], ["n"])]


def served_version(name, number, stats=STATS):
    return SimpleNamespace(name=name, version=number, stats=lambda: stats, queue_rows=4, oldest_wait_ns=2_000_000, leases=6)


def ready(number, *, name="m", batched=True, pinned=False, stats=STATS):
    served = served_version(name, number, stats)
    return VersionStatus(number, "READY", "", batched, "proved" if batched else "not proved", 64 if batched else 0, served,
                         SimpleNamespace(inputs=INPUTS, outputs=OUTPUTS, memory_bytes=1 << 20), pinned=pinned)


def model(name, *versions, reason=""):
    return ModelStatus(name, versions={version.number: version for version in versions}, reason=reason)


MODELS = {
    "m": model("m", ready("1", pinned=True), ready("2"), VersionStatus("3", "FAILED", "truncated")),
    "alone": model("alone", ready("1", name="alone", batched=False, stats=UNUSED)),
    "wrong": model("wrong", reason="model.yaml:1: unknown key"),
}
