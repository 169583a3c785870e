"""A version runs what another has answered, in idle time: callers get nothing of it, and each difference is found."""

from __future__ import annotations

import gzip
import json
import shutil
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from onnx import helper, numpy_helper
from tritonclient.grpc import service_pb2, service_pb2_grpc

from . import models, wire
from .server import ServerProcess
from .test_behaviour import tensor
from .test_hot import ROW, Hammer, wait_for
from .test_routes import command, version_of, versions_of

BASE = "/admin/models/linear"
PATH = "/v2/models/linear/infer"
SUMS = np.arange(32, dtype=np.float32).reshape(8, 4).sum(axis=0) / 10
BODY = json.dumps({"inputs": ROW}).encode()


def picky(registry, version):
    """y = x @ W, but a run with x[0] of 7 or more fails."""
    weights = (np.arange(32, dtype=np.float32).reshape(8, 4) / 10).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.ones(7, np.float32), "table"), numpy_helper.from_array(np.array([0], np.int64), "first")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y0"]), helper.make_node("Gather", ["x", "first"], ["x0"], axis=1), helper.make_node("Cast", ["x0"], ["at"], to=7),
             helper.make_node("Gather", ["table", "at"], ["one"]), helper.make_node("Mul", ["y0", "one"], ["y"])]
    return models.write(registry, "linear", nodes, [models.value("x", "FP32", ["n", 8])], [models.value("y", "FP32", ["n", 4])], constants, version)


@pytest.fixture
def registry(tmp_path):
    return models.candidates(tmp_path / "registry")


@pytest.fixture
def server(registry):
    with ServerProcess(registry) as running:
        serve_first(running)
        yield running


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """For calls that are refused: one server for all of them."""
    with ServerProcess(models.candidates(tmp_path_factory.mktemp("unchanged") / "registry")) as running:
        serve_first(running)
        yield running


def serve_first(server):
    assert server.call(f"{BASE}/promote", "POST", {"version": "1"})[0] == 200
    wait_for(lambda: version_of(server) == "1")


def set_shadow(server, version="2", **settings):
    status, told = server.call(f"{BASE}/shadow", "PUT", {"version": version, **settings})
    assert status == 200, told
    return told


def told(server, version="2"):
    return next(one for one in server.call(f"{BASE}/shadow")[1]["shadows"] if one["version"] == version)


def settled(server, version="2", least=0):
    """What is told of it once so many requests have been mirrored and nothing waits any more."""

    def look():
        figures = told(server, version)["figures"]
        return figures["mirrored"] >= least and figures["mirrored"] == sum(figures[key] for key in ("compared", "errors", "shed", "expired", "dropped"))

    wait_for(look)
    return told(server, version)


def ask_by_http(server, count, body=BODY, *headers):
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n" + "".join(f"{line}\r\n" for line in headers)
    with wire.connect(server.port) as connection, connection.makefile("rb") as file:
        for _ in range(count):
            connection.sendall(head.encode() + b"\r\n" + body)
            status, answer = wire.read_answer(file)
            assert status == 200, answer


def ask_by_grpc(server, count, *, typed=False, streamed=False):
    with grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="linear")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 8])
        if typed:
            request.inputs[0].contents.fp32_contents.extend([1.0] * 8)
            request.parameters["binary_data_output"].bool_param = False
        else:
            request.raw_input_contents.append(np.ones(8, np.float32).tobytes())
        if streamed:
            assert len(list(stub.ModelStreamInfer(iter([request] * count)))) == count
        else:
            for _ in range(count):
                stub.ModelInfer(request)


def binary_body():
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8], "parameters": {"binary_data_size": 32}}],
                       "parameters": {"binary_data_output": True}}).encode()
    return head + np.ones(8, np.float32).tobytes(), f"Inference-Header-Content-Length: {len(head)}"


def test_what_comes_by_every_protocol_is_compared_and_equal_models_agree(server):
    set_shadow(server)
    binary, length = binary_body()
    many = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [600, 8], "data": [1.0] * 4800}]}).encode()
    packed = gzip.compress(many)
    ways = [
        lambda: ask_by_http(server, 10), lambda: ask_by_http(server, 10, binary, length), lambda: ask_by_grpc(server, 10),
        lambda: ask_by_grpc(server, 10, typed=True), lambda: ask_by_grpc(server, 10, streamed=True),
        lambda: ask_by_http(server, 10, many), lambda: ask_by_http(server, 10, many, "Accept-Encoding: gzip"),
        lambda: ask_by_http(server, 10, packed, "Content-Encoding: gzip"),
        lambda: ask_by_http(server, 10, np.ones(8, np.float32).tobytes(), "Inference-Header-Content-Length: 0"),
    ]  # fmt: skip
    before = settled(server)["figures"]["mirrored"]
    for number, way in enumerate(ways, 1):
        way()
        figures = settled(server, least=before + 10 * number)["figures"]
        assert (figures["mirrored"], figures["errors"], figures["agreeing"]) == (before + 10 * number, 0, figures["compared"]), number
        assert figures["compared"] > figures["shed"]
    one = told(server)
    assert one["agreement"]["share"] == 1
    assert one["outputs"]["y"]["max_abs"] == 0
    assert server.call(f"{BASE}/shadow/worst")[1]["worst"] == {"2": []}


def test_a_drifted_version_is_found_and_how_far_it_is_off(server):
    set_shadow(server, "3")
    assert set(versions_of(server, [BODY] * 300)) == {"1"}, "callers get nothing of it"
    one = settled(server, "3", least=300)
    assert one["figures"]["compared"] > 0 == one["figures"]["agreeing"]
    assert one["agreement"]["interval"][1] < 0.2
    assert one["outputs"]["y"]["max_abs"] == pytest.approx(SUMS.max() / 2, rel=1e-5)
    assert one["outputs"]["y"]["max_rel"] == pytest.approx(1 / 3, rel=1e-5)
    assert one["outputs"]["y"]["argmax"]["share"] == 1
    worst = server.call(f"{BASE}/shadow/worst")[1]["worst"]["3"]
    assert len(worst) == 8
    set_shadow(server, "3", agree_by="argmax")
    list(versions_of(server, [BODY] * 100))
    one = settled(server, "3", least=100)
    assert one["figures"]["agreeing"] == one["figures"]["compared"], "and its argmax is the same"


def test_a_version_that_fails_on_some_inputs_has_errors_and_harms_nobody(registry):
    shutil.rmtree(registry / "linear" / "2")
    picky(registry, "2")
    with ServerProcess(registry) as server:
        serve_first(server)
        set_shadow(server)
        bad = json.dumps({"inputs": [tensor("x", "FP32", [1, 8], [9.0] * 8)]}).encode()
        assert set(versions_of(server, ([BODY] * 9 + [bad]) * 30)) == {"1"}
        one = settled(server, least=300)
        assert 0 < one["figures"]["errors"] <= 30
        assert one["figures"]["agreeing"] == one["figures"]["compared"] > 0
        assert one["last_error"]


def test_shares_and_settings_outlive_a_restart_and_figures_begin_anew(registry):
    with ServerProcess(registry) as server:
        serve_first(server)
        set_shadow(server, share=0.5, max_cpu=0.3, rtol=0.01)
        list(versions_of(server, [BODY] * 100))
        settled(server, least=1)
    with ServerProcess(registry) as server:
        wait_for(lambda: version_of(server) == "1")
        one = told(server)
        assert (one["share"], one["max_cpu"], one["rtol"], one["state"]) == (0.5, 0.3, 0.01, "mirrors")
        list(versions_of(server, [BODY] * 100))
        assert 0 < settled(server, least=1)["figures"]["mirrored"] < 100


def test_a_shadow_is_pinned_and_let_go_when_it_stops(registry):
    (registry / "linear" / "model.yaml").write_text("versions: {policy: [1]}\n")
    with ServerProcess(registry) as server:
        wait_for(lambda: version_of(server) == "1")
        one = set_shadow(server)["shadows"][0]
        wait_for(lambda: told(server)["state"] == "mirrors")
        list(versions_of(server, [BODY] * 50))
        settled(server, least=1)
        assert one["version"] == "2"
        assert server.call(f"{BASE}/shadow", "DELETE")[1]["shadows"] == []
        wait_for(lambda: server.get("/v2/models/linear/versions/2/ready")[0] != 200)


def test_shadows_start_stop_and_their_versions_change_under_load_and_no_answer_suffers(server, registry, tmp_path):
    with Hammer(server) as hammer:
        for round in range(6):
            set_shadow(server, "2", share=1.0)
            set_shadow(server, "3", share=0.5)
            time.sleep(0.15)
            if round % 2:
                models.linear(tmp_path / "made", "linear", "3", 3.0 + round)
                shutil.copy(tmp_path / "made" / "linear" / "3" / "model.onnx", registry / "linear" / "3" / "new")
                (registry / "linear" / "3" / "new").rename(registry / "linear" / "3" / "model.onnx")
            server.call(f"{BASE}/shadow?version=2", "DELETE")
            time.sleep(0.05)
        server.call(f"{BASE}/shadow", "DELETE")
        set_shadow(server, "2")
        assert server.call("/v2/repository/models/linear/unload", "POST", {})[0] == 200
        assert server.call("/v2/repository/models/linear/load", "POST", {})[0] == 200
        wait_for(lambda: version_of(server) == "1")
    assert [failure for failure in hammer.failures if failure[0] not in (404, 503)][:3] == []
    assert set(hammer.versions) == {"1"}


def resident_kb(server):
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


def test_memory_stays_flat_over_20000_mirrored_requests(server):
    set_shadow(server, "3")
    with wire.connect(server.port) as connection, connection.makefile("rb") as file:
        def ask(count):
            for _ in range(count // 10):
                connection.sendall(wire.post(PATH, BODY) * 10)
                assert all(wire.read_answer(file)[0] == 200 for _ in range(10))

        ask(5000)
        before = resident_kb(server)
        ask(20_000)
    one = settled(server, "3", least=25_000)
    assert one["figures"]["pending_bytes"] == 0
    assert resident_kb(server) - before < 10_000, (before, resident_kb(server))
    wait_for(lambda: b"batchmill_pending_bytes 0.0" in server.get("/metrics")[1], 5)


@pytest.mark.alone
def test_under_overload_callers_are_served_as_without_it_and_the_shadow_sheds(registry):
    weights = np.eye(512, dtype=np.float32)
    for version in ("1", "2"):
        nodes = [helper.make_node("MatMul", ["x" if i == 0 else f"t{i}", "w"], [f"t{i + 1}" if i < 39 else "y"]) for i in range(40)]
        models.write(registry, "heavy", nodes, [models.value("x", "FP32", ["n", 512])], [models.value("y", "FP32", ["n", 512])],
                     [numpy_helper.from_array(weights, "w")], version)
    (registry / "heavy" / "model.yaml").write_text("versions: {policy: all}\nqueue: {max_rows: 8}\nbatching: {max_batch_size: 2}\n")
    body = json.dumps({"inputs": [tensor("x", "FP32", [1, 512], [1.0] * 512)]}).encode()

    def flood(server, seconds=2.0):
        counts, end = {200: 0, 429: 0}, time.monotonic() + seconds

        def ask():
            with wire.connect(server.port) as connection, connection.makefile("rb") as file:
                while time.monotonic() < end:
                    connection.sendall(wire.post("/v2/models/heavy/infer", body) * 8)
                    for _ in range(8):
                        counts[wire.read_answer(file)[0]] += 1

        callers = [threading.Thread(target=ask) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        return counts

    with ServerProcess(registry) as server:
        assert server.call("/admin/models/heavy/promote", "POST", {"version": "1"})[0] == 200
        wait_for(lambda: server.get("/v2/models/heavy/versions/1/ready")[0] == 200)
        flood(server, 1)
        without = [flood(server)]
        assert server.call("/admin/models/heavy/shadow", "PUT", {"version": "2"})[0] == 200
        beside = [flood(server)]
        figures = server.call("/admin/models/heavy/shadow")[1]["shadows"][0]["figures"]
        assert server.call("/admin/models/heavy/shadow", "DELETE")[0] == 200
        without.append(flood(server))
        assert server.call("/admin/models/heavy/shadow", "PUT", {"version": "2"})[0] == 200
        beside.append(flood(server))
    assert without[0][429], without
    assert figures["shed"] > 0.9 * figures["mirrored"] > 0, figures
    served = [sum(one[200] for one in some) for some in (without, beside)]
    assert served[1] > 0.85 * served[0], (without, beside)


@pytest.mark.parametrize(("method", "body", "text"), [
    ("PUT", {"version": "9"}, "model linear has no version 9"),
    ("PUT", {"version": "1"}, "version 1 answers the model's requests itself"),
    ("PUT", {"version": "2", "share": 0}, "share"),
    ("PUT", {"version": "2", "shaer": 1}, "shaer"),
    ("PUT", {"version": "2", "agree_by": "luck"}, "agree_by"),
    ("DELETE", None, "this model has no shadow"),
])
def test_what_is_wrong_is_told_and_changes_nothing(unchanged, method, body, text):
    status, answer = unchanged.call(f"{BASE}/shadow", method, body)
    assert (status, text in answer["error"]) == (400, True), answer
    assert unchanged.call(f"{BASE}/shadow")[1]["shadows"] == []


def test_the_command_starts_shows_saves_and_stops(server, tmp_path):
    assert command(server, "shadow", "linear")[1].strip() == "no version of linear is a shadow"
    assert command(server, "shadow", "linear", "3", "--share", "1.0", "--rtol", "0.01")[0] == 0
    list(versions_of(server, [BODY] * 100))
    settled(server, "3", least=100)
    code, text = command(server, "shadow", "linear")
    assert code == 0
    assert "version 3 is to run 100.00% of the requests" in text
    assert "answers agree:  0.000%" in text
    code, text = command(server, "shadow", "linear", "--worst", "--save", str(tmp_path / "worst"))
    assert (code, len(text.splitlines())) == (0, 9)
    assert np.load(tmp_path / "worst" / "linear-3-1-inputs.npz")["x"].tolist() == [[1.0] * 8]
    np.testing.assert_allclose(np.load(tmp_path / "worst" / "linear-3-1-candidate.npz")["y"], [SUMS * 1.5], rtol=1e-5)
    answers = json.loads(command(server, "infer", "linear", "--input", str(tmp_path / "worst" / "linear-3-1-inputs.npz"), "--json")[1])
    np.testing.assert_allclose(answers["outputs"]["y"], [SUMS], rtol=1e-5)
    assert json.loads(command(server, "shadow", "linear", "--stop", "--json")[1]) == {"model": "linear", "shadows": []}
    for wrong in (["--share", "1"], ["--save", "x"], ["--worst", "--stop"]):
        assert command(server, "shadow", "linear", *wrong)[0] == 2


def test_metrics_and_the_audit_trail_have_it(server):
    set_shadow(server)
    list(versions_of(server, [BODY] * 20))
    settled(server, least=20)
    text = server.get("/metrics")[1].decode()
    for name in ("mirrored_requests", "compared_requests", "agreeing_requests", "errors", "shed_requests"):
        assert f'batchmill_shadow_{name}_total{{candidate="2",model="linear"}}' in text
    entries = server.call("/admin/audit?action=shadow")[1]["entries"]
    assert entries[0]["action"] == "shadow.set"
    assert entries[0]["after"]["shadows"] == {"2": 1.0}
