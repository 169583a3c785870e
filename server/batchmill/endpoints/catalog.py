"""What the endpoints tell of the models: one place for REST and gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import batchmill
from batchmill.backends import Tuning
from batchmill.core.router import Version
from batchmill.errors import InvalidRequest, NotFound, NotReady
from batchmill.observe.windows import WINDOWS, Windows
from batchmill.registry.status import ModelStatus, VersionStatus

EXTENSIONS = ("binary_tensor_data", "parameters", "statistics", "model_configuration", "model_repository")
STARTING = "the server is still loading its models"
_CONFIG_TYPES = {"BYTES": "TYPE_STRING"}


class Catalog:
    """Reads the models' statuses; the owner replaces them as a whole."""

    def __init__(self, models: Callable[[], Mapping[str, ModelStatus]], windows: Windows | None = None, name: str = "batchmill",
                 is_complete: Callable[[], bool] = lambda: True) -> None:
        """is_complete: False while models are loaded for the first time, when what is not there may yet come."""
        self._models = models
        self._name = name
        self._is_complete = is_complete
        self._windows = windows or Windows()

    def statuses(self) -> Mapping[str, ModelStatus]:
        return self._models()

    def server(self) -> dict[str, Any]:
        return {"name": self._name, "version": batchmill.__version__, "extensions": list(EXTENSIONS)}

    def names(self) -> list[str]:
        return sorted(self._models())

    def model(self, name: str) -> ModelStatus:
        """Raises NotFound and NotReady."""
        is_complete = self._is_complete()  # before the models: all of them are there once it is True
        model = self._models().get(name)
        if model is None:
            raise NotFound(f"Request for unknown model {name[:200]!r}") if is_complete else NotReady(STARTING)
        return model

    def find(self, name: str, number: str = "") -> tuple[ModelStatus, VersionStatus]:
        """The model and the version meant. Raises NotFound and NotReady, as an inference is refused."""
        is_complete = self._is_complete()
        model = self.model(name)
        version = model.pick(number)
        if version is not None:
            return model, version
        if not is_complete:
            raise NotReady(STARTING)
        if number:
            raise NotFound(f"model {name!r} has no version {number[:200]!r} that is ready")
        raise NotReady(f"no version of model {name!r} is ready")

    def metadata(self, name: str, number: str = "") -> dict[str, Any]:
        model, version = self.find(name, number)
        return {
            "name": name,
            "versions": [one.number for one in model.ready()],
            "platform": model.platform,
            "inputs": [{"name": n, "datatype": d, "shape": list(s)} for n, d, s, _ in version.inputs],
            "outputs": [{"name": n, "datatype": d, "shape": list(s)} for n, d, s, _ in version.outputs],
            "properties": {"batching": version.batching},
        }

    def config(self, name: str, number: str = "") -> dict[str, Any]:
        """In the words of Triton's model_config: dims leave the batch axis out when the version is batched."""
        model, version = self.find(name, number)
        skip = 1 if version.batched else 0
        return {
            "name": name,
            "platform": model.platform,
            "backend": "onnxruntime",
            "max_batch_size": version.max_batch_size,
            "input": [{"name": n, "data_type": config_type(d), "dims": list(s[skip:])} for n, d, s, _ in version.inputs],
            "output": [{"name": n, "data_type": config_type(d), "dims": list(s[skip:])} for n, d, s, _ in version.outputs],
            **({"dynamic_batching": dynamic_batching(model.settings.tuning)} if version.batched else {}),
        }

    def statistics(self, name: str = "", number: str = "") -> list[dict[str, Any]]:
        if name:
            model, _ = self.find(name, number)
            versions = [v for v in model.ready() if not number or v.number == number]
            return [statistics_of(name, version) for version in versions]
        return [statistics_of(model.name, version) for model in self._models().values() for version in model.ready()]

    def latency(self, name: str, number: str = "") -> dict[str, Any]:
        """What the last seconds and minutes were like, of all versions that are ready or of one, and what runs are expected to take."""
        model, _ = self.find(name, number)
        now = time.monotonic()
        told = [{"version": version.number, "windows": self._windows.read(version.served, now), "predicted": predicted(version.served)}
                for version in model.ready() if version.served and number in ("", version.number)]  # fmt: skip
        return {"model_name": name, "versions": told}

    def activity(self, window: str) -> dict[str, Any]:
        """What was asked of the versions in that window; those that were not are left out."""
        if window not in WINDOWS:
            raise InvalidRequest(f"window: {window[:40]!r} given, one of {', '.join(WINDOWS)} wanted")
        now = time.monotonic()
        rows = []
        for model in self._models().values():
            for version in model.ready():
                if version.served and version.served.answered:
                    told = self._windows.read(version.served, now, (window,))[window]
                    if told["ok"] or told["failed"] or version.served.queue_rows:
                        rows.append({"model": model.name, "version": version.number, "waiting": version.served.queue_rows, **told})
        return {"window": window, "versions": rows}

    def models(self) -> list[dict[str, Any]]:
        """Every version of every model, or why a model has none. Reads files, so it is not for the event loop."""
        rows: list[dict[str, Any]] = []
        for model in self._models().values():
            standard = model.pick()
            rows += [version_row(model, version, version is standard) for version in model.versions.values()]
            if not model.versions:
                rows.append({"model": model.name, "version": "", "state": "none", "reason": model.reason})
        return rows

    def index(self, ready_only: bool = False) -> list[dict[str, str]]:
        rows = []
        for name in self.names():
            model = self._models()[name]
            versions = [v for v in model.versions.values() if not ready_only or v.state == "READY"]
            for version in versions:
                state = "UNAVAILABLE" if version.state == "FAILED" else version.state
                rows.append({"name": name, "version": version.number, "state": state, "reason": reason_of(model, version)})
            if not model.versions and not ready_only:
                rows.append({"name": name, "version": "", "state": "UNAVAILABLE", "reason": model.reason})
        return rows


def reason_of(model: ModelStatus, version: VersionStatus) -> str:
    """What is wrong with the version, and what is with its model."""
    return "; ".join(dict.fromkeys(filter(None, (version.reason or version.hold, model.reason))))


def version_row(model: ModelStatus, version: VersionStatus, default: bool) -> dict[str, Any]:
    return {
        "model": model.name,
        "version": version.number,
        "state": version.told_state().lower(),
        "reason": reason_of(model, version),
        "default": default,
        "labels": sorted(label for label, number in model.leads().items() if number == version.number),
        "max_batch_size": version.max_batch_size,
        "batching": version.batching,
        "instances": version.instances,
        "breaker": version.served.breaker if version.served else "",
        "threads": version.threads.count,
        "runs": version.runs,
        "load_ms": version.load_ms,
        "memory_bytes": version.memory_bytes,
        "file_bytes": version.file_bytes,
        "sha256": version.file_hash(),
        "lineage": model.settings.lineage,
    }


def predicted(version: Version) -> list[dict[str, Any]]:
    """By the least elements of a row, 0 where all rows are equally wide: run times by rows, in µs."""
    return [{"row_elements": width if width < 4 else 4 + width % 4 << width // 4 - 2,
             "run_us": {str(1 << at): round(ns / 1000, 2) for at, ns in enumerate(knots) if ns}}
            for width, knots, _ in version.learned()]  # fmt: skip


def config_type(datatype: str) -> str:
    return _CONFIG_TYPES.get(datatype, f"TYPE_{datatype}")


def dynamic_batching(tuning: Tuning) -> dict[str, Any]:
    """In the words of Triton's model_config."""
    return {
        "max_queue_delay_microseconds": tuning.max_queue_delay_us,
        **({"preferred_batch_size": list(tuning.preferred_batch_sizes)} if tuning.preferred_batch_sizes else {}),
    }


def statistics_of(name: str, version: VersionStatus) -> dict[str, Any]:
    """The v2 statistics extension with Triton's meaning; durations in ns. Those of inference_stats but fail are summed over the
    requests answered well, each of which counts its batch's whole time, those of batch_stats over batches. compute_input
    gathers rows, compute_output writes answers.
    """
    assert version.served
    stats = version.served.stats()
    success, stages = stats["success"], stats["stages"]

    def duration(count: int, ns: int) -> dict[str, int]:
        return {"count": count, "ns": ns}

    return {
        "name": name,
        "version": version.number,
        "last_inference": int((time.time_ns() - time.monotonic_ns() + stats["last_ns"]) // 1_000_000) if stats["last_ns"] else 0,
        "inference_count": stats["rows"],
        "execution_count": stats["batches"],
        "inference_stats": {
            "success": duration(success, stages["total_grpc"]["sum_ns"] + stages["total_rest"]["sum_ns"]),
            "fail": duration(sum(stats["failure"].values()), stats["failed_ns"]),
            "queue": duration(success, stats["queue_ns"]),
            "compute_input": duration(success, stats["assembly_ns"]),
            "compute_infer": duration(success, stats["compute_ns"]),
            "compute_output": duration(success, stats["encode_ns"]),
            "cache_hit": duration(0, 0),
            "cache_miss": duration(0, 0),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": duration(batches, assembly_ns),
                "compute_infer": duration(batches, compute_ns),
                "compute_output": duration(batches, encode_ns),
            }
            for rows, (batches, assembly_ns, compute_ns, encode_ns) in stats["batch_sizes"].items()
        ],
        "batch_closes": {
            reason: {"count": batches, "rows": rows, "wait_ns": wait_ns} for reason, (batches, rows, wait_ns) in stats["closed"].items() if batches
        },
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": version.memory_bytes}],
    }
