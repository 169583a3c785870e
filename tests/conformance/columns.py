"""Every client of the table, and how its cells come about."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from e2e.server import ServerProcess

from .calls import CALLS, COMPRESSED, COMPRESSED_MAX, Column, told
from .curl import Curl, CurlHttp2
from .served import Relay, wait_idle
from .triton import TritonGrpc, TritonGrpcAio, TritonHttp, TritonHttpAio

# (client, call): why it is right that this fails. One that does not fail is an error, too.
EXPLAINED: dict[tuple[str, str], str] = {}


@dataclass(frozen=True, slots=True)
class Client:
    """A column of the table. run: the outcomes of some calls at an address."""

    name: str
    title: str
    version: Callable[[], str]
    run: Callable[[str, Iterable[str]], dict[str, str]]


def in_process(kind: type[Column]) -> Callable[[str, Iterable[str]], dict[str, str]]:
    def run(address: str, calls: Iterable[str]) -> dict[str, str]:
        column = kind(address)  # type: ignore[call-arg]
        try:
            return {call: column.outcome(call) for call in calls}
        finally:
            column.close()

    return run


def run_stubs(address: str, calls: Iterable[str]) -> dict[str, str]:
    wanted = list(calls)
    return told(wanted, subprocess.run([sys.executable, "-m", "conformance.stubs", address, *wanted], cwd=Path(__file__).resolve().parents[1],
                                       timeout=120, capture_output=True, text=True, check=False))


def packages(*names: str) -> Callable[[], str]:
    return lambda: ", ".join([*(f"{name} {version(name)}" for name in names), f"Python {platform.python_version()}"])


def curl_version() -> str:
    words = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout.split()
    return f"curl {words[1]}, {next(word for word in words if word.startswith('nghttp2'))}"


LOCAL = (
    Client("tritonclient-grpc", "tritonclient gRPC", packages("tritonclient", "grpcio"), in_process(TritonGrpc)),
    Client("tritonclient-grpc-aio", "tritonclient gRPC aio", packages("tritonclient", "grpcio"), in_process(TritonGrpcAio)),
    Client("tritonclient-http", "tritonclient HTTP", packages("tritonclient", "geventhttpclient"), in_process(TritonHttp)),
    Client("tritonclient-http-aio", "tritonclient HTTP aio", packages("tritonclient", "aiohttp"), in_process(TritonHttpAio)),
    Client("grpcio", "grpcio, our stubs", packages("grpcio", "protobuf"), run_stubs),
    Client("curl-http1", "curl HTTP/1.1", curl_version, in_process(Curl)),
    Client("curl-http2", "curl HTTP/2", curl_version, in_process(CurlHttp2)),
)


def cells(client: Client, server: ServerProcess) -> dict[str, str]:
    """The outcome of every call. What has to travel compressed goes by way of a relay that counts it."""
    outcomes = client.run(server.address, [call for call in CALLS if call not in COMPRESSED])
    for call, way in COMPRESSED.items():
        with Relay(server.port) as relay:
            outcomes |= client.run(relay.address, [call])
            if outcomes[call] == "ok" and relay.bytes[way] > COMPRESSED_MAX:
                outcomes[call] = f"failed: {relay.bytes[way]} bytes travelled: that is not compressed"
    if not wait_idle(server):
        outcomes["cancel"] = "failed: the server still holds requests of a client that has gone"
    return {call: outcomes[call] for call in CALLS}
