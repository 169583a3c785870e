"""One server from start to end: the data plane first, then the models, then what Python answers; and the drain."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchmill.config import MIB, ServerConfig
from batchmill.core import ort
from batchmill.core.reactor import Server
from batchmill.errors import StartError
from batchmill.logs import Log
from batchmill.registry import layout
from batchmill.registry.loader import load_model
from batchmill.registry.status import ModelStatus

if TYPE_CHECKING:
    from batchmill.endpoints.dispatch import Dispatcher
    from batchmill.endpoints.grpc_services import Services

log = Log(__name__)
NICE = 7  # of Python's threads: the data plane goes first, and Python still gets a fifth of a busy core


class App:
    """Owns the data plane and the models. run() returns the exit code."""

    def __init__(self, registry: Path, config: ServerConfig) -> None:
        self._registry = registry
        self._config = config
        self._models: dict[str, ModelStatus] = {}
        self._server = make_server(config)
        self._services: Services | None = None
        self._dispatcher: Dispatcher | None = None

    def run(self) -> int:
        folders = layout.scan(self._registry)
        addresses = self._listen()
        self._server.install_signals()
        self._server.start()
        # Threads inherit the niceness of their maker and cannot take it back: the data plane's are made by now.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            try:
                version = ort.initialise()
            except RuntimeError as error:
                raise StartError(f"ONNX Runtime: {error}") from None
            self._load(folders)
            log.info("server_ready", addresses=" ".join(addresses), models=len(self._models), onnxruntime=version)
            return self._serve()
        finally:
            self._server.stop()

    def _listen(self) -> list[str]:
        config, addresses = self._config, []
        try:
            for port in {config.port: 0, config.grpc_port: 0, config.metrics_port: 0}:
                if port:
                    addresses.append(f"http://{config.host}:{self._server.listen(config.host, port)}")
            if config.uds:
                self._server.listen_unix(str(config.uds))
                addresses.append(f"unix:{config.uds}")
        except OSError as error:
            raise StartError(f"cannot listen on {error.strerror or error}") from None
        return addresses

    def _load(self, folders: list[layout.ModelFolder]) -> None:
        """The first pass over the registry; each model serves as soon as it is loaded."""
        executors = self._config.executor_count()
        for folder in folders:
            if self._server.signal_count():
                return
            self._models[folder.name] = load_model(folder, executors)
            self._server.publish([model.route() for model in self._models.values()])
        if not folders:
            log.warning("registry_empty", path=str(self._registry))
        broken = [m.name for m in self._models.values() if m.reason or len(m.ready()) < len(m.versions)]
        self._server.set_ready(not (broken and self._config.strict_readiness))

    def _serve(self) -> int:
        import uvloop

        return uvloop.run(self._main())

    async def _main(self) -> int:
        loop = asyncio.get_running_loop()
        signalled = asyncio.Event()
        loop.add_reader(self._server.signal_fileno(), signalled.set)
        if self._server.signal_count():
            signalled.set()
        await asyncio.sleep(0)
        self._start_endpoints()
        assert self._services
        await self._services.set_serving(True, [name for name, model in self._models.items() if model.ready()])
        await signalled.wait()
        loop.remove_reader(self._server.signal_fileno())
        return await self._drain(time.monotonic())

    def _start_endpoints(self) -> None:
        # Imported only now: together they take longer than everything that is needed to answer an inference.
        from batchmill.endpoints.catalog import Catalog
        from batchmill.endpoints.dispatch import Dispatcher
        from batchmill.endpoints.grpc_server import GrpcServer
        from batchmill.endpoints.grpc_services import Services
        from batchmill.endpoints.rest import application
        from batchmill.observe.metrics import Metrics

        catalog = Catalog(lambda: self._models)
        server = GrpcServer()
        self._services = Services(server, catalog)
        self._dispatcher = Dispatcher(self._server.bridge, application(catalog, Metrics(self._server, catalog.served)), server)
        self._dispatcher.start()

    async def _drain(self, since: float) -> int:
        """Not ready (the data plane said so at the signal), serve on, GOAWAY, answer what was accepted, end."""
        assert self._services
        assert self._dispatcher
        config, seen = self._config, self._server.signal_count()
        lame_duck = 0.0 if sys.stdin is not None and sys.stdin.isatty() else config.lame_duck_secs
        log.info("server_draining", lame_duck_secs=lame_duck)
        await self._services.set_serving(False, self._models)
        end = since + lame_duck
        while time.monotonic() < end and self._server.signal_count() == seen:
            await asyncio.sleep(min(0.05, end - time.monotonic()))
        self._server.drain()
        self._dispatcher.stop()
        end = time.monotonic() + config.exit_timeout_secs
        await asyncio.sleep(0.05)
        while not self._server.idle() and time.monotonic() < end and self._server.signal_count() == seen:
            await asyncio.sleep(0.01)
        self._server.drain(final=True)
        await asyncio.sleep(0.1)  # the last bytes leave
        log.info("server_stopped", unanswered=self._server.stats()["in_flight"])
        return 0


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
