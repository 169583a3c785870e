"""What calls change, for those who may: loading and unloading (the v2 repository extension), and how a model is served."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from batchmill.audit import Audit
from batchmill.chain import Event
from batchmill.endpoints.asgi import client_of
from batchmill.endpoints.uploads import Uploads
from batchmill.errors import BatchmillError, Forbidden, InvalidRequest, Unauthenticated, Unsupported, UploadsOff
from batchmill.recorder import Recorder
from batchmill.registry.tuning import Change, Set
from batchmill.store import Store

_FORWARDED = ("origin", "forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


@dataclass(frozen=True, slots=True)
class Guard:
    """Who may change something: with a key, those who send it; without one, callers on this machine, and no browser or proxy among them.

    key: sha256 of the key. open: everybody.
    """

    key: bytes | None = None
    open: bool = False

    @property
    def asks_for_key(self) -> bool:
        return self.key is not None and not self.open

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

    guard and allow_upload may be replaced while it is used. recorder: gets an entry of each call that changes something, or would.
    """

    start_load: Callable[[str], Future[None]]
    start_unload: Callable[[str], Future[None]]
    start_tune: Callable[[str, Change], Future[None]]
    guard: Guard
    uploads: Uploads
    offered: bool = True
    allow_upload: bool = False
    recorder: Recorder = field(default_factory=lambda: Recorder(Audit(Store())))

    async def load(self, name: str, parameters: Mapping[str, object], peer: str, headers: Mapping[str, str]) -> None:
        """Returns when the model serves. parameters: the call's, by name. Raises BatchmillError."""
        action = "model.upload" if parameters else "model.load"
        event = self.check(action, name, peer, headers)
        given = {"parameters": sorted(one[:200] for one in parameters)[:50]} if parameters else None
        await self.recorder.call(event, self._load(name, parameters), lambda: {"after": given})

    async def _load(self, name: str, parameters: Mapping[str, object]) -> None:
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
        event = self.check("model.unload", name, peer, headers)

        async def unload() -> None:
            await asyncio.wrap_future(self.start_unload(name))

        await self.recorder.call(event, unload())

    async def at_rest(self, name: str) -> None:
        """Returns when what was asked of the model before is in force."""
        await asyncio.wrap_future(self.start_tune(name, lambda called: called))

    async def tune(self, name: str, change: Callable[[], Change], peer: str, headers: Mapping[str, str]) -> None:
        """Returns when it is in force. Nothing is loaded for it: always offered. change: makes it, or raises BatchmillError."""
        event, sets = self.admit("tuning.set", name, peer, headers), ({}, {})  # type: tuple[Event, tuple[Set, Set]]

        async def tune() -> None:
            wanted = change()

            def noted(before: Set) -> Set:
                nonlocal sets
                sets = before, wanted(before)
                return sets[1]

            await asyncio.wrap_future(self.start_tune(name, noted))

        await self.recorder.call(event, tune(), lambda: differing(*sets))

    def check(self, action: str, name: str, peer: str, headers: Mapping[str, str]) -> Event:
        """Whether this caller may load and unload, and whether there is anything to be done at all. As admit()."""
        event = self.admit(action, name, peer, headers)
        if not self.offered:
            error = Unsupported("--model-control none: this server serves what was there at its start")
            self.recorder.refused(event, error)
            raise error
        return event

    def admit(self, action: str, name: str, peer: str, headers: Mapping[str, str]) -> Event:
        """The audit entry of what this caller is about to do to a model. Raises Unauthenticated or Forbidden, and records that."""
        event = Event(action, name, actor=peer or "unknown")
        try:
            self.guard.check(peer, headers)
        except BatchmillError as error:
            self.recorder.refused(event, error)
            raise
        return replace(event, key=self.guard.asks_for_key)


def differing(before: Set, after: Set) -> dict[str, Any]:
    """What calls had set and have set, of the keys that changed; as fields of an entry."""
    keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    return {"before": {key: before.get(key) for key in keys}, "after": {key: after.get(key) for key in keys}}
