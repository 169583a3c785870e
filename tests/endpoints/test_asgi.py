"""Cold HTTP calls: what the application is told, and that each call ends whatever the application does."""

import asyncio
import json

import pytest

from batchmill.endpoints import asgi, rest
from batchmill.endpoints.catalog import Catalog

from .fakes import Call
from .statuses import MODELS


def handled(application, call):
    asyncio.run(asgi.handle(application, call))
    assert call.trailers is not None
    return call


@pytest.mark.parametrize(("target", "path", "query"), [
    ("/v2", "/v2", b""), ("/v2/models/a%20b?x=%20&y", "/v2/models/a b", b"x=%20&y"), ("/%C3%A9", "/\u00e9", b""), ("/a?b?c", "/a", b"b?c"),
])
def test_the_scope_has_the_path_decoded_and_the_query_not(target, path, query):
    scope = asgi.scope_of(Call(target, method="POST", headers=[(b"a", b"b")]))
    assert (scope["path"], scope["query_string"], scope["method"], scope["headers"]) == (path, query, "POST", [(b"a", b"b")])


@pytest.mark.parametrize(("peer", "wanted"), [
    ("ipv4:1.2.3.4:5", ("1.2.3.4", 5)), ("ipv6:[::1]:5", ("::1", 5)), ("unix:", None), ("unix:/tmp/x:5", None), ("", None), ("ipv4:1.2.3.4", None),
])
def test_a_peer_becomes_host_and_port(peer, wanted):
    assert asgi.client_of(peer) == wanted


def test_a_body_comes_whole_and_an_answer_may_leave_in_pieces():
    async def echo(scope, receive, send):
        first, second = await receive(), await receive()
        await send({"type": "http.response.start", "status": 201, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": first["body"], "more_body": True})
        await send({"type": "http.response.body", "body": second["type"].encode()})

    call = handled(echo, Call(body=b"hello"))
    assert (call.status, call.answer_headers, call.parts) == (201, {b"a": b"b"}, [b"hello", b"http.disconnect"])


async def fails(scope, receive, send):
    raise KeyError("our inside")


async def fails_late(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise KeyError("our inside")


@pytest.mark.parametrize(("application", "status", "body"), [(fails, 500, b'{"error":"internal error"}'), (fails_late, 200, b"")])
def test_an_error_of_the_application_tells_nothing_of_our_inside(application, status, body):
    call = handled(application, Call())
    assert (call.status, call.body_sent) == (status, body)


class Metrics:
    def render(self):
        return b"a 1\n"


REST = rest.application(Catalog(lambda: MODELS), Metrics(), None)


@pytest.mark.parametrize(("method", "target", "body", "status", "wanted"), [
    ("GET", "/v2", b"", 200, '"name":"batchmill"'),
    ("GET", "/v2/models", b"", 200, '["alone","m","wrong"]'),
    ("GET", "/v2/models/m", b"", 200, '"versions":["1","2"]'),
    ("GET", "/v2/models/m/versions/1", b"", 200, '"name":"m"'),
    ("GET", "/v2/models/m/config", b"", 200, '"max_batch_size":64'),
    ("GET", "/v2/models/m/versions/2/stats", b"", 200, '"version":"2"'),
    ("GET", "/v2/models/stats", b"", 200, '"inference_count":5'),
    ("POST", "/v2/repository/index", b"", 200, '"truncated"'),
    ("POST", "/v2/repository/index", b'{"ready": true}', 200, '"READY"'),
    ("POST", "/v2/repository/index", b"[]", 400, "no JSON object"),
    ("POST", "/v2/repository/index", b"[" * 100_000, 400, "no JSON object"),
    ("GET", "/metrics", b"", 200, "a 1"),
    ("GET", "/v2/models/nobody", b"", 404, "unknown model 'nobody'"),
    ("GET", "/v2/models/m/versions/3", b"", 404, "no version '3'"),
    ("GET", "/nowhere", b"", 404, "Not Found"),
    *((method, path, b"", 501, "not offered") for method, path in (
        ("GET", "/v2/systemsharedmemory/status"), ("POST", "/v2/cudasharedmemory/region/r/register"), ("GET", "/v2/logging"), ("POST", "/v2/trace/setting"),
        ("POST", "/v2/models/m/trace/setting"), ("POST", "/v2/models/m/generate"), ("POST", "/v2/models/m/versions/1/generate_stream"))),
    ("GET", "/v2/systemsharedmemorystatus", b"", 404, "Not Found"), ("POST", "/v2/models/m/n/generate", b"", 404, "Not Found"),
    ("DELETE", "/v2", b"", 405, "Method Not Allowed; it takes "),
    ("GET", "/v2/models/m/infer", b"", 405, "Method Not Allowed; it takes POST"),
    ("GET", "/v1/models/m:predict", b"", 405, "Method Not Allowed; it takes POST"),
    ("POST", "/v2/health/live", b"", 405, "Method Not Allowed; it takes GET"), ("GET", "/v2/health/foo", b"", 404, "Not Found; /docs has what there is"),
])
def test_rest_answers(method, target, body, status, wanted):
    call = handled(REST, Call(target, method=method, body=body))
    assert (call.status, wanted in call.body_sent.decode()) == (status, True), call.body_sent
    if status != 200:
        assert list(json.loads(call.body_sent)) == ["error"]


def test_a_large_answer_is_written_in_parts():
    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(range(256)) * 1000})

    call = handled(application, Call())
    assert call.body_sent == bytes(range(256)) * 1000
    assert max(map(len, call.parts)) <= asgi.PART_BYTES
