"""The cold methods of the v2 gRPC service, health Watch, and reflection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.grpc_admin import SERVICE as ADMIN
from batchmill.endpoints.grpc_admin import AdminServicer, headers_of
from batchmill.endpoints.grpc_context import Context
from batchmill.endpoints.grpc_server import GrpcServer
from batchmill.endpoints.health import HealthServicer
from batchmill.endpoints.repository import Repository
from batchmill.errors import Unsupported
from batchmill.proto import admin_pb2_grpc, inference_pb2_grpc
from batchmill.proto import inference_pb2 as pb

SERVICE = "inference.GRPCInferenceService"


def filled(message: Any, content: dict[str, Any]) -> Any:
    """Our own dictionary as a message; never a caller's JSON. What the protocol has no field for is told over REST alone."""
    return json_format.ParseDict(content, message, ignore_unknown_fields=True)


class InferenceServicer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Inference itself, liveness and readiness are answered by the data plane. What is not here is UNIMPLEMENTED."""

    def __init__(self, catalog: Catalog, repository: Repository) -> None:
        self._catalog = catalog
        self._repository = repository

    async def ServerMetadata(self, request: Any, context: Context) -> Any:
        return pb.ServerMetadataResponse(**self._catalog.server())

    async def ModelMetadata(self, request: Any, context: Context) -> Any:
        return pb.ModelMetadataResponse(**self._catalog.metadata(request.name, request.version))

    async def ModelConfig(self, request: Any, context: Context) -> Any:
        return filled(pb.ModelConfigResponse(), {"config": self._catalog.config(request.name, request.version)})

    async def ModelStatistics(self, request: Any, context: Context) -> Any:
        return filled(pb.ModelStatisticsResponse(), {"model_stats": self._catalog.statistics(request.name, request.version)})

    async def RepositoryIndex(self, request: Any, context: Context) -> Any:
        return filled(pb.RepositoryIndexResponse(), {"models": self._catalog.index(request.ready)})

    async def RepositoryModelLoad(self, request: Any, context: Context) -> Any:
        await self._repository.load(request.model_name, parameters_of(request), context.peer(), headers_of(context))
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Context) -> Any:
        await self._repository.unload(request.model_name, context.peer(), headers_of(context))
        return pb.RepositoryModelUnloadResponse()

    async def _not_offered(self, request: Any, context: Context) -> Any:
        raise Unsupported("this extension is not offered")

    SystemSharedMemoryStatus = SystemSharedMemoryRegister = SystemSharedMemoryUnregister = _not_offered
    CudaSharedMemoryStatus = CudaSharedMemoryRegister = CudaSharedMemoryUnregister = _not_offered
    TraceSetting = LogSettings = _not_offered


def parameters_of(request: Any) -> dict[str, object]:
    return {name: getattr(value, value.WhichOneof("parameter_choice") or "string_param") for name, value in request.parameters.items()}


class Services:
    """Registers everything with a server, and keeps health in step with readiness."""

    def __init__(self, server: GrpcServer, catalog: Catalog, repository: Repository, admin: AdminServicer) -> None:
        self._health = HealthServicer()
        inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(InferenceServicer(catalog, repository), server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        admin_pb2_grpc.add_AdminServicer_to_server(admin, server)  # type: ignore[no-untyped-call]
        names = (SERVICE, ADMIN, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        # Registered itself: enable_server_reflection() would pick the synchronous servicer for a server like ours.
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), server)  # type: ignore[attr-defined]

    def set_whole(self, serving: bool) -> None:
        """What watchers of the server and of the inference service are told."""
        self.set_models(serving, ("", SERVICE))

    def set_models(self, serving: bool, names: Iterable[str]) -> None:
        self._health.set(serving, names)
