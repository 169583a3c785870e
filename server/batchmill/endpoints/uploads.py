"""A load call that brings files: into the registry, loaded, and out of it again when they cannot serve."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from batchmill.errors import BatchmillError, ModelError, UploadUnderWay
from batchmill.logs import Log
from batchmill.registry.status import ModelStatus
from batchmill.registry.upload import Staged, Upload, parsed

log = Log(__name__)


class Calls(Protocol):
    """What of the registry's keeper is called."""

    def load(self, name: str, publish: Callable[[], None] | None = None) -> Future[None]: ...
    def withdraw(self, name: str, undo: Callable[[], None]) -> Future[None]: ...
    def unload(self, name: str) -> Future[None]: ...


@dataclass(slots=True)
class Uploads:
    """On the event loop. One upload of a model at a time."""

    registry: Path
    calls: Calls
    models: Callable[[], Mapping[str, ModelStatus]]
    _under_way: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def load(self, name: str, parameters: Mapping[str, object]) -> None:
        """Returns when what was uploaded serves. BatchmillError: it does not, nothing of it is left, and what served before does."""
        if name in self._under_way:
            raise UploadUnderWay(f"another upload of model {name[:200]!r} is under way")
        task = asyncio.get_running_loop().create_task(self._load(name, parameters))
        self._under_way[name] = task
        task.add_done_callback(lambda _: self._under_way.pop(name))
        await asyncio.shield(task)  # it comes to its end, and clears up, also when the caller has gone

    async def _load(self, name: str, parameters: Mapping[str, object]) -> None:
        staged = None
        try:
            upload = await asyncio.to_thread(parsed, name, parameters)
            staged = Staged(self.registry, upload)
            await asyncio.to_thread(staged.write)
            await self._publish(upload, staged)
            log.info("model_uploaded", name=name, versions=[*map(str, sorted(upload.files))], settings=upload.settings is not None)
        except BatchmillError as error:
            log.warning("upload_refused", name=name[:200], reason=str(error))
            raise
        finally:
            if staged:
                await asyncio.to_thread(staged.close)

    async def _publish(self, upload: Upload, staged: Staged) -> None:
        before, failed = self.models().get(upload.model), None
        try:
            await asyncio.wrap_future(self.calls.load(upload.model, staged.publish))
        except BatchmillError as error:
            if not staged.is_published:
                raise
            failed = error
        if not (problem := problem_of(self.models().get(upload.model), upload, failed)):
            return
        with contextlib.suppress(BatchmillError):  # what was there may have been broken
            await asyncio.wrap_future(self.calls.withdraw(upload.model, staged.undo))
            if before and before.held:
                await asyncio.wrap_future(self.calls.unload(upload.model))
        raise ModelError(problem.replace(f"{self.registry}/", ""))


def problem_of(model: ModelStatus | None, upload: Upload, failed: BatchmillError | None) -> str:
    """Why the load was in vain; empty when it was not: that an older version is broken is no fault of these."""
    if model is None or not upload.files:
        return str(failed) if failed else ""
    problems = [model.reason] if model.reason else []
    found = {str(number): model.versions.get(str(number)) for number in sorted(upload.files)}
    if not any(found.values()):  # some of several may lie there for later, as they may in a folder
        problems.append(f"version {', '.join(found)} would not be served: the version policy wants others")
    return "; ".join([*problems, *(f"version {number}: {one.reason or one.state}" for number, one in found.items()
                                   if one and (one.reason or one.state != "READY"))])  # fmt: skip
