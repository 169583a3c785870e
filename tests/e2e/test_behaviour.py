"""What users count on: one bad request harms nobody, overload is refused, the end is orderly."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from . import models
from .server import ServerProcess


def post(server, model, inputs):
    return server.call(f"/v2/models/{model}/infer", "POST", {"inputs": inputs})


def tensor(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


@pytest.mark.parametrize(("inputs", "wanted"), [
    ([], "input"),
    ([tensor("z", "FP32", [1, 8], [0] * 8)], "missing"),
    ([tensor("x", "FP64", [1, 8], [0] * 8)], "datatype FP64 given, FP32 wanted"),
    ([tensor("x", "FP32", [1, 7], [0] * 7)], "[1,7] given, [-1,8] wanted"),
    ([tensor("x", "FP32", [8], [0] * 8)], "wanted"),
    ([tensor("x", "FP32", [2, 8], [0] * 8)], "x"),
    ([tensor("x", "FP32", [-1, 8], [0] * 8)], "shape"),
    ([tensor("x", "FP32", [1 << 62, 4], [0] * 8)], "x"),
    ([tensor("x", "FP32", [1, 8], ["a"] * 8)], "x"),
    ([tensor("x", "FP32", [1, 8], [0] * 8), tensor("x2", "FP32", [1, 8], [0] * 8)], "no such input"),
])
def test_a_wrong_request_is_told_what_is_wrong(server, inputs, wanted):
    status, answer = post(server, "linear", inputs)
    assert status == 400
    assert wanted in answer["error"]


def test_unknown_models_versions_and_methods(server):
    assert post(server, "nobody", [tensor("x", "FP32", [1], [0])])[0] == 404
    assert server.get("/v2/models/nobody")[0] == 404
    assert post(server, "nobody", []) == (404, {"error": 'Request for unknown model "nobody"'})
    assert post(server, "fixed/versions/9", []) == (404, {"error": 'model "fixed" has no version "9"'})
    assert post(server, "fixed/labels/none", [tensor("x", "FP32", [1], [0])]) == (404, {"error": 'model "fixed" has no label "none"'})
    assert server.get("/v2/models/linear/infer")[0] == 405
    assert server.get("/nowhere")[0] == 404
    assert json.loads(server.get("/nowhere")[1])["error"]


def test_a_poisoned_row_harms_only_its_own_request(server):
    good, bad = [tensor("i", "INT64", [1], [3])], [tensor("i", "INT64", [1], [99])]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: (n, post(server, "lookup", bad if n % 16 == 0 else good)), range(320)))
    for number, (status, answer) in answers:
        if number % 16 == 0:
            assert status == 400, answer
        else:
            assert (status, answer["outputs"][0]["data"]) == (200, [3.0])


def test_a_division_without_an_answer_ends_its_request_and_not_the_server(tmp_path):
    """-2^31 / -1: x86 answers with a signal that ends a process."""
    models.divide(tmp_path)
    with ServerProcess(tmp_path) as server, ThreadPoolExecutor(16) as pool:

        def ask(number):
            a, b = (-(2**31), -1) if number % 8 == 0 else (number, 2)
            return number, post(server, "divide", [tensor("a", "INT32", [1, 1], [a]), tensor("b", "INT32", [1, 1], [b])])

        for number, (status, answer) in pool.map(ask, range(320)):
            if number % 8 == 0:
                assert (status, "divides an integer" in answer["error"]) == (400, True)
            else:
                assert (status, answer["outputs"][0]["data"]) == (200, [number // 2])
        assert server.process.poll() is None


def test_scalars_and_fixed_shapes_are_served_unbatched(server):
    assert post(server, "scalar", [tensor("x", "FP32", [], [2.5])])[1]["outputs"][0]["data"] == [2.5]
    assert post(server, "fixed", [tensor("x", "INT32", [2, 2], [[1, 2], [3, 4]])])[1]["outputs"][0]["data"] == [1, 2, 3, 4]


def test_concurrent_rows_share_batches_and_stay_apart(server):
    def ask(number):
        row = np.full((1, 8), number, np.float32)
        return post(server, "linear", [tensor("x", "FP32", [1, 8], row.ravel().tolist())])[1]["outputs"][0]["data"]

    weights = np.arange(32, dtype=np.float32).reshape(8, 4) / 10 * 3
    with ThreadPoolExecutor(16) as pool:
        for number, answer in enumerate(pool.map(ask, range(300))):
            assert np.allclose(answer, np.full(8, number, np.float32) @ weights, rtol=1e-4)


def test_metrics_add_up(server):
    def successes():
        lines = server.get("/metrics")[1].decode().splitlines()
        found = [line for line in lines if line.startswith("batchmill_requests_total") and 'model="fixed"' in line and "ok" in line.lower()]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    before = successes()
    for _ in range(20):
        assert post(server, "fixed", [tensor("x", "INT32", [2, 2], [1, 2, 3, 4])])[0] == 200
    assert successes() - before == 20
    stats = json.loads(server.get("/v2/models/fixed/stats")[1])["model_stats"][0]
    assert int(stats["inference_stats"]["success"]["count"]) >= 20


def test_one_connection_gets_its_answers_in_order_hot_and_cold(server):
    body = json.dumps({"id": "7", "inputs": [tensor("x", "INT32", [2, 2], [1, 2, 3, 4])]}).encode()
    infer = b"POST /v2/models/fixed/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    cold = b"GET /v2/models/fixed HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(infer + cold + infer + last)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 200") == 4
    assert answer.index(b'"outputs"') < answer.index(b'"platform"') < answer.rindex(b'"id":"7"')


@pytest.mark.parametrize("target", ["/v2/health/live", "/v2"], ids=["native", "cold"])
def test_who_says_that_nothing_more_comes_gets_the_answer_and_the_end(server, target):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client, client.makefile("rb") as file:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.shutdown(socket.SHUT_WR)
        assert file.read().startswith(b"HTTP/1.1 200 OK\r\n")    # up to the end, not until the connection idles out


def slow_request(server):
    zeros = np.zeros((1, 256, 256), np.float32)
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 256, 256], "parameters": {"binary_data_size": zeros.nbytes}}],
                       "parameters": {"binary_data_output": True}}).encode()
    request = urllib.request.Request(f"{server.url}/v2/models/slow/infer", head + zeros.tobytes(),
                                     {"Inference-Header-Content-Length": str(len(head)), "content-type": "application/octet-stream"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return len(answer.read())


def test_sigterm_answers_what_was_accepted_and_exits_0(tmp_path):
    models.slow(tmp_path / "registry", 2000)
    (tmp_path / "registry" / "slow" / "model.yaml").write_text("batching: {mode: 'off'}\n")  # the proof would take longer than the test
    with ServerProcess(tmp_path / "registry") as server, ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(slow_request, server) for _ in range(3)]
        time.sleep(0.3)
        assert server.stop(signal.SIGTERM, 30) == 0
        assert all(future.result() > 256 * 256 * 4 for future in waiting)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_flips_readiness_at_once_and_serves_in_the_lame_duck_time(tmp_path, number):
    models.linear(tmp_path / "registry")
    with ServerProcess(tmp_path / "registry", "--lame-duck-secs", "1") as server:
        server.process.send_signal(number)
        time.sleep(0.1)
        assert server.get("/v2/health/ready")[0] == 503
        assert server.get("/v2/health/live")[0] == 200
        assert post(server, "linear", [tensor("x", "FP32", [1, 8], [0] * 8)])[0] == 200
        assert server.process.wait(20) == 0


def test_a_full_queue_is_refused_at_once_and_the_rest_is_answered(tmp_path):
    registry = tmp_path / "registry"
    models.slow(registry, 200)
    (registry / "slow" / "model.yaml").write_text("batching: {max_batch_size: 1}\nqueue: {max_rows: 2}\n")
    with ServerProcess(registry) as server:
        codes = []

        def ask():
            try:
                slow_request(server)
                codes.append(200)
            except urllib.error.HTTPError as error:
                codes.append(error.code)
                assert error.headers["Retry-After"]

        threads = [threading.Thread(target=ask) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(codes) == {200, 429}
    assert codes.count(200) >= 3


def test_a_body_over_the_limit_is_refused_early(tmp_path):
    models.linear(tmp_path / "registry")
    with ServerProcess(tmp_path / "registry", "--max-body-mib", "1") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(b"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n")
            assert client.recv(65536).startswith(b"HTTP/1.1 413")
        assert post(server, "linear", [tensor("x", "FP32", [1, 8], [0] * 8)])[0] == 200


def test_one_file_is_served_without_a_directory(tmp_path):
    path = models.linear(tmp_path / "registry")
    with ServerProcess(path) as server:
        name = json.loads(server.get("/v2/models")[1])["models"][0]
        name = name["name"] if isinstance(name, dict) else name
        assert post(server, name, [tensor("x", "FP32", [1, 8], [0] * 8)])[0] == 200


def test_the_last_seconds_are_told_by_stage(server):
    def window():
        told = json.loads(server.get("/v2/models/fixed/latency")[1])
        assert (told["model_name"], [version["version"] for version in told["versions"]]) == ("fixed", ["1"])
        return told["versions"][0]["windows"]["10s"]

    before = window()["ok"]
    for _ in range(20):
        assert post(server, "fixed", [tensor("x", "INT32", [2, 2], [1, 2, 3, 4])])[0] == 200
    assert post(server, "fixed", [tensor("x", "INT32", [2], [1, 2])])[0] == 400
    found = window()
    assert found["ok"] - before >= 20 - before  # what was asked before may have left the window meanwhile
    assert found["failed"] >= 1
    assert {"decode", "queue", "assembly", "compute", "encode", "total", "total_rest"} <= set(found["stages"])
    total = found["stages"]["total"]
    assert total["count"] >= 20
    assert 0 < total["p50_us"] <= total["p90_us"] <= total["p99_us"] <= total["p99.9_us"] < 10**7
    assert found["seconds"] < 13
    assert server.get("/v2/models/fixed/versions/9/latency")[0] == 404
