"""Every limit of the command line, at its edge and beyond it. --min-body-rate takes its time: tests/soak/test_body_rate.py."""

from __future__ import annotations

import contextlib
import json
import struct
import time

import grpc
import h2.errors
import h2.events
import h2.exceptions
import pytest
from onnx import helper

from reference.processes import Held, wait_until

from . import models, wire
from .faults import INFER, MIB, OWN, ask, binary_body, element, error_of, infer_message, request, rest_body
from .server import ServerProcess

CONNECTIONS, STREAMS, HEADER_KIB, RESETS, IDLE_SECS = 12, 8, 8, 100, 1
REST = "/v2/models/texts/infer"
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
GRPC_HEADERS = (("content-type", "application/grpc"), ("te", "trailers"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    registry = tmp_path_factory.mktemp("limits") / "registry"
    models.identity(registry, "BYTES", ["n"], "texts")
    zeros = helper.make_node("ConstantOfShape", ["n"], ["y"])
    models.write(registry, "zeros", [zeros], [models.value("n", "INT64", [1])], [models.value("y", "FP32", ["m"])])
    flags = {"max-body-mib": 1, "max-response-mib": 1, "max-pending-mib": 2, "max-connections": CONNECTIONS, "max-streams": STREAMS, "max-header-kib": HEADER_KIB,
             "idle-timeout-secs": IDLE_SECS, "max-resets": RESETS, "max-resets-per-s": 1, "header-timeout-ms": 1000}
    with ServerProcess(registry, *(text for name, value in flags.items() for text in (f"--{name}", str(value)))) as process:
        yield process


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.address, [*OWN, ("grpc.max_receive_message_length", -1)]) as made:
        yield made


def of_size(size, **more):
    """A good request for `texts` of exactly so many bytes, filled up with what JSON passes over."""
    body, headers = binary_body("x", "BYTES", [1], element(b"x"), **more)
    head = headers["Inference-Header-Content-Length"]
    return body[:head] + b" " * (size - len(body)) + body[head:], {"Inference-Header-Content-Length": head + size - len(body)}


def chunked(body, headers):
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 10_000]), body[at : at + 10_000]) for at in range(0, len(body), 10_000))
    return f"POST {REST} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n".encode() + lines + b"\r\n" + chunks + b"0\r\n\r\n"


def answer_to(server, sent):
    with wire.connect(server.port) as connection, connection.makefile("rb") as file:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        return wire.read_answer(file)


@pytest.mark.parametrize("form", [lambda body, headers: request(REST, body, headers), chunked], ids=["length", "chunks"])
def test_a_body_of_exactly_the_limit_is_served_and_one_byte_more_refused(server, form):
    assert answer_to(server, form(*of_size(MIB)))[0] == 200
    status, body = answer_to(server, form(*of_size(MIB + 1)))
    assert (status, error_of(body)) == (413, "the body is larger than the server's limit")


@pytest.mark.parametrize(("size", "status"), [(MIB, "200"), (MIB + 1, "413")])
def test_the_same_over_http2(server, size, status):
    body, headers = of_size(size)
    with wire.Http2(server.port) as connection:
        assert status_of(connection, REST, body, *((name.lower(), str(value)) for name, value in headers.items())) == status


def status_of(connection, path, body, *headers, method="POST"):
    """The :status of one call, whose body is sent as the windows allow."""
    stream = connection.client.get_next_available_stream_id()
    connection.client.send_headers(stream, [(":method", method), (":path", path), (":scheme", "http"), (":authority", "x"), *headers])
    while True:
        room = min(connection.client.local_flow_control_window(stream), connection.client.max_outbound_frame_size)
        if room and body is not None:
            connection.client.send_data(stream, body[:room], end_stream=len(body) <= room)
            body = body[room:] or None
        connection.flush()
        if body is None or not room:
            for event in connection.client.receive_data(connection.socket.recv(1 << 16)):
                if isinstance(event, h2.events.ResponseReceived):
                    return dict(event.headers)[":status"]
                assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated), event


def message_of_size(size):
    sent = infer_message("texts", "x", "BYTES", [1], element(b"x"))
    sent.inputs[0].parameters["filler"].string_param = ""
    sent.inputs[0].parameters["filler"].string_param = "y" * (size - sent.ByteSize())
    sent.inputs[0].parameters["filler"].string_param = "y" * (size - (sent.ByteSize() - len(sent.inputs[0].parameters["filler"].string_param)))
    assert sent.ByteSize() == size
    return sent.SerializeToString()


def code_of(channel, sent, **options):
    try:
        channel.unary_unary(INFER)(sent, timeout=20, **options)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_message_of_exactly_the_limit_is_served_and_one_byte_more_refused(channel):
    assert code_of(channel, message_of_size(MIB)) == grpc.StatusCode.OK
    assert code_of(channel, message_of_size(MIB + 1)) == EXHAUSTED


def test_an_answer_over_the_limit_is_refused_over_grpc_too(channel):
    """Over REST: test_connections.py."""
    for count, code in ((MIB // 4 - 100, grpc.StatusCode.OK), (MIB // 4 + 1, EXHAUSTED)):
        assert code_of(channel, infer_message("zeros", "n", "INT64", [1], struct.pack("<q", count)).SerializeToString()) == code


def test_the_memory_of_an_answer_that_was_refused_is_given_back(server):
    before = Held.by(server.process.pid).rss_kb
    sent = rest_body("n", "INT64", [1], [50 * MIB])         # 200 MiB of zeros
    assert ask(server, "/v2/models/zeros/infer", sent)[0] == 429
    assert ask(server, "/v2/models/zeros/infer", sent.replace(b"52428800", b"1"))[0] == 200
    assert Held.by(server.process.pid).rss_kb - before < 50 << 10


def pending(server):
    text = server.get("/metrics")[1].decode()
    return float(next(line for line in text.splitlines() if line.startswith("batchmill_pending_bytes ")).split()[1])


@pytest.mark.parametrize("path", [REST, "/v2/repository/index"], ids=["native", "cold"])
def test_bodies_over_the_budget_of_all_are_refused_until_others_are_through(server, path):
    half = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), MIB) + b" " * (MIB - (64 << 10))
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(wire.connect(server.port)).sendall(half)
        wait_until(lambda: pending(server) == 2 * (MIB - (64 << 10)))
        assert ask(server, path, b" " * (128 << 10))[0] in (200, 400)       # what is left, and not a byte more
        with wire.connect(server.port) as connection, connection.makefile("rb") as file:
            connection.sendall(request(path, b" " * ((128 << 10) + 1)))
            head = b"".join(iter(file.readline, b"\r\n"))
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in head
    wait_until(lambda: pending(server) == 0)
    assert ask(server, path, b" " * ((128 << 10) + 1))[0] in (200, 400)


@pytest.mark.parametrize("path", [REST, "/v2/repository/index"], ids=["native", "cold"])
def test_the_same_for_the_streams_of_one_http2_connection(server, path):
    """What is held of six times half a MiB stays below 2 MiB."""
    with wire.Http2(server.port) as connection:
        connection.socket.settimeout(0.01)
        streams = [connection.client.get_next_available_stream_id() + 2 * number for number in range(6)]
        for stream in streams:
            connection.client.send_headers(stream, [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "x")])
        left, statuses = dict.fromkeys(streams, MIB // 2), []
        while any(left.values()):
            for stream in [stream for stream in streams if left[stream]]:
                with contextlib.suppress(h2.exceptions.StreamClosedError):
                    room = min(connection.client.local_flow_control_window(stream), connection.client.max_outbound_frame_size, left[stream])
                    connection.client.send_data(stream, bytes(room))
                    left[stream] -= room
                    continue
                left[stream] = 0
            connection.flush()
            statuses += statuses_of(connection)
        wait_until(lambda: (statuses.extend(statuses_of(connection)), len(statuses) >= 2)[1])
        assert statuses == ["503"] * len(statuses)
        assert pending(server) <= 2 * MIB
    wait_until(lambda: pending(server) == 0)


def statuses_of(connection):
    """Of what has come by now."""
    try:
        events = connection.client.receive_data(connection.socket.recv(1 << 16))
    except TimeoutError:
        return []
    return [dict(event.headers)[":status"] for event in events if isinstance(event, h2.events.ResponseReceived)]


def test_connections_over_the_limit_are_closed_at_once_and_places_become_free(server):
    wait_until(lambda: b"\nbatchmill_connections 1.0\n" in server.get("/metrics")[1])
    live = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    time.sleep(0.05)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(wire.connect(server.port)) for _ in range(CONNECTIONS)]
        for connection in held:
            connection.sendall(live)
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        beyond = stack.enter_context(wire.connect(server.port))
        with contextlib.suppress(ConnectionError):
            assert beyond.recv(1) == b""
        held[0].sendall(live)
        assert held[0].recv(100).startswith(b"HTTP/1.1 200 ")
        held[1].close()
        wait_until(lambda: ready(server))
    assert b"\nbatchmill_refused_connections_total 0.0\n" not in server.get("/metrics")[1]


def ready(server):
    with contextlib.suppress(OSError, ConnectionError):
        return server.get("/v2/health/ready")[0] == 200
    return False


def test_streams_over_the_limit_are_refused_and_may_be_sent_again(server):
    with wire.Http2(server.port) as connection:
        streams = [connection.ask(INFER, b"", *GRPC_HEADERS, end=False) for _ in range(STREAMS + 1)]    # before it is told what the limit is
        connection.flush()
        reset = None
        while reset is None:
            for event in connection.client.receive_data(connection.socket.recv(1 << 16)):
                reset = event if isinstance(event, h2.events.StreamReset) else reset
        assert (reset.stream_id, reset.error_code) == (streams[-1], h2.errors.ErrorCodes.REFUSED_STREAM)
        assert connection.client.remote_settings.max_concurrent_streams == STREAMS
        for stream in streams[:-1]:
            connection.client.send_data(stream, framed(message_of_size(500)), end_stream=True)
        del connection.bodies[streams[-1]]
        assert [len(body) > 5 for body in connection.answers()] == [True] * STREAMS


def framed(message):
    return struct.pack(">BI", 0, len(message)) + message


@pytest.mark.parametrize(("more", "status"), [(0, 200), (1, 431)])
def test_a_head_of_exactly_the_limit_is_served_and_one_byte_more_refused(server, more, status):
    head = b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: "
    assert answer_to(server, head + b"y" * ((HEADER_KIB << 10) + more - len(head) - 4) + b"\r\n\r\n")[0] == status


@pytest.mark.parametrize(("more", "status"), [(0, "200"), (1, "431")])
def test_http2_headers_of_exactly_the_limit_are_served_and_one_byte_more_refused(server, more, status):
    """Each counts its name, its value and 32 bytes."""
    fixed = [(":method", "GET"), (":path", "/v2/health/live"), (":scheme", "http"), (":authority", "x")]
    size = (HEADER_KIB << 10) + more - sum(len(name) + len(value) + 32 for name, value in fixed) - 33
    with wire.Http2(server.port) as connection:
        assert status_of(connection, "/v2/health/live", b"", ("x", "y" * size), method="GET") == status


@pytest.mark.parametrize(("size", "code"), [(6000, grpc.StatusCode.OK), (9000, EXHAUSTED)])
def test_metadata_over_the_limit_is_refused(channel, size, code):
    assert code_of(channel, message_of_size(500), metadata=[("x", "y" * size)]) == code


def test_a_head_that_does_not_come_in_time_is_refused(server):
    started = time.monotonic()
    status, _ = answer_to(server, b"GET /v2 HTTP/1.1\r\nHost: x\r\n")
    assert status == 408
    assert 1 <= time.monotonic() - started < 4


def test_an_idle_connection_is_closed_and_one_that_asks_is_not(server):
    live = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with wire.connect(server.port) as idle, wire.connect(server.port) as busy:
        idle.sendall(live)
        assert idle.recv(100).startswith(b"HTTP/1.1 200 ")
        started = time.monotonic()
        while time.monotonic() - started < 2.5 * IDLE_SECS:
            busy.sendall(live)
            assert busy.recv(100).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.2)
        assert idle.recv(1) == b""


def test_an_idle_http2_connection_stays(server):
    with wire.Http2(server.port) as connection:
        connection.ask(INFER, framed(message_of_size(500)), *GRPC_HEADERS)
        assert len(list(connection.answers())) == 1
        time.sleep(1.5 * IDLE_SECS)
        connection.ask(INFER, framed(message_of_size(500)), *GRPC_HEADERS)
        assert len(list(connection.answers())) == 1


def test_a_client_may_cancel_so_many_streams_and_then_has_to_go(server):
    def cancelled(connection, count):
        """Whether the connection lives after so many cancelled streams."""
        for _ in range(count):
            connection.cancel(connection.ask(INFER, b"", *GRPC_HEADERS, end=False))
            connection.flush()
        connection.ask(INFER, framed(message_of_size(500)), *GRPC_HEADERS)
        connection.flush()
        while True:
            data = connection.socket.recv(1 << 16)
            events = connection.client.receive_data(data) if data else [None]
            for event in events:
                if event is None or isinstance(event, h2.events.ConnectionTerminated):
                    return False
                if isinstance(event, h2.events.StreamEnded):
                    return True

    with wire.Http2(server.port) as connection:
        assert cancelled(connection, RESETS)
        assert not cancelled(connection, 20)
    assert json.loads(server.get("/v2/models")[1])["models"]
