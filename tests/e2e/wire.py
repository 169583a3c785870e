"""Clients that are small and hide nothing: HTTP/1.1 pipelined as bytes, HTTP/2 by the h2 library, both on a socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO

import h2.config
import h2.connection
import h2.errors
import h2.events

SECONDS = 20


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), SECONDS)


def post(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def read_answer(file: BinaryIO) -> tuple[int, bytes]:
    """Status and body of the next answer on a connection."""
    status, size = int(file.readline().split()[1]), 0
    while line := file.readline().strip():
        name, _, value = line.partition(b":")
        size = int(value) if name.lower() == b"content-length" else size
    return status, file.read(size)


class Http2:
    """One connection. ask() and cancel() collect what flush() sends; answers() waits for all that was asked and not cancelled."""

    def __init__(self, port: int) -> None:
        self.socket = connect(port)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)   # a cancel does not wait for the request's ACK
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.client.initiate_connection()
        self.bodies: dict[int, bytes] = {}

    def ask(self, path: str, body: bytes = b"", *headers: tuple[str, str], method: str = "POST", end: bool = True) -> int:
        stream = self.client.get_next_available_stream_id()
        self.client.send_headers(stream, [(":method", method), (":path", path), (":scheme", "http"), (":authority", "x"), *headers])
        self.client.send_data(stream, body, end_stream=end)
        self.bodies[stream] = b""
        return stream

    def cancel(self, stream: int) -> None:
        self.client.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        del self.bodies[stream]

    def flush(self) -> None:
        self.socket.sendall(self.client.data_to_send())

    def answers(self) -> Iterator[bytes]:
        """Each body as its stream ends."""
        self.flush()
        while self.bodies:
            data = self.socket.recv(1 << 16)
            assert data, "the server has closed the connection"
            for event in self.client.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    self.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    if event.stream_id in self.bodies:
                        self.bodies[event.stream_id] += event.data
                elif isinstance(event, h2.events.StreamEnded) and event.stream_id in self.bodies:
                    yield self.bodies.pop(event.stream_id)
            self.flush()

    def __enter__(self) -> Http2:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()
