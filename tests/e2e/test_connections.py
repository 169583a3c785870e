"""How connections end, what a listener serves, and answers that are too large: on sockets, as clients see it."""

from __future__ import annotations

import json
import socket

import pytest
from fuzz.inputs import GOAWAY, PING, PRIORITY, SETTINGS, packed
from onnx import helper

from . import models
from .server import ServerProcess, free_port
from .wire import connect, post, read_answer

MIB = 1 << 20


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(server, its port for scrapers): bodies and answers of at most 1 MiB; zeros answers with as many as are asked for."""
    registry = tmp_path_factory.mktemp("small") / "registry"
    models.write(registry, "zeros", [helper.make_node("ConstantOfShape", ["n"], ["y"])], [models.value("n", "INT64", [1])],
                 [models.value("y", "FP32", ["m"])])
    metrics_port = free_port()
    with ServerProcess(registry, "--max-body-mib", "1", "--max-response-mib", "1", "--metrics-port", str(metrics_port)) as process:
        yield process, metrics_port


def test_who_sends_100_mb_over_the_limit_before_reading_gets_the_whole_413(small):
    with connect(small[0].port) as client, client.makefile("rb") as file:
        client.sendall(post("/v2/models/zeros/infer", bytes(100 * MIB)))
        status, body = read_answer(file)
        assert (status, json.loads(body)["error"]) == (413, "the body is larger than the server's limit")
        assert file.read() == b""


@pytest.mark.parametrize(("request_", "status"), [
    (b"GET /v2 HTTP/1.1\r\nHost: x\r\nX: " + b"y" * MIB, 431), (b"GET /v2 HTTP/1.1\r\nHost : x\r\n\r\n" + b"y" * MIB, 400),
], ids=["head too large", "malformed"])
def test_who_goes_on_sending_after_a_refusal_gets_all_of_it(small, request_, status):
    with connect(small[0].port) as client, client.makefile("rb") as file:
        client.sendall(request_)
        assert read_answer(file)[0] == status
        client.sendall(b"y" * MIB)
        client.shutdown(socket.SHUT_WR)
        assert file.read() == b""


def test_an_inference_that_was_half_closed_is_answered_and_the_connection_ends(small):
    with connect(small[0].port) as client, client.makefile("rb") as file:
        client.sendall(post("/v2/models/zeros/infer", zeros(3)))
        client.shutdown(socket.SHUT_WR)
        status, body = read_answer(file)
        assert (status, json.loads(body)["outputs"][0]["data"]) == (200, [0.0, 0.0, 0.0])
        assert file.read() == b""


def zeros(count, binary=False):
    return json.dumps({"inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [count]}],
                       "parameters": {"binary_data_output": binary}}).encode()


@pytest.mark.parametrize(("count", "binary", "status"), [
    (200_000, False, 200), (300_000, False, 429), (262_000, True, 200), (263_000, True, 429), (30_000_000, True, 429),
])
def test_an_answer_over_the_limit_is_an_error_that_names_both_sizes(small, count, binary, status):
    with connect(small[0].port) as client, client.makefile("rb") as file:
        client.sendall(post("/v2/models/zeros/infer", zeros(count, binary)))
        got, body = read_answer(file)
        assert got == status
        if status == 429:
            assert f"limit of {MIB} bytes" in json.loads(body)["error"]
            assert f"hold {4 * count} bytes" in json.loads(body)["error"]


def test_the_port_for_scrapers_serves_metrics_and_health_and_nothing_else(small):
    with connect(small[1]) as client, client.makefile("rb") as file:
        answers = {}
        for path in ("/metrics", "/livez", "/v2/health/ready", "/v2", "/v2/models/zeros", "/v2/repository/index", "/docs"):
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answers[path] = read_answer(file)[0]
        client.sendall(post("/v2/models/zeros/infer", zeros(3)))
        assert read_answer(file)[0] == 404
    assert [path for path, status in answers.items() if status == 200] == ["/metrics", "/livez", "/v2/health/ready"]
    assert set(answers.values()) == {200, 404}


@pytest.mark.parametrize("last", [packed(GOAWAY, 0, 0, bytes(8)), packed(PRIORITY, 0, 0, bytes(1))], ids=["GOAWAY", "PRIORITY"])
def test_what_an_http2_client_still_sends_at_the_end_does_not_have_the_connection_reset(small, last):
    """It said goodbye itself, or is told to go for a frame of a wrong size: what it had in flight would cost it the last answers."""
    with connect(small[0].port) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + packed(SETTINGS, 0, 0, b"") + last)
        while client.recv(1 << 16):
            pass
        for _ in range(3):  # a socket that is closed answers the first by a reset, and the second fails
            client.sendall(packed(PING, 0, 0, bytes(8)))
