"""The first pass over a registry: models are loaded one after another, and each serves as soon as it is loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from batchmill.logs import Log
from batchmill.registry.layout import ModelFolder
from batchmill.registry.status import ModelStatus

log = Log(__name__)
PUBLISH_SECS = 0.05  # between two route tables: each is made whole, which for 1,000 models takes some ms
Models = dict[str, ModelStatus]


class FirstPass:
    """Two threads, so that neither a load nor a table waits for the other: one loads, one publishes what is loaded.

    publish gets all models so far and whether these are all there will be; it is called by one thread. stopped is asked
    before each model. Daemons, because a load that has begun cannot be broken off.
    """

    def __init__(
        self,
        folders: Sequence[ModelFolder],
        load: Callable[[ModelFolder], ModelStatus],
        publish: Callable[[Models, bool], None],
        stopped: Callable[[], bool],
    ) -> None:
        self._folders = folders
        self._load = load
        self._publish = publish
        self._stopped = stopped
        self._models: Models = {}
        self._changed = threading.Event()
        self._loaded = threading.Event()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._load_all, self._publish_all)]
        self.published = threading.Event()  # the first table is

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _load_all(self) -> None:
        for folder in self._folders:
            if self._stopped():
                break
            self._models[folder.name] = self._load_one(folder)
            self._changed.set()
        self._loaded.set()
        self._changed.set()

    def _load_one(self, folder: ModelFolder) -> ModelStatus:
        try:
            return self._load(folder)
        except Exception:  # ours, as what is wrong with a model is no exception by now; the other models are loaded all the same
            log.exception("model_failed", name=folder.name)
            return ModelStatus(folder.name, reason="internal error; the log has it")

    def _publish_all(self) -> None:
        ended = False
        while not ended:
            self._changed.wait()
            self._changed.clear()
            ended = self._loaded.is_set()
            self._publish(dict(self._models), ended)
            self.published.set()
            self._loaded.wait(PUBLISH_SECS)
