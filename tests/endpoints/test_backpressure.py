"""Who writes an answer waits for a caller who reads slowly."""

import asyncio
import threading

import pytest

from batchmill.endpoints import asgi
from batchmill.endpoints.backpressure import PENDING_MAX, pauses
from batchmill.endpoints.grpc_context import BlockingContext, Context

from .fakes import Call


class SlowCall(Call):
    """Its caller reads one byte whenever it is asked how many are pending."""

    unread = 0

    @property
    def pending(self):
        self.unread = max(0, self.unread - 1)
        return self.unread

    @pending.setter
    def pending(self, value):
        self.unread = value

    def write(self, data):
        super().write(data)
        self.unread += len(data)


PART = bytes(PENDING_MAX)


def test_the_pauses_grow_and_end_when_the_caller_has_caught_up():
    call = SlowCall()
    call.unread = PENDING_MAX + 10
    taken = list(pauses(call))
    assert len(taken) == 9
    assert taken == sorted(taken)
    assert max(taken) == 0.05


def test_nobody_waits_for_a_caller_who_has_gone():
    call = SlowCall()
    call.unread, call.cancelled = 10 * PENDING_MAX, True
    assert list(pauses(call)) == []


async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(3):
        await send({"type": "http.response.body", "body": PART, "more_body": True})


async def generator(context):
    for _ in range(3):
        await context.write(PART)


@pytest.mark.parametrize("answer", [
    lambda call: asgi.handle(application, call), lambda call: generator(Context(call, None, None)),
], ids=["asgi", "grpc"])
def test_little_waits_for_a_caller_who_does_not_read(answer):
    async def scenario():
        call = Call()
        call.write = lambda data: (call.parts.append(data), setattr(call, "pending", call.pending + len(data)))
        task = asyncio.create_task(answer(call))
        while call.pending <= PENDING_MAX:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert PENDING_MAX < call.pending <= 2 * PENDING_MAX
        for _ in range(3):
            call.pending = 0
            await asyncio.sleep(0.1)
        await asyncio.wait_for(task, 5)
        assert sum(map(len, call.parts)) == 3 * PENDING_MAX

    asyncio.run(scenario())


def test_a_thread_stops_waiting_when_its_call_has_ended():
    async def scenario():
        call = Call()
        call.pending = 2 * PENDING_MAX
        context = BlockingContext(call, None, None)
        thread = threading.Thread(target=context.write, args=(b"x",))
        thread.start()
        context.finish()        # by its deadline; the caller still does not read
        await asyncio.to_thread(thread.join, 5)
        assert not thread.is_alive()

    asyncio.run(scenario())
