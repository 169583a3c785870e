"""gRPC handlers of every kind, and what their context does."""

import asyncio
import base64
import threading
import time

import grpc
import pytest

from batchmill.core.bridge import CANCEL, END, MESSAGE
from batchmill.core.grpc import status_details
from batchmill.endpoints.dispatch import Dispatcher
from batchmill.endpoints.grpc_context import EOF
from batchmill.endpoints.grpc_server import PLAIN_THREADS, GrpcServer

from .fakes import Bridge, Call

WAIT = 5  # seconds; what is waited for comes at once
MAKE = {"uu": grpc.unary_unary_rpc_method_handler, "us": grpc.unary_stream_rpc_method_handler,
        "su": grpc.stream_unary_rpc_method_handler, "ss": grpc.stream_stream_rpc_method_handler}


def plain(request, context):
    return request + b"!"


async def coroutine(request, context):
    return request + b"!"


def generator(request, context):
    yield request
    yield b"!"


async def async_generator(request, context):
    yield request
    yield b"!"


async def writer(request, context):
    await context.write(request)
    await context.write(b"!")


def plain_of_stream(requests, context):
    return b"".join(requests)


async def coroutine_of_stream(requests, context):
    return b"".join([message async for message in requests])


def generator_of_stream(requests, context):
    yield from requests


async def async_generator_of_stream(requests, context):
    async for message in requests:
        yield message


async def reader(requests, context):
    while (message := await context.read()) is not EOF:
        await context.write(message)


async def answered(handler, messages=(b"a",), end=True, **call):
    """The call after the handler has answered it."""
    bridge, server = Bridge(), GrpcServer()
    server.add_registered_method_handlers("s", {"M": handler})
    Dispatcher(bridge, None, server).start()
    call = bridge.open(Call("/s/M", is_grpc=True, **call))
    for message in messages:
        bridge.push(call, MESSAGE, message)
    if end:
        bridge.push(call, END)
    limit = time.monotonic() + WAIT
    while call.trailers is None and time.monotonic() < limit:
        await asyncio.sleep(0.001)
    return call


def ask(kind, behaviour, messages=(b"a",), **call):
    return asyncio.run(answered(MAKE[kind](behaviour), messages, **call))


@pytest.mark.parametrize(("kind", "behaviour", "messages", "wanted"), [
    ("uu", plain, [b"a"], [b"a!"]),
    ("uu", coroutine, [b"a"], [b"a!"]),
    ("us", generator, [b"a"], [b"a", b"!"]),
    ("us", async_generator, [b"a"], [b"a", b"!"]),
    ("us", writer, [b"a"], [b"a", b"!"]),
    ("us", lambda request, context: iter([request, b"!"]), [b"a"], [b"a", b"!"]),
    ("su", plain_of_stream, [b"a", b"b"], [b"ab"]),
    ("su", coroutine_of_stream, [b"a", b"b"], [b"ab"]),
    ("ss", generator_of_stream, [b"a", b"b"], [b"a", b"b"]),
    ("ss", async_generator_of_stream, [b"a", b"b"], [b"a", b"b"]),
    ("ss", reader, [b"a", b"b"], [b"a", b"b"]),
])
def test_handlers_of_every_kind_answer(kind, behaviour, messages, wanted):
    call = ask(kind, behaviour, messages)
    assert (call.code, call.status, call.parts) == (0, 200, wanted)


def test_a_handler_that_blocks_holds_up_nobody_on_the_loop():
    async def scenario():
        release = threading.Event()
        blocked = asyncio.create_task(answered(MAKE["uu"](lambda request, context: release.wait(WAIT) and request)))
        await asyncio.sleep(0.01)
        assert (await answered(MAKE["uu"](coroutine))).code == 0
        assert not blocked.done()
        release.set()
        assert (await blocked).parts == [b"a"]

    asyncio.run(scenario())


def test_plain_handlers_have_a_bounded_number_of_threads():
    async def scenario():
        seen, lock = set(), threading.Lock()

        def handler(request, context):
            with lock:
                seen.add(threading.get_ident())
            time.sleep(0.001)
            return request

        bridge, server = Bridge(), GrpcServer()
        server.add_registered_method_handlers("s", {"M": MAKE["uu"](handler)})
        Dispatcher(bridge, None, server).start()
        calls = [bridge.open(Call("/s/M", is_grpc=True)) for _ in range(100)]
        for call in calls:
            bridge.push(call, MESSAGE, b"a")
        while any(call.trailers is None for call in calls):
            await asyncio.sleep(0.001)
        assert threading.get_ident() not in seen
        assert len(seen) <= PLAIN_THREADS

    asyncio.run(scenario())


async def aborts(request, context):
    await context.abort(grpc.StatusCode.NOT_FOUND, "no such thing", [("a-bin", b"\0\1")])


def aborts_plainly(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing", [("a-bin", b"\0\1")])


class Status:
    code, details, trailing_metadata = grpc.StatusCode.NOT_FOUND, "no such thing", [("a-bin", b"\0\1")]


async def aborts_with_status(request, context):
    await context.abort_with_status(Status)


def aborts_with_status_plainly(request, context):
    context.abort_with_status(Status)


def aborts_in_a_generator(request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing", [("a-bin", b"\0\1")])
    yield request


@pytest.mark.parametrize(("kind", "behaviour"), [
    ("uu", aborts), ("uu", aborts_plainly), ("uu", aborts_with_status), ("uu", aborts_with_status_plainly), ("us", aborts_in_a_generator),
])
def test_abort_ends_the_call_with_its_code(kind, behaviour):
    call = ask(kind, behaviour)
    assert call.trailers == {b"grpc-status": b"5", b"grpc-message": b"no such thing", b"a-bin": b"AAE"}
    assert call.parts == []


def sets_code(request, context):
    context.set_code(grpc.StatusCode.UNIMPLEMENTED)
    context.set_details("not here: \u00e9%")
    raise NotImplementedError  # as generated servicers do


async def sets_code_and_returns(request, context):
    context.set_code(grpc.StatusCode.UNIMPLEMENTED)
    context.set_details("not here: \u00e9%")


@pytest.mark.parametrize("behaviour", [sets_code, sets_code_and_returns])
def test_a_code_that_was_set_is_the_answer(behaviour):
    call = ask("uu", behaviour)
    assert call.trailers == {b"grpc-status": b"12", b"grpc-message": b"not here: %C3%A9%25"}


def fails(request, context):
    raise KeyError("our inside")


async def fails_on_the_loop(request, context):
    raise KeyError("our inside")


@pytest.mark.parametrize("behaviour", [fails, fails_on_the_loop])
def test_an_error_of_a_handler_tells_nothing_of_our_inside(behaviour):
    trailers = ask("uu", behaviour).trailers
    details = base64.b64decode(trailers.pop(b"grpc-status-details-bin") + b"==")
    assert trailers == {b"grpc-status": b"13", b"grpc-message": b"internal error"}
    assert details == status_details(13, "internal error", b"INTERNAL")


def test_unknown_methods_missing_and_unreadable_messages():
    def unreadable(data):
        raise ValueError

    assert asyncio.run(answered(MAKE["uu"](coroutine), messages=())).code == 3
    assert asyncio.run(answered(MAKE["uu"](coroutine, request_deserializer=unreadable))).code == 3
    call = Call("/s/Nothing", is_grpc=True)
    GrpcServer().open(call)
    assert call.code == 12


def dawdles(request, context):
    time.sleep(0.1)


async def dawdles_on_the_loop(request, context):
    await asyncio.sleep(WAIT)


@pytest.mark.parametrize("behaviour", [dawdles, dawdles_on_the_loop])
def test_a_deadline_ends_the_call(behaviour):
    assert ask("uu", behaviour, deadline_ns=time.monotonic_ns() + 20_000_000).code == 4


async def tells(request, context):
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata([("t", "1")])
    await context.send_initial_metadata([("i", "2")])
    return f"{metadata} {context.peer()} {context.time_remaining() is None or round(context.time_remaining())} {context.done()}".encode()


def tells_plainly(request, context):
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata([("t", "1")])
    context.send_initial_metadata([("i", "2")])
    return f"{metadata} {context.peer()} {context.time_remaining() is None or round(context.time_remaining())} {context.done()}".encode()


@pytest.mark.parametrize("behaviour", [tells, tells_plainly])
@pytest.mark.parametrize(("seconds", "wanted"), [(0, True), (100, 100)])
def test_the_context_tells_of_the_call_and_sends_metadata(behaviour, seconds, wanted):
    deadline_ns = time.monotonic_ns() + seconds * 10**9 if seconds else 0
    call = ask("uu", behaviour, headers=[(b"x-key", b"v"), (b"te", b"trailers")], deadline_ns=deadline_ns)
    assert call.parts == [b"{'x-key': 'v'} ipv4:127.0.0.1:5 %s False" % str(wanted).encode()]
    assert (call.answer_headers, call.trailers[b"t"]) == ({b"i": b"2"}, b"1")


def test_a_generator_whose_caller_has_gone_is_not_run_on():
    async def scenario():
        made, stopped = [], threading.Event()

        def endless(request, context):
            try:
                while True:
                    made.append(1)
                    yield request
                    time.sleep(0.001)
            finally:
                stopped.set()

        bridge, server = Bridge(), GrpcServer()
        server.add_registered_method_handlers("s", {"M": MAKE["us"](endless)})
        Dispatcher(bridge, None, server).start()
        call = bridge.open(Call("/s/M", is_grpc=True))
        bridge.push(call, MESSAGE, b"a")
        while not made:
            await asyncio.sleep(0.001)
        bridge.push(call, CANCEL)
        assert await asyncio.to_thread(stopped.wait, WAIT)

    asyncio.run(scenario())


def test_a_call_that_is_cancelled_before_its_handler_begins_is_finished():
    """Else each of them would count as open for good, and the queue of cold calls be full one day."""
    async def scenario():
        bridge, server = Bridge(), GrpcServer()
        server.add_registered_method_handlers("s", {"M": MAKE["uu"](coroutine)})
        Dispatcher(bridge, None, server).start()
        call = bridge.open(Call("/s/M", is_grpc=True))
        bridge.push(call, CANCEL)
        limit = time.monotonic() + WAIT
        while call.trailers is None and time.monotonic() < limit:
            await asyncio.sleep(0.001)
        assert call.trailers is not None
        assert bridge.open_calls == 0

    asyncio.run(scenario())
