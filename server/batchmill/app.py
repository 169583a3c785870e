"""One server from start to end: the data plane first, then the models, then what Python answers; and the drain."""

from __future__ import annotations

import errno
import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchmill import reload
from batchmill.config import MIB, ServerConfig
from batchmill.core import ort
from batchmill.core.reactor import Server
from batchmill.drain import drain
from batchmill.errors import StartError
from batchmill.logs import Log
from batchmill.observe.access_log import AccessLog
from batchmill.observe.breakers import Breakers
from batchmill.observe.changes import Changes
from batchmill.observe.runtime_log import RuntimeLog
from batchmill.periodic import every
from batchmill.recording import Recording
from batchmill.registry import layout
from batchmill.registry.journal import Journal
from batchmill.registry.keeper import Keeper
from batchmill.registry.learned import Learned
from batchmill.registry.loader import adjust_version
from batchmill.registry.publication import PUBLISH_SECS
from batchmill.registry.reaper import Reaper
from batchmill.registry.safety import SafeLoader
from batchmill.registry.settings import ModelSettings
from batchmill.registry.status import ModelStatus, VersionStatus, served
from batchmill.registry.sweep import Sweep
from batchmill.rollout.book import Book
from batchmill.rollout.quality import Quality
from batchmill.rollout.table import entry_of
from batchmill.state import State
from batchmill.store import Store

if TYPE_CHECKING:
    from batchmill.endpoints.assembly import Endpoints
    from batchmill.endpoints.grpc_services import Services
    from batchmill.endpoints.repository import Guard, Repository

log = Log(__name__)
FIRST_MODEL_SECS = 0.5  # what the endpoints' imports wait for the first model, which they would slow down
BUSY_SECS = 1.0  # after the last answer
KEEP_SECS = 60.0  # between two looks for run times that have changed
QUALITY_SECS = 5.0  # between two times that what was told of answers is written
HEALTH_SECS = 0.25  # between two looks for what watchers of health must be told
NICE = 13  # of Python's threads: the data plane goes first, and Python still gets a twentieth of a busy core (at 19: a seventieth)


class App:
    """Owns the data plane and the models. run() returns the exit code."""

    def __init__(self, registry: Path, config: ServerConfig, reread: Callable[[], ServerConfig] | None = None) -> None:
        """reread: finds the settings anew at SIGHUP; None: they stay."""
        self._registry = registry
        self._config = config
        self._reread = reread
        self._key: bytes | None = None  # of those who may change something, hashed
        self._repository: Repository | None = None  # once the endpoints are there
        self._models: Mapping[str, ModelStatus] = {}  # replaced as a whole by the thread that publishes
        self._complete = False  # whether all models have been tried
        self._all_loaded = False
        self._server = make_server(config)
        self._changes = Changes()
        self._store = Store()
        self._book = Book(self._store)
        self._quality = Quality(self._store, config.feedback_max_age_secs)
        self._recording = Recording(self._store, registry)
        self._learned = Learned(self._store, config.wide_thread_count())
        self._sweep = Sweep(config.executor_count(), config.wide_thread_count(), self._learned, self._is_busy)
        self._reaper = Reaper(self._server.release, self._changes.retired)
        self._loader: SafeLoader | None = None  # from run() on
        self._keeper = Keeper(
            registry, self._load, self._publish, self._retire, adjust=self._adjust,
            poll_secs=config.poll_secs, watched=config.model_control == "auto",
            only=config.load_model if config.model_control == "explicit" else None, store=self._store,
            naming=self._book.naming,
        )  # fmt: skip

    def run(self) -> int:
        self._key = self._config.admin_key()
        self._warn()
        layout.scan(self._registry)  # a registry that is not there ends the start
        addresses = self._listen()
        state = State(self._config.state_dir, self._registry)
        if self._config.allow_upload:
            from batchmill.registry import upload  # which most servers do without

            upload.clear_up(self._registry)
        self._loader = SafeLoader(self._config.executor_count(), self._config.probe_timeout_secs, Journal(state.folder), self._sweep)
        self._server.install_signals()
        reload.on_hangup(lambda: self._keeper.reload(self._reload, models=self._config.model_control != "none"))
        if self._config.access_log:
            self._server.open_access_log(self._config.access_log)
        self._server.start()
        try:
            try:
                version = ort.initialise(wide_threads=self._config.wide_thread_count())
            except RuntimeError as error:
                raise StartError(f"ONNX Runtime: {error}") from None
            # Threads inherit the niceness of their maker and cannot take it back: the data plane's and the wide pool's are made by now.
            if os.getpriority(os.PRIO_PROCESS, 0) < NICE:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
            self._store.open(state.folder)
            log.info("server_started", addresses=" ".join(addresses), onnxruntime=version)
            self._reaper.start()
            self._keeper.start()
            self._keeper.published.wait(FIRST_MODEL_SECS)
            self._serve_and_log()
            self._loader.close()
            self._keep_learned()
            self._quality.keep()
            self._recording.recorder().stopped()
            self._store.close()
            threads = [thread for thread in threading.enumerate() if not thread.daemon]
            if self._keeper.stop() or len(threads) > 1 or not self._server.idle():
                # Inside of a run, a load or a plain handler, which nothing can break off: the end does not wait for them.
                logging.shutdown()
                os._exit(0)
            gc.freeze()  # else the end of the interpreter looks through all there is, several times: 0.25 s
            return 0
        finally:
            self._store.close()
            self._server.stop()

    def _warn(self) -> None:
        if self._config.admin_open:
            what = "load, unload, tune and upload" if self._config.allow_upload else "load, unload and tune"
            log.warning("admin_open", note=f"everybody who can reach the server may {what} models")

    def _reload(self) -> None:
        """The keeper's thread, before it looks at the models."""
        found = reload.reread(self._config, self._reread or (lambda: self._config))
        if found:
            before, (self._config, self._key) = self._config, found
            self._recording.recorder().reloaded(admin_of(before), admin_of(self._config))
            self._warn()
            self._let_in()

    def _let_in(self) -> None:
        """Gives the endpoints what of the settings may change."""
        if self._repository:
            self._repository.guard = self._guard()
            self._repository.allow_upload = self._config.allow_upload

    def _guard(self) -> Guard:
        from batchmill.endpoints.repository import Guard

        return Guard(self._key, self._config.admin_open)

    def _listen(self) -> list[str]:
        config, addresses = self._config, []
        metrics_only = {config.port: False, config.grpc_port: False}
        metrics_only.setdefault(config.metrics_port, True)  # a port that is also one of the others serves everything
        try:
            for port in metrics_only:
                if port:
                    addresses.append(f"http://{config.host}:{self._server.listen(config.host, port, metrics_only=metrics_only[port])}")
            if config.uds:
                self._server.listen_unix(str(config.uds))
                addresses.append(f"unix:{config.uds}")
        except OSError as error:
            others = " (--port and --grpc-port name others)" if error.errno == errno.EADDRINUSE else ""
            raise StartError(f"cannot listen on {error.strerror or error}{others}") from None
        return addresses

    def _adjust(self, version: VersionStatus, settings: ModelSettings) -> None:
        if settings.tuning.feedback:
            self._quality.need_key()
        adjust_version(version, settings, self._config.executor_count())
        if version.served:
            self._server.look_again(version.served)

    def _load(self, name: str, number: int, path: Path, settings: ModelSettings) -> VersionStatus:
        assert self._loader
        if settings.tuning.feedback:
            self._quality.need_key()
        started = time.monotonic()
        status = self._loader.load(name, number, path, settings)
        self._learned.recall(name, status)
        self._changes.loaded(name, status.reason, time.monotonic() - started)
        return status

    def _retire(self, version: VersionStatus) -> None:
        if version.served is not None:
            self._learned.keep(version.served.name, version)
        self._reaper.retire(version)

    def _keep_learned(self) -> None:
        for name, model in self._models.items():
            for version in model.ready():
                self._learned.keep(name, version)

    def _keep_at_times(self) -> None:
        self._keep_learned()
        self._recording.recorder().audit.retry()

    def _is_busy(self) -> bool:
        """Whether requests are served, or were a moment ago."""
        since_ns = time.monotonic_ns() - BUSY_SECS * 1e9
        return self._server.stats()["in_flight"] > 0 or any(version.answered_ns > since_ns for version in served(self._models))

    def _publish(self, models: Mapping[str, ModelStatus], complete: bool) -> None:
        """The keeper's thread: swaps the route table, then what the endpoints tell."""
        started = time.monotonic()
        self._server.publish([entry_of(model) for model in models.values()], complete)
        self._models, self._complete = models, complete
        standard = {name: version.served if (version := model.pick()) else None for name, model in models.items()}
        states = {(name, number): version.told_state().lower() for name, model in models.items() for number, version in model.versions.items()}
        self._changes.published(standard, states, time.monotonic() - started)
        if complete and self._loader:
            self._loader.start_probing()
        if complete and not self._server.signal_count():
            wanted = [model for model in models.values() if not model.held]
            broken = [model.name for model in wanted if model.reason or any(version.reason for version in model.versions.values())]
            ready = not (broken and self._config.strict_readiness)
            self._server.set_ready(ready)
            if not self._all_loaded:
                log.info("server_ready" if ready else "server_not_ready", models=len(models), broken=len(broken))
            self._all_loaded = True
        self._recording.published(models, complete)

    def _serve_and_log(self) -> None:
        if not self._config.access_log:
            self._serve()
            return
        access_log = AccessLog(self._server.access_log)
        access_log.start()
        try:
            self._serve()
        finally:
            access_log.stop()

    def _serve(self) -> None:
        # asyncio and what builds on it take a tenth of the time to the first answer, and are imported after it.
        import uvloop

        # Not uvloop.run: its Runner puts a SIGINT handler of its own in the place of the data plane's.
        loop = uvloop.new_event_loop()
        try:
            loop.run_until_complete(self._main())
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _main(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        signalled = asyncio.Event()
        loop.add_reader(self._server.signal_fileno(), signalled.set)
        with self._sweep.quiet.loading():
            made = self._start_endpoints()
        tasks = [loop.create_task(work) for work in (
            self._tell_health(made.services), made.windows.follow(lambda: served(self._models)), Breakers().follow(lambda: served(self._models)),
            made.conductor.follow(lambda: self._models if self._complete else {}), RuntimeLog(ort.take_messages).follow(),
            every(KEEP_SECS, self._keep_at_times, "keeping", at_once=False),
            every(QUALITY_SECS, lambda: asyncio.to_thread(self._quality.keep), "quality", at_once=False),
        )]  # fmt: skip
        await signalled.wait()
        loop.remove_reader(self._server.signal_fileno())
        for task in tasks:
            task.cancel()
        made.services.set_whole(False)
        made.services.set_models(False, self._models)
        await drain(self._server, made.dispatcher, self._config)

    def _start_endpoints(self) -> Endpoints:
        from batchmill.endpoints.assembly import assemble  # only now: it takes longer than everything that is needed to answer an inference

        made = assemble(
            self._registry, self._config, self._guard(), self._server, self._keeper, self._changes, self._recording.recorder(),
            store=self._store, book=self._book, quality=self._quality, models=lambda: self._models, is_complete=lambda: self._complete,
        )  # fmt: skip
        self._repository = made.repository
        self._let_in()  # by settings that may have changed meanwhile
        made.dispatcher.start()
        return made

    async def _tell_health(self, services: Services) -> None:
        """Health's watchers learn of models as they come and go, and of the whole when the first pass has ended."""
        import asyncio

        told: dict[str, bool] = {}
        seen: Mapping[str, ModelStatus] | None = None
        while True:
            if self._models is not seen:
                seen = self._models
                serving = {name: model.pick() is not None for name, model in seen.items()}
                services.set_models(True, [name for name, ready in serving.items() if ready and not told.get(name)])
                services.set_models(False, [name for name, ready in told.items() if ready and not serving.get(name)])
                told = serving
            services.set_whole(self._server.ready())
            await asyncio.sleep(PUBLISH_SECS if not self._all_loaded else HEALTH_SECS)


def admin_of(config: ServerConfig) -> dict[str, object]:
    """Who may change something, as the audit trail tells it."""
    return {"admin_key_file": str(config.admin_key_file or ""), "admin_open": config.admin_open, "allow_upload": config.allow_upload}


def make_server(config: ServerConfig) -> Server:
    settings: dict[str, Any] = {
        "io_threads": config.io_thread_count(),
        "executor_threads": config.executor_count(),
        "max_body_bytes": config.max_body_mib * MIB,
        "max_response_bytes": config.max_response_mib * MIB,
        "max_pending_bytes": config.pending_bytes(),
        "max_connections": config.max_connections,
        "max_streams": config.max_streams,
        "max_header_bytes": config.max_header_kib << 10,
        "header_timeout_ms": config.header_timeout_ms,
        "idle_timeout_ms": config.idle_timeout_secs * 1000,
        "min_body_rate": config.min_body_rate,
        "max_resets": config.max_resets,
        "max_resets_per_s": config.max_resets_per_s,
        "busy_status": config.busy_status,
        "cold_calls": config.cold_calls,
        "cold_bytes": config.cold_mib * MIB,
    }
    return Server(**settings)
