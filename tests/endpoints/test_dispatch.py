"""The end of the cold half: what was accepted is answered, what never ends is ended, the rest is refused."""

import asyncio

import grpc
import pytest

from batchmill.core.bridge import MESSAGE
from batchmill.endpoints.dispatch import Dispatcher
from batchmill.endpoints.grpc_server import GrpcServer

from .fakes import Bridge, Call

pytestmark = pytest.mark.filterwarnings("error")


class World:
    """A dispatcher whose handlers wait for `go_on`; made inside a running loop."""

    def __init__(self):
        self.bridge, self.server, self.go_on = Bridge(), GrpcServer(), asyncio.Event()
        self.server.add_registered_method_handlers("s", {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary), "Watch": grpc.unary_stream_rpc_method_handler(self.watch),
        })
        self.dispatcher = Dispatcher(self.bridge, self.application, self.server)
        self.dispatcher.start()

    async def unary(self, request, context):
        await self.go_on.wait()
        return request

    async def watch(self, request, context):
        await asyncio.Event().wait()
        yield request

    async def application(self, scope, receive, send):
        await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    async def open(self, target, *, is_grpc=False, message=b"m"):
        call = self.bridge.open(Call(target, is_grpc=is_grpc))
        if is_grpc and message is not None:
            self.bridge.push(call, MESSAGE, message)
        await settle()
        return call


async def settle():
    await asyncio.sleep(0.02)  # the bridge's descriptor, then the handlers' tasks


def in_loop(scenario):
    async def run():
        world = World()
        await scenario(world)
        await world.dispatcher.stop()

    asyncio.run(run())


def test_calls_that_were_accepted_are_answered_after_the_drain_began():
    async def scenario(world):
        http, unary = await world.open("/slow"), await world.open("/s/Unary", is_grpc=True)
        world.dispatcher.drain()
        await settle()
        assert (http.trailers, unary.trailers) == (None, None)
        world.go_on.set()
        await settle()
        assert (http.status, http.body_sent, unary.code, unary.parts) == (200, b"done", 0, [b"m"])

    in_loop(scenario)


def test_a_call_that_waits_in_the_queue_when_the_drain_begins_is_accepted():
    async def scenario(world):
        call = world.bridge.open(Call("/slow"))
        world.dispatcher.drain()
        world.go_on.set()
        await settle()
        assert call.status == 200

    in_loop(scenario)


@pytest.mark.parametrize(("target", "message"), [("/s/Watch", b"m"), ("/s/Unary", None)], ids=["watch", "half sent"])
def test_calls_that_may_never_end_are_ended_by_the_drain(target, message):
    async def scenario(world):
        call = await world.open(target, is_grpc=True, message=message)
        world.dispatcher.drain()
        await settle()
        assert call.code == grpc.StatusCode.UNAVAILABLE.value[0]

    in_loop(scenario)


def test_new_calls_are_refused_once_it_drains():
    async def scenario(world):
        world.go_on.set()
        world.dispatcher.drain()
        http, unary = await world.open("/slow"), await world.open("/s/Unary", is_grpc=True)
        assert (http.status, http.answer_headers[b"retry-after"]) == (503, b"1")
        assert unary.code == grpc.StatusCode.UNAVAILABLE.value[0]

    in_loop(scenario)


def test_what_is_open_at_the_stop_is_told_so():
    async def scenario(world):
        http, unary = await world.open("/slow"), await world.open("/s/Unary", is_grpc=True)
        await world.dispatcher.stop()
        assert (http.status, unary.code) == (503, grpc.StatusCode.UNAVAILABLE.value[0])
        assert world.bridge.open_calls == 0

    in_loop(scenario)
