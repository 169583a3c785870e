"""Health's watchers: each is told the status and every change, whoever else watches."""

import asyncio

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from batchmill.core.bridge import CANCEL, MESSAGE
from batchmill.endpoints.dispatch import Dispatcher
from batchmill.endpoints.grpc_server import GrpcServer
from batchmill.endpoints.health import HealthServicer

from .fakes import Bridge, Call

UNKNOWN, SERVING, NOT_SERVING = 3, 1, 2


def told(call):
    return [health_pb2.HealthCheckResponse.FromString(part).status for part in call.parts]


async def settle():
    await asyncio.sleep(0.02)


def watching(scenario):
    """Runs a scenario with the servicer and what opens a watch."""

    async def run():
        bridge, server, health = Bridge(), GrpcServer(), HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        dispatcher = Dispatcher(bridge, None, server)
        dispatcher.start()

        async def watch(service):
            call = bridge.open(Call("/grpc.health.v1.Health/Watch", is_grpc=True))
            bridge.push(call, MESSAGE, health_pb2.HealthCheckRequest(service=service).SerializeToString())
            await settle()
            return call

        await scenario(health, watch, bridge)
        await dispatcher.stop()

    asyncio.run(run())


def test_a_watcher_learns_of_a_model_that_comes_and_of_each_change_once():
    async def scenario(health, watch, bridge):
        call = await watch("m")
        for serving, names in ((True, ["m"]), (True, ["m", "other"]), (False, ["other"]), (False, ["m"])):
            health.set(serving, names)
            await settle()
        assert told(call) == [UNKNOWN, SERVING, NOT_SERVING]

    watching(scenario)


def test_a_watcher_still_learns_after_another_has_left():
    async def scenario(health, watch, bridge):
        leaves, stays = await watch(""), await watch("")
        bridge.push(leaves, CANCEL)
        await settle()
        health.set(True, [""])
        await settle()
        assert (told(leaves), told(stays)) == ([UNKNOWN], [UNKNOWN, SERVING])
        assert leaves.code == grpc.StatusCode.CANCELLED.value[0]

    watching(scenario)
