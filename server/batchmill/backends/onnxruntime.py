"""ONNX Runtime by its C library; its Python package is not imported."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import cast

from batchmill.backends import LoadedModel, Padding, Tuning
from batchmill.backends.onnx_file import external_locations, unloadable
from batchmill.core import ort
from batchmill.core.router import Version
from batchmill.errors import ModelError, UnsafeModel


def real(path: Path) -> Path:
    """Where links lead. Path.resolve() raises where they lead in a circle."""
    return Path(os.path.realpath(path))


class OnnxRuntime:
    """The only backend of this release."""

    name = "onnxruntime"
    platform = "onnxruntime_onnx"
    file_name = "model.onnx"

    def check(self, path: Path) -> None:
        """Refuses external data that lies outside the version's folder, and elements that no runtime loads."""
        if reason := unloadable(path):
            raise ModelError(reason)
        for location in external_locations(path):
            outside = location.startswith("/") or ".." in Path(location).parts
            if outside or not real(path.parent / location).is_relative_to(real(path.parent)):
                raise UnsafeModel(f'{path}: external data "{location}" lies outside the version\'s folder')
            if not (path.parent / location).is_file():
                raise ModelError(f'{path}: external data "{location}" is missing')
            if (path.parent / location).stat().st_nlink > 1:  # the runtime refuses it too, but does not see it in a copy
                raise UnsafeModel(f'{path}: external data "{location}" is a hard link: it may be any file of this machine')

    def load(self, path: Path, *, intra_op_threads: int, providers: Sequence[str]) -> LoadedModel:
        """A file with external data is loaded from a copy: the runtime keeps those files mapped, so that to overwrite one would
        change a loaded model's answers, and to cut one would end the process. The copy has no name any more once it is loaded.
        """
        locations = external_locations(path)
        if not locations:
            return ort.Model(str(path), intra_op_threads=intra_op_threads, providers=tuple(providers))
        with tempfile.TemporaryDirectory(prefix="batchmill-") as folder:
            for name in (path.name, *locations):
                copy = Path(folder, name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path.parent / name, copy)
            return ort.Model(str(Path(folder, path.name)), intra_op_threads=intra_op_threads, providers=tuple(providers))

    def serve(
        self, name: str, version: str, model: LoadedModel, tuning: Tuning, *, batched: bool, fast_ok: bool, padding: Padding | None = None
    ) -> Version:
        padded = (padding.inputs, padding.outputs, padding.edges) if padding else None
        served = Version(name, version, cast(ort.Model, model), batched=batched, fast_ok=fast_ok, padding=padded)
        self.tune(served, tuning)
        return served

    def tune(self, version: Version, tuning: Tuning) -> None:
        version.tune(**{field.name: getattr(tuning, field.name) for field in fields(tuning)})

    def close(self, raw_a: bytes, raw_b: bytes, datatype: str, rtol: float, atol: float) -> bool:
        return ort.close(raw_a, raw_b, datatype, rtol, atol)
