"""Who of a model's versions gets its traffic: shares, keys, rules and labels by call, over REST and gRPC, while versions come and go."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from . import models, wire
from .server import ServerProcess
from .test_hot import ROW, Hammer, index, made, wait_for

BASE = "/admin/models/linear"


def two_versions(registry):
    for version in ("1", "2"):
        models.linear(registry, "linear", version, float(version))
    (registry / "linear" / "model.yaml").write_text("labels: {stable: 1}\n")
    return registry


@pytest.fixture
def registry(tmp_path):
    return two_versions(tmp_path / "registry")


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """For calls that are refused: one server for all of them."""
    with ServerProcess(two_versions(tmp_path_factory.mktemp("unchanged") / "registry")) as running:
        yield running


@pytest.fixture
def server(registry):
    with ServerProcess(registry) as running:
        yield running


def set_route(server, weights, rules=()):
    status, told = server.call(f"{BASE}/route", "PUT", {"weights": weights, "rules": list(rules)})
    assert status == 200, told
    return told


def version_of(server, parameters=None, path="/v2/models/linear/infer", **headers):
    status, answer = server.call(path, "POST", {"inputs": ROW, **({"parameters": parameters} if parameters else {})}, **headers)
    assert status == 200, answer
    return answer["model_version"]


def versions_of(server, bodies):
    """Versions that answered, in order, on one connection."""
    with wire.connect(server.port) as connection, connection.makefile("rb") as file:
        for body in bodies:
            connection.sendall(wire.post("/v2/models/linear/infer", body))
            status, answer = wire.read_answer(file)
            assert status == 200, answer
            yield json.loads(answer)["model_version"]


def test_shares_are_those_of_the_weights_and_told(server):
    set_route(server, {"1": 75, "2": 25})
    count = 4000
    found = Counter(versions_of(server, [json.dumps({"inputs": ROW}).encode()] * count))
    assert sum((found[version] - count * share) ** 2 / (count * share) for version, share in (("1", 0.75), ("2", 0.25))) < 10.83  # chi-square, p = 0.001
    told = server.call(f"{BASE}/route")[1]
    assert {version: (one["configured"], one["requests"]) for version, one in told["shares"].items()} == {"1": (0.75, found["1"]), "2": (0.25, found["2"])}


def test_a_key_keeps_its_version_while_the_weights_stand_and_a_tenth_of_the_keys_moves_with_a_tenth(server):
    keys = [f"user-{number}" for number in range(1000)]
    bodies = [json.dumps({"inputs": ROW, "parameters": {"route_key": key}}).encode() for key in keys]
    set_route(server, {"1": 90, "2": 10})
    before = list(versions_of(server, bodies))
    assert list(versions_of(server, bodies)) == before
    assert 60 < before.count("2") < 140
    set_route(server, {"1": 80, "2": 20})
    after = list(versions_of(server, bodies))
    assert {(one, other) for one, other in zip(before, after, strict=True) if one != other} == {("1", "2")}
    header = {version_of(server, **{"x-route-key": key}) == wanted for key, wanted in zip(keys[:20], after, strict=False)}
    assert header == {True}, "the header says the same as the parameter"
    identity = [json.dumps({"inputs": ROW, "id": key}).encode() for key in keys[:50]]
    assert list(versions_of(server, identity)) == after[:50], "without a key the request's id is the key"


def test_rules_go_before_weights_over_every_protocol(server):
    set_route(server, {"1": 100}, [{"header": "X-Tenant", "equals": "acme", "version": "2"}, {"parameter": "tier", "equals": "gold", "version": "2"}])
    assert [version_of(server), version_of(server, **{"x-tenant": "acme"}), version_of(server, **{"x-tenant": "other"})] == ["1", "2", "1"]
    assert [version_of(server, {"tier": "gold"}), version_of(server, {"tier": "tin"}), version_of(server, {"tier": 5})] == ["2", "1", "1"]
    with grpc.insecure_channel(server.address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="linear", raw_input_contents=[np.ones((1, 8), np.float32).tobytes()])
        request.inputs.add(name="x", datatype="FP32", shape=[1, 8])
        assert stub.ModelInfer(request).model_version == "1"
        assert stub.ModelInfer(request, metadata=[("x-tenant", "acme")]).model_version == "2"
        request.parameters["tier"].string_param = "gold"
        assert stub.ModelInfer(request).model_version == "2"
    body = json.dumps({"inputs": ROW}).encode()
    with wire.Http2(server.port) as connection:
        connection.ask("/v2/models/linear/infer", body, ("x-tenant", "acme"), ("content-type", "application/json"))
        assert json.loads(next(connection.answers()))["model_version"] == "2"


def test_labels_move_at_once_and_what_is_set_goes_before_the_file(server):
    by_label = "/v2/models/linear/labels/stable/infer"
    assert version_of(server, path=by_label) == "1"
    assert server.call(f"{BASE}/labels/stable", "PUT", {"version": "2"})[0] == 200
    assert [version_of(server, path=by_label), version_of(server, {"label": "stable"}), version_of(server, path="/v2/models/linear@stable/infer")] == ["2"] * 3
    assert server.call(f"{BASE}/labels/canary", "PUT", {"version": "1"})[1]["labels"] == {"stable": "2", "canary": "1"}
    # Version 1, which nothing named any more, is being loaded again.
    wait_for(lambda: server.call("/v2/models/linear/labels/canary/infer", "POST", {"inputs": ROW})[0] == 200)
    asked = subprocess.run([sys.executable, "-m", "batchmill", "infer", "linear", "--label", "canary", "--json", "--url", server.url], capture_output=True)
    assert (asked.returncode, json.loads(asked.stdout or "{}").get("version")) == (0, "1"), asked.stderr
    assert server.call(f"{BASE}/labels/stable", "DELETE")[1]["labels"] == {"canary": "1"}
    assert server.call(by_label, "POST", {"inputs": ROW})[0] == 404


def test_a_label_stays_where_it_was_until_the_version_that_it_names_is_ready(server, registry):
    by_label, path = "/v2/models/linear/labels/stable/infer", registry / "linear" / "3" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"no model")
    wait_for(lambda: index(server).get(("linear", "3"), {}).get("state") == "UNAVAILABLE")
    status, told = server.call(f"{BASE}/labels/stable", "PUT", {"version": "3"})
    assert (status, told["labels"], told["stand_ins"]) == (200, {"stable": "3"}, {"stable": "1"})
    listed = subprocess.run([sys.executable, "-m", "batchmill", "label", "linear", "--url", server.url], capture_output=True, text=True)
    assert "label stable: version 1 answers until version 3 is ready" in listed.stdout
    models.linear(registry, "linear", "3", 3.0)
    wait_for(lambda: version_of(server, path=by_label) == "3")      # until then by version 1, and never with an error
    assert server.call(f"{BASE}/route")[1]["stand_ins"] == {}
    wait_for(lambda: index(server).get(("linear", "1"), {}).get("state") != "READY")


def test_a_new_version_gets_no_traffic_of_a_model_with_a_route_until_it_is_promoted_and_a_rollback_takes_it_back(server, registry, tmp_path):
    set_route(server, {"1": 100})
    with Hammer(server) as hammer:
        (registry / "linear" / "3").mkdir()
        (registry / "linear" / "3" / "model.onnx").write_bytes(made(tmp_path, "3"))
        wait_for(lambda: index(server).get(("linear", "3"), {}).get("state") == "READY")
        assert {version_of(server) for _ in range(50)} == {"1"}
        assert server.call(f"{BASE}/promote", "POST", {"version": "3"})[0] == 200
        assert {version_of(server) for _ in range(50)} == {"3"}
        assert server.call(f"{BASE}/rollback", "POST")[1]["weights"] == {"1": 100}
        assert {version_of(server) for _ in range(50)} == {"1"}
    assert not hammer.failures


def test_a_promoted_version_that_is_not_ready_leaves_the_traffic_where_it_was_until_it_is(server, registry, tmp_path):
    """Version 1 of two is loaded for its label; with the label gone it must be loaded first."""
    assert server.call(f"{BASE}/labels/stable", "DELETE")[0] == 200
    wait_for(lambda: ("linear", "1") not in index(server))
    with Hammer(server) as hammer:
        assert server.call(f"{BASE}/promote", "POST", {"version": "1"})[0] == 200
        wait_for(lambda: version_of(server) == "1")
        assert {version_of(server) for _ in range(50)} == {"1"}
    assert not hammer.failures


def test_routes_and_labels_outlive_a_restart(registry):
    with ServerProcess(registry) as server:
        set_route(server, {"1": 50, "2": 50}, [{"header": "x-tenant", "equals": "acme", "version": "2"}])
        server.call(f"{BASE}/labels/canary", "PUT", {"version": "2"})
        before = server.call(f"{BASE}/route")[1]
        keys = {key: version_of(server, {"route_key": key}) for key in map(str, range(40))}
    with ServerProcess(registry) as server:
        after = server.call(f"{BASE}/route")[1]
        assert {key: after[key] for key in ("weights", "rules", "labels", "generation")} == {key: before[key] for key in ("weights", "rules", "labels", "generation")}
        assert {key: version_of(server, {"route_key": key}) for key in keys} == keys
        assert set(keys.values()) == {"1", "2"}
        assert server.call(f"{BASE}/route", "DELETE")[1]["weights"] == {}
        assert {version_of(server) for _ in range(20)} == {"2"}, "the newest again"


def test_a_routed_version_whose_folder_vanishes_serves_on_and_says_so(server, registry):
    set_route(server, {"1": 100})
    shutil.rmtree(registry / "linear" / "1")
    wait_for(lambda: "its folder is gone" in index(server)["linear", "1"]["reason"])
    assert version_of(server) == "1"
    server.call(f"{BASE}/route", "DELETE")
    wait_for(lambda: ("linear", "1") not in index(server))
    assert version_of(server) == "2"


@pytest.mark.parametrize(("path", "method", "body", "status", "text"), [
    ("/route", "PUT", {"weights": {"7": 1}}, 400, "model linear has no version 7; it has 1, 2"),
    ("/route", "PUT", {"weights": {"1": -1}}, 400, "weights.1"),
    ("/route", "PUT", {"weights": {"1": 0}}, 400, "weights: {'1': 0} given, one above 0 wanted"),
    ("/route", "PUT", {"weights": {"one": 1}}, 400, "weights.one"),
    ("/route", "PUT", {"wieghts": {"1": 1}}, 400, "wieghts: unknown key; did you mean 'weights'?"),
    ("/route", "PUT", {"rules": [{"equals": "x", "version": "1"}]}, 400, "a header or a parameter wanted"),
    ("/route", "PUT", {"rules": [{"header": "a b", "equals": "x", "version": "1"}]}, 400, "rules.0.header"),
    ("/route", "PUT", {}, 400, "weights or rules wanted"),
    ("/route", "PUT", None, 400, "weights or rules wanted"),
    ("/promote", "POST", {}, 400, "version"),
    ("/promote", "POST", {"version": "9"}, 400, "no version 9"),
    ("/rollback", "POST", None, 400, "nothing to go back to"),
    ("/labels/-x", "PUT", {"version": "1"}, 400, "a label has"),
    ("/labels/x", "PUT", {"version": "9"}, 400, "no version 9"),
])
def test_what_is_wrong_is_told_and_changes_nothing(unchanged, path, method, body, status, text):
    before = unchanged.call(f"{BASE}/route")[1]
    found, told = unchanged.call(BASE + path, method, body)
    assert (found, text in told["error"]) == (status, True), told
    assert unchanged.call(f"{BASE}/route")[1] == before


def test_a_model_that_is_not_there_is_not_found(server):
    for path, method, body in (("/route", "GET", None), ("/route", "PUT", {"weights": {"1": 1}}), ("/promote", "POST", {"version": "1"}), ("/rollback", "POST", None)):
        assert server.call(f"/admin/models/none{path}", method, body)[0] == 404


def test_changes_want_the_key_and_reads_do_not(registry, tmp_path):
    (tmp_path / "key").write_text("a-secret-of-16-characters")
    with ServerProcess(registry, "--admin-key-file", str(tmp_path / "key")) as server:
        assert server.call(f"{BASE}/promote", "POST", {"version": "1"})[0] == 401
        assert server.call(f"{BASE}/route")[1]["weights"] == {}
        assert server.call(f"{BASE}/promote", "POST", {"version": "1"}, Authorization="Bearer a-secret-of-16-characters")[0] == 200


def command(server, *arguments):
    """(exit code, what it prints)."""
    done = server.command(*arguments)
    return done.returncode, done.stdout or done.stderr


def test_the_commands_set_and_show_what_the_calls_do(server):
    assert command(server, "route", "linear", "1=75", "2=25", "--rule", "header:X-Tenant=acme:2")[0] == 0
    code, text = command(server, "route", "linear")
    assert code == 0
    assert [line.split()[:2] for line in text.splitlines()[1:3]] == [["1", "75.00%"], ["2", "25.00%"]]
    assert "rule: header x-tenant = acme -> version 2" in text
    assert "rollback goes to: 2=100" in text
    assert command(server, "route", "linear", "1=50", "2=50")[1].count("x-tenant") == 1, "rules stay when weights are set"
    assert "x-tenant" not in command(server, "route", "linear", "--no-rules")[1]
    assert json.loads(command(server, "label", "linear", "canary=2", "--remove", "stable", "--json")[1]) == {"canary": "2"}
    assert command(server, "promote", "linear", "2")[0] == 0
    assert json.loads(command(server, "rollback", "linear", "--json")[1])["weights"] == {"1": 50, "2": 50}
    assert "no weights are set" in command(server, "route", "linear", "--clear")[1]
    for wrong in (["route", "linear", "one=x"], ["route", "linear", "--rule", "cookie:a=b:1"], ["label", "linear", "canary"]):
        assert command(server, *wrong)[0] == 2
    assert command(server, "promote", "linear", "9")[0] == 1


def test_each_change_and_each_refusal_is_in_the_audit_trail(server):
    set_route(server, {"1": 100})
    server.call(f"{BASE}/labels/canary", "PUT", {"version": "2"})
    server.call(f"{BASE}/promote", "POST", {"version": "9"})
    server.call(f"{BASE}/rollback", "POST")
    entries = server.call("/admin/audit?model=linear")[1]["entries"]
    found = [(one["action"], one["outcome"]) for one in reversed(entries) if one["action"].split(".")[0] in ("route", "label", "traffic")]
    assert [one for one in found if one[0] != "traffic.moved"] == [
        ("route.set", "ok"), ("label.set", "ok"), ("traffic.promoted", "refused"), ("traffic.rolled_back", "ok")]
    (first,) = (one for one in entries if one["action"] == "route.set")
    assert (first["before"]["weights"], first["after"]["weights"]) == ({}, {"1": 100})
