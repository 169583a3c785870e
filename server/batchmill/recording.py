"""The recorder, made when it is first asked for: its imports, and a disk, would keep the first model waiting."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import batchmill
from batchmill.registry.status import ModelStatus
from batchmill.store import Store

if TYPE_CHECKING:
    from batchmill.recorder import Recorder


class Recording:
    """For any thread. The recorder's first entry is of the time this was made."""

    def __init__(self, store: Store, registry: Path) -> None:
        self._store, self._registry = store, registry
        self._started_at = time.time()
        self._lock = threading.Lock()  # guards what follows, and the order in which it is told
        self._recorder: Recorder | None = None
        self._published: tuple[Mapping[str, ModelStatus], bool] = ({}, False)

    def published(self, models: Mapping[str, ModelStatus], complete: bool) -> None:
        """Tells the recorder, or keeps it for one that is made later."""
        with self._lock:
            self._published = models, complete
            if self._recorder:
                self._recorder.published(models, complete)

    def recorder(self) -> Recorder:
        with self._lock:
            if self._recorder is None:
                from batchmill.audit import Audit
                from batchmill.recorder import Recorder

                self._recorder = Recorder(Audit(self._store))
                about = {"release": batchmill.__version__, "registry": str(self._registry.absolute()), "process": os.getpid()}
                self._recorder.started(self._started_at, about)
                self._recorder.published(*self._published)
            return self._recorder
