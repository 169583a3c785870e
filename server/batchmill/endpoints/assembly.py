"""All that Python answers, put together: this module's imports take longer than everything that is needed to answer an inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from batchmill.config import MIB, ServerConfig
from batchmill.core.reactor import Server
from batchmill.endpoints.audited import Trail
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.dispatch import Dispatcher
from batchmill.endpoints.feedback import Assessor
from batchmill.endpoints.grpc_admin import AdminServicer
from batchmill.endpoints.grpc_server import GrpcServer
from batchmill.endpoints.grpc_services import Services
from batchmill.endpoints.live_traffic import routed
from batchmill.endpoints.repository import Guard, Repository
from batchmill.endpoints.rest import application
from batchmill.endpoints.rollouts import Rollouts
from batchmill.endpoints.routes import Switchboard
from batchmill.endpoints.shadows import Shadows
from batchmill.endpoints.uploads import Uploads
from batchmill.observe.changes import Changes
from batchmill.observe.metrics import FeedbackCollector, Metrics
from batchmill.observe.windows import Windows
from batchmill.recorder import Recorder
from batchmill.registry.keeper import Keeper
from batchmill.registry.status import ModelStatus, served
from batchmill.rollout.book import Book
from batchmill.rollout.conductor import Conductor
from batchmill.rollout.quality import Quality
from batchmill.store import Store


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What of them is told, looked at or ended by others."""

    repository: Repository
    services: Services
    dispatcher: Dispatcher
    windows: Windows
    conductor: Conductor


def assemble(
    registry: Path, config: ServerConfig, guard: Guard, data_plane: Server, keeper: Keeper, changes: Changes, recorder: Recorder, *,
    store: Store, book: Book, quality: Quality, models: Callable[[], Mapping[str, ModelStatus]], is_complete: Callable[[], bool],
) -> Endpoints:  # fmt: skip
    """models: as they were published last. is_complete: whether all have been tried. Its dispatcher is to be started."""
    windows = Windows()
    catalog = Catalog(models, windows, config.server_name, is_complete)
    server = GrpcServer(config.max_body_mib * MIB)
    uploads = Uploads(registry, keeper, models)
    repository = Repository(keeper.load, keeper.unload, keeper.tune, guard, uploads, offered=config.model_control != "none", recorder=recorder)
    metrics = Metrics(data_plane, lambda: served(models()), changes, recorder.audit, triton=config.triton_metrics)
    metrics.register(FeedbackCollector(quality.by_version, quality.rejections))
    conductor = Conductor(store, book, keeper.change, recorder.rollout, quality=quality.quality_of)
    switchboard = Switchboard(catalog, repository, book, keeper.change)
    assessor = Assessor(catalog, quality)
    shadowing, stepping = Shadows(catalog, repository, book, switchboard), Rollouts(catalog, repository, conductor)
    cold = application(catalog, metrics, repository, routed(switchboard, shadowing, stepping, assessor))
    dispatcher = Dispatcher(data_plane.bridge, cold, server, config.max_body_mib * MIB)
    admin = AdminServicer(assessor, switchboard, stepping, shadowing, Trail(lambda: repository.recorder.audit))
    services = Services(server, catalog, repository, admin)
    return Endpoints(repository, services, dispatcher, windows, conductor)
