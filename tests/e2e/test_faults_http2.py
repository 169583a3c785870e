"""HTTP/2 frames that flood, starve or make no sense (faults E): others are served throughout, and nothing is left."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

import hpack
import pytest
from fuzz.inputs import CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, packed

from . import wire
from .faults import INFER, MIB, SPARE, attacked, infer_message, settled

INITIAL_WINDOW = 4      # a setting's number
FLOOD = 20_000
MESSAGE = infer_message("linear", "x", "FP32", [1, 8], bytes(32)).SerializeToString()
FRAMED = struct.pack(">BI", 0, len(MESSAGE)) + MESSAGE
PIECE = 1 << 16


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with attacked(tmp_path_factory.mktemp("http2"), "--header-timeout-ms", "1500") as process:
        yield process


def headers(stream, *more, flags=END_HEADERS, encoder=None, path=INFER):
    fields = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers"), *more]
    return packed(HEADERS, flags, stream, (encoder or hpack.Encoder()).encode(fields))


def opened(*settings):
    return PREFACE + packed(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *one) for one in settings))


def send(connection, sent):
    """Sends all of it, or as much as the server takes before it closes; reads nothing meanwhile."""
    connection.settimeout(1)
    with contextlib.suppress(OSError):
        for at in range(0, len(sent), PIECE):
            connection.sendall(sent[at : at + PIECE])
    connection.settimeout(wire.SECONDS)


def ends(connection):
    """Whether the server closes the connection; reads what comes until then."""
    try:
        while connection.recv(PIECE):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def calls(count, *more):
    return b"".join(headers(2 * number + 1, *more) + packed(DATA, END_STREAM, 2 * number + 1, FRAMED) for number in range(count))


RAPID_RESET = b"".join(headers(stream) + packed(DATA, END_STREAM, stream, FRAMED) + packed(RST_STREAM, 0, stream, struct.pack(">I", 8)) for stream in range(1, 4001, 2))
EMPTY_DATA = headers(1) + packed(DATA, 0, 1, b"") * (5 * FLOOD)
CONTINUATIONS = headers(1, flags=0) + packed(CONTINUATION, 0, 1, hpack.Encoder().encode([("x", "y" * 500)])) * FLOOD
EMPTY_CONTINUATIONS = headers(1, flags=0) + packed(CONTINUATION, 0, 1, b"") * FLOOD
TRAILERS = headers(1) + headers(1, flags=END_HEADERS) * 100
NO_PATH = packed(HEADERS, END_HEADERS | END_STREAM, 1, hpack.Encoder().encode([("x", "y")])) * 2
UPPER = packed(HEADERS, END_HEADERS, 1, hpack.Encoder().encode([(":method", "POST"), ("X-Upper", "y")]))


def hpack_bomb():
    """One entry of 4 KB goes into the table, then 50,000 bytes ask for it 50,000 times: 200 MB of headers."""
    first = hpack.Encoder().encode([(":method", "POST"), (":path", INFER), (":scheme", "http"), (":authority", "x")])
    entry = b"\x40\x01b" + b"\x7f" + bytes([4000 - 127 & 127 | 128, (4000 - 127) >> 7]) + b"y" * 4000
    block = first + entry + b"\xbe" * 50_000
    parts = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    return packed(HEADERS, 0, 1, parts[0]) + b"".join(packed(CONTINUATION, END_HEADERS if part is parts[-1] else 0, 1, part) for part in parts[1:])


FLOODS = {
    "rapid reset": RAPID_RESET, "SETTINGS": packed(SETTINGS, 0, 0, b"") * FLOOD, "SETTINGS with values": packed(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, 70_000) * 6) * FLOOD,
    "PING": packed(PING, 0, 0, bytes(8)) * FLOOD, "empty DATA": EMPTY_DATA, "CONTINUATION": CONTINUATIONS, "empty CONTINUATION": EMPTY_CONTINUATIONS, "HPACK bomb": hpack_bomb(),
    "WINDOW_UPDATE": packed(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * FLOOD, "PRIORITY": packed(2, 0, 1, bytes(5)) * FLOOD, "unknown frames": packed(99, 0, 0, b"x" * 100) * FLOOD,
    "trailers": TRAILERS, "RST_STREAM of none": packed(RST_STREAM, 0, 1, bytes(4)) * FLOOD, "refused calls": b"".join(headers(n, path="/no/method", flags=5) for n in range(1, 2001, 2)),
}


@pytest.mark.parametrize("read", [True, False], ids=["read", "never read"])
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_of_frames_ends_with_its_connection_and_disturbs_nobody(server, flood, read):
    with wire.connect(server.port) as connection:
        if not read:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        send(connection, opened() + flood)
        if read:
            connection.settimeout(0.2)
            ends(connection)
    settled(server)


@pytest.mark.parametrize("frames", [
    packed(HEADERS, END_HEADERS, 0, b"\x82"), packed(DATA, 0, 0, b"x"), packed(CONTINUATION, END_HEADERS, 1, b""), packed(SETTINGS, 0, 1, b""), packed(SETTINGS, 0, 0, b"12345"),
    packed(PING, 0, 0, bytes(7)), packed(WINDOW_UPDATE, 0, 0, bytes(4)), packed(5, END_HEADERS, 1, bytes(8)), packed(HEADERS, END_HEADERS, 2, b"\x82"),
    packed(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, 2**31)), packed(HEADERS, END_HEADERS, 1, b"\xff" * 40), b"\xff\xff\xff" + packed(DATA, 0, 1, b"")[3:] + b"x" * (16 * MIB),
    headers(1, flags=0) + packed(PING, 0, 0, bytes(8)), packed(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)) * 2, packed(RST_STREAM, 0, 0, bytes(4)),
], ids=["HEADERS on stream 0", "DATA on stream 0", "CONTINUATION of nothing", "SETTINGS on a stream", "SETTINGS of a wrong size", "PING of a wrong size", "window grows by 0",
        "PUSH_PROMISE", "an even stream", "a window too large", "no HPACK", "16 MB frame", "PING inside headers", "window over 2^31", "RST_STREAM on stream 0"])  # fmt: skip
def test_a_frame_that_no_client_may_send_ends_its_connection(server, frames):
    with wire.connect(server.port) as connection:
        send(connection, opened() + frames)
        connection.shutdown(socket.SHUT_WR)
        assert ends(connection)


@pytest.mark.parametrize("frames", [NO_PATH, UPPER], ids=["no path", "upper case"])
def test_a_malformed_request_ends_its_stream_at_most(server, frames):
    with wire.connect(server.port) as connection:
        send(connection, opened() + frames)
        connection.settimeout(0.2)
        ends(connection)


@pytest.mark.parametrize("first", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n", b"\0" * 64, b"PRI * HTTP/2.0\r\n\r\nXM\r\n\r\n"])
def test_another_protocol_on_the_port_is_answered_by_http1_or_closed(server, first):
    with wire.connect(server.port) as connection, connection.makefile("rb") as file:
        connection.sendall(first)
        assert file.read().startswith(b"HTTP/1.1 4")


def test_who_opens_no_window_and_never_reads_holds_up_nobody(server):
    with contextlib.ExitStack() as stack:
        for window in (0, 1):
            for _ in range(5):
                connection = stack.enter_context(wire.connect(server.port))
                send(connection, opened((INITIAL_WINDOW, window)) + calls(200))
        time.sleep(0.5)     # the other client asks meanwhile
    settled(server)


def test_100_half_prefaces_are_closed_by_the_header_timeout(server):
    waiting = [wire.connect(server.port) for _ in range(100)]
    for number, connection in enumerate(waiting):
        connection.sendall(PREFACE[: number % 23 + 1])
    for connection in waiting:
        assert ends(connection)
        connection.close()


def test_1100_connections_are_taken_and_leave_nothing(server):
    before = settled(server).descriptors
    held = [wire.connect(server.port) for _ in range(1100)]
    for connection in held[::2]:
        connection.sendall(opened() + calls(1))
    for connection in held[::2]:
        assert connection.recv(9)
    assert server.get("/v2/health/ready")[0] == 200
    for connection in held:
        connection.close()
    assert settled(server, descriptors=before + SPARE).descriptors <= before + SPARE


def test_half_a_header_block_holds_up_nobody(server):
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            connection = stack.enter_context(wire.connect(server.port))
            connection.sendall(opened() + headers(1, flags=0)[:-3])
        time.sleep(0.3)
    settled(server)
