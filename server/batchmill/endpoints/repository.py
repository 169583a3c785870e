"""What calls change, for those who may: loading and unloading (the v2 repository extension), and how a model is served."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from batchmill.endpoints.asgi import client_of
from batchmill.endpoints.uploads import Uploads
from batchmill.errors import Forbidden, InvalidRequest, Unauthenticated, Unsupported, UploadsOff
from batchmill.registry.tuning import Change

_FORWARDED = ("origin", "forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may change something: with a key, those who send it; without one, callers on this machine, and no browser or proxy among them.

    key: sha256 of the key. open: everybody.
    """

    key: bytes | None = None
    open: bool = False

    def check(self, peer: str, headers: Mapping[str, str]) -> None:
        """headers: names in lower case. Raises Unauthenticated or Forbidden."""
        if self.open:
            return
        if self.key is not None:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(hashlib.sha256(given.strip().encode()).digest(), self.key):
                raise Unauthenticated("the key of --admin-key-file is wanted, as `Authorization: Bearer KEY`")
        elif not is_local(peer) or not is_local_host(headers.get("host", "localhost")) or any(name in headers for name in _FORWARDED):
            raise Forbidden("only callers on this machine may do this; --admin-key-file opens it to those who have a key, --admin-open to everybody")


def is_local(peer: str) -> bool:
    client = client_of(peer)
    return peer.startswith("unix:") or (client is not None and ipaddress.ip_address(client[0]).is_loopback)


def is_local_host(host: str) -> bool:
    """Whether a Host header names this machine: any other name is that of a page whose name server points here (DNS rebinding)."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(slots=True)
class Repository:
    """What the calls do. start_load, start_unload, start_tune: the registry's, by model name. offered: loads and unloads are.

    guard and allow_upload may be replaced while it is used.
    """

    start_load: Callable[[str], Future[None]]
    start_unload: Callable[[str], Future[None]]
    start_tune: Callable[[str, Change], Future[None]]
    guard: Guard
    uploads: Uploads
    offered: bool = True
    allow_upload: bool = False

    async def load(self, name: str, parameters: Mapping[str, object], peer: str, headers: Mapping[str, str]) -> None:
        """Returns when the model serves. parameters: the call's, by name. Raises BatchmillError."""
        self.check(peer, headers)
        if not parameters:
            return await asyncio.wrap_future(self.start_load(name))
        for parameter in parameters:
            if parameter != "config" and not parameter.startswith("file:"):
                raise InvalidRequest(f"parameter {parameter[:200]!r}: 'config' or 'file:<version>/<name>' wanted, or none")
        if not self.allow_upload:
            raise UploadsOff(f"parameter {next(iter(parameters))[:200]!r}: uploads are off; --allow-upload turns them on")
        await self.uploads.load(name, parameters)

    async def unload(self, name: str, peer: str, headers: Mapping[str, str]) -> None:
        """Returns when the model serves no more."""
        self.check(peer, headers)
        await asyncio.wrap_future(self.start_unload(name))

    async def tune(self, name: str, change: Change) -> None:
        """Returns when it is in force. Who changes something has been checked. Nothing is loaded for it: always offered."""
        await asyncio.wrap_future(self.start_tune(name, change))

    def check(self, peer: str, headers: Mapping[str, str]) -> None:
        """Whether this caller may load and unload, and whether there is anything to be done at all."""
        self.guard.check(peer, headers)
        if not self.offered:
            raise Unsupported("--model-control none: this server serves what was there at its start")
