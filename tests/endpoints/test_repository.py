"""Who may load and unload."""

import asyncio
import hashlib
from concurrent.futures import Future

import pytest

from batchmill.endpoints.repository import Guard, Repository
from batchmill.errors import Forbidden, InvalidRequest, ModelError, Unauthenticated, Unsupported, UploadsOff

KEYED = Guard(hashlib.sha256(b"secret").digest())
HERE = "ipv4:127.0.0.1:5"


@pytest.mark.parametrize(("guard", "peer", "headers", "error"), [
    (Guard(), HERE, {"host": "localhost:8000"}, None),
    (Guard(), "ipv6:[::1]:5", {"host": "[::1]:8000"}, None),
    (Guard(), "unix:", {}, None),
    (Guard(), HERE, {"host": "127.0.0.1"}, None),
    (Guard(), "ipv4:10.0.0.1:5", {"host": "localhost"}, Forbidden),
    (Guard(), "", {"host": "localhost"}, Forbidden),
    (Guard(), HERE, {"host": "evil.example:8000"}, Forbidden),
    (Guard(), HERE, {"host": "localhost.evil.example"}, Forbidden),
    (Guard(), HERE, {"host": "localhost", "origin": "http://evil.example"}, Forbidden),
    (Guard(), HERE, {"host": "localhost", "x-forwarded-for": "1.2.3.4"}, Forbidden),
    (Guard(open=True), "ipv4:10.0.0.1:5", {"host": "evil.example"}, None),
    (KEYED, "ipv4:10.0.0.1:5", {"authorization": "Bearer secret"}, None),
    (KEYED, HERE, {"host": "localhost"}, Unauthenticated),
    (KEYED, HERE, {"authorization": "Bearer secret2"}, Unauthenticated),
    (KEYED, HERE, {"authorization": "Basic secret"}, Unauthenticated),
    (KEYED, HERE, {"authorization": "Bearer \u00e9"}, Unauthenticated),
])
def test_a_caller_is_let_through_or_told_why_not(guard, peer, headers, error):
    if error is None:
        return guard.check(peer, headers)
    with pytest.raises(error, match="admin-key-file"):
        guard.check(peer, headers)


def done(error=None):
    future = Future()
    future.set_exception(error) if error else future.set_result(None)
    return future


def test_a_load_that_fails_says_why():
    asked = []
    repository = Repository(lambda name: asked.append(name) or done(ModelError("cut")), lambda name: done(), None, Guard(), None)
    with pytest.raises(ModelError, match="cut"):
        asyncio.run(repository.load("m", {}, HERE, {}))
    with pytest.raises(Forbidden):
        asyncio.run(repository.load("m", {}, "ipv4:10.0.0.1:5", {}))
    asyncio.run(repository.unload("m", HERE, {}))
    assert asked == ["m"]


@pytest.mark.parametrize(("peer", "options", "parameters", "error"), [
    (HERE, {}, {"file:1/model.onnx": b"x", "config": "{}"}, UploadsOff),
    (HERE, {}, {"config": "{}"}, UploadsOff),
    (HERE, {"allow_upload": True}, {"unknown": True}, InvalidRequest),
    (HERE, {"allow_upload": True, "offered": False}, {"config": "{}"}, Unsupported),
    ("ipv4:10.0.0.1:5", {"allow_upload": True}, {"config": "{}"}, Forbidden),
])
def test_an_upload_is_refused_where_none_is_taken(peer, options, parameters, error):
    repository = Repository(lambda name: done(), lambda name: done(), None, Guard(), None, **options)
    with pytest.raises(error, match="allow-upload" if error is UploadsOff else None):
        asyncio.run(repository.load("m", parameters, peer, {}))
