"""A version comes into service step by step while requests run, and goes back by itself where it is worse."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
from onnx import helper, numpy_helper

from . import models, wire
from .server import ServerProcess
from .test_hot import ROW, wait_for
from .test_routes import command

BASE = "/admin/models/linear"
STEP = {"min_samples": 300, "min_secs": 0.5}
PLAN = {"steps": [{"share": 10, **STEP}, {"share": 50, **STEP}, {"share": 100, **STEP}], "keep_warm_secs": 1,
        "gates": {"latency_ratio": {"mean": 3, "at_quantile": None}}}     # the machine is not a test's own


def linear(registry, version, *, extra=0, fails=False):
    """y = x @ W, a few hundred times slower for each hundred of extra, and failing where x[0] is above 6."""
    weights = (np.arange(32, dtype=np.float32).reshape(8, 4) / 10).astype(np.float32)
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.eye(64, dtype=np.float32), "e"),
                 numpy_helper.from_array(np.zeros(4, np.float32), "z"), numpy_helper.from_array(np.ones((7,), np.float32), "table"),
                 numpy_helper.from_array(np.zeros((8, 64), np.float32), "in"), numpy_helper.from_array(np.zeros((64, 4), np.float32), "out"),
                 numpy_helper.from_array(np.array([0], np.int64), "first")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y0"]), helper.make_node("MatMul", ["x", "in"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{step}", "e"], [f"h{step + 1}"]) for step in range(extra)]
    nodes += [helper.make_node("MatMul", [f"h{extra}", "out"], ["none"]), helper.make_node("Add", ["y0", "none"], ["y1"])]
    if fails:
        nodes += [helper.make_node("Gather", ["x", "first"], ["x0"], axis=1), helper.make_node("Cast", ["x0"], ["at"], to=7),
                  helper.make_node("Gather", ["table", "at"], ["one"]), helper.make_node("Mul", ["y1", "one"], ["y"])]
    else:
        nodes += [helper.make_node("Identity", ["y1"], ["y"])]
    return models.write(registry, "linear", nodes, [models.value("x", "FP32", ["n", 8])], [models.value("y", "FP32", ["n", 4])], constants, version)


class Crowd:
    """Four callers without pause. Every twentieth request has a value that only a bad version fails on."""

    def __init__(self, server, pause_secs=0.0):
        self.server, self.stopped, self.answers, self.failures = server, threading.Event(), 0, []
        self.pause_secs, self.versions = pause_secs, set()
        self.threads = [threading.Thread(target=self.ask) for _ in range(4)]

    def ask(self):
        odd = [{**ROW[0], "data": [7.0] * 8}]
        bodies = [json.dumps({"inputs": odd if number % 20 == 10 else ROW}).encode() for number in range(100)]
        with wire.connect(self.server.port) as connection, connection.makefile("rb") as file:
            while not self.stopped.is_set():
                for body in bodies:
                    connection.sendall(wire.post("/v2/models/linear/infer", body))
                    status, answer = wire.read_answer(file)
                    self.answers += 1
                    if status != 200:
                        self.failures.append(answer)
                    else:
                        self.versions.add(json.loads(answer)["model_version"])
                    time.sleep(self.pause_secs)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def registry(tmp_path):
    linear(tmp_path / "registry", "1")
    return tmp_path / "registry"


def started(server, registry, **given):
    """Version 2 lies in the registry, and its rollout has begun."""
    assert server.call(f"{BASE}/promote", "POST", {"version": "1"})[0] == 200
    linear(registry, "2", **given)
    wait_for(lambda: server.call("/v2/models/linear/versions/2")[0] == 200)
    status, told = server.call(f"{BASE}/rollout", "POST", {"version": "2", "plan": PLAN})
    assert status == 200, told
    return told


def ended(server, status):
    wait_for(lambda: server.call(f"{BASE}/rollout")[1]["status"] != "running", 40)
    told = server.call(f"{BASE}/rollout")[1]
    assert told["status"] == status, told
    return told


def test_a_good_version_goes_through_all_steps_and_no_request_fails(registry):
    with ServerProcess(registry) as server, Crowd(server) as crowd:
        assert started(server, registry)["steps"] == ["10%", "50%", "100%"]
        ended(server, "completed")
        assert server.call(f"{BASE}/route")[1]["weights"] == {"2": 100}
        entries = [one for one in reversed(server.call("/admin/audit?model=linear")[1]["entries"]) if one["action"].startswith("rollout.")]
        assert [one["action"] for one in entries] == ["rollout.started", "rollout.start", "rollout.promoted", "rollout.promoted", "rollout.completed"]
        assert (entries[1]["version"], [step["share"] for step in entries[1]["after"]["plan"]["steps"]]) == ("2", [10, 50, 100])
        wait_for(lambda: server.call(f"{BASE}/route")[1]["before"] is None)    # the old version was kept warm for a second
        assert not crowd.failures


@pytest.mark.parametrize(("bad", "gates"), [
    ({"fails": True}, ("error_rate", "latency_ratio")),     # rows that shared a run with the guilty one are run again
    ({"extra": 400}, ("latency_ratio",)),
], ids=["fails on some input", "slower"])
def test_a_bad_version_is_rolled_back(registry, bad, gates):
    with ServerProcess(registry) as server, Crowd(server) as crowd:
        started(server, registry, **bad)
        reasons = ended(server, "rolled_back")["reasons"]
        assert any(gate in reason for reason in reasons for gate in gates), reasons
        assert server.call(f"{BASE}/route")[1]["weights"] == {"1": 100}
        before = len(crowd.failures)
        count = crowd.answers
        wait_for(lambda: crowd.answers > count + 500)
        assert len(crowd.failures) - before <= 4, "but for those on their way"


def test_the_commands_start_show_and_abort(registry, tmp_path):
    (tmp_path / "plan.yaml").write_text(json.dumps({"steps": [{"share": 5, "min_secs": 1000}, {"share": 100}]}))
    (tmp_path / "wrong.yaml").write_text("steps:\n  - share: 5\n    min_sex: 3\n")
    with ServerProcess(registry) as server:
        server.call(f"{BASE}/promote", "POST", {"version": "1"})
        assert command(server, "rollout", "status", "linear") == (1, "batchmill: 404: there is no rollout of model 'linear'\n")
        linear(registry, "2")
        wait_for(lambda: server.call("/v2/models/linear/versions/2")[0] == 200)
        code, text = command(server, "rollout", "start", "linear", "2", "--plan", str(tmp_path / "wrong.yaml"))
        assert (code, "wrong.yaml:3:" in text, "min_secs" in text) == (2, True, True), text
        code, text = command(server, "rollout", "start", "linear", "2", "--plan", str(tmp_path / "plan.yaml"))
        assert (code, "[5%] -> 100%" in text) == (0, True), text
        wait_for(lambda: "hold: 0 samples" in command(server, "rollout", "status", "linear")[1])
        assert "aborted" in command(server, "rollout", "abort", "linear")[1]
        assert server.call(f"{BASE}/route")[1]["weights"] == {"1": 100}


def test_a_rollout_goes_on_after_a_restart(registry):
    with ServerProcess(registry) as server:
        started(server, registry)
    with ServerProcess(registry) as server, Crowd(server) as crowd:
        ended(server, "completed")
        assert not crowd.failures


POLICY = {"steps": [{"share": 100, "shadow": True, "approval": "manual", **STEP}, {"share": 20, **STEP}, {"share": 100, **STEP}], "keep_warm_secs": 1,
          "gates": {"latency_ratio": None, "shadow_errors": {"at_most": 0.001}}}


def by_itself(server, version):
    """The rollout of that version has begun by the model's own policy, and waits for an approval after its shadow."""
    def waits():
        told = server.call(f"{BASE}/rollout")[1]
        return told.get("candidate") == version and (told["decision"] or {}).get("outcome") == "await_approval"

    wait_for(waits, 40)
    assert server.call(f"{BASE}/rollout")[1]["by"] == "policy"


def actions(server):
    entries = server.call("/admin/audit?model=linear&action=rollout")[1]["entries"]
    return [(one["action"], one["version"], one["actor"]) for one in reversed(entries)]


def test_a_model_with_a_policy_rolls_new_versions_out_by_itself_and_a_bad_one_back_for_good(registry):
    (registry / "linear" / "model.yaml").write_text(json.dumps({"rollout": POLICY}))
    with ServerProcess(registry) as server, Crowd(server, 0.001) as crowd:
        wait_for(lambda: "no rollout of linear so far" in command(server, "rollout", "status", "linear")[1])
        linear(registry, "2")
        by_itself(server, "2")
        count = crowd.answers
        wait_for(lambda: crowd.answers > count + 500)
        assert crowd.versions == {"1"}, "it is ready, and has had no request before its first step with traffic"
        assert server.call(f"{BASE}/rollout/approve", "POST")[0] == 200
        ended(server, "completed")
        wait_for(lambda: server.call("/v2/models/linear/versions/1")[0] == 404)
        linear(registry, "3", fails=True)
        wait_for(lambda: server.call(f"{BASE}/rollout")[1]["candidate"] == "3")
        assert "shadow_errors" in ended(server, "rolled_back")["reasons"][0]
        wait_for(lambda: "version 3 waits: it was tried" in command(server, "rollout", "status", "linear")[1])
        assert (crowd.versions, crowd.failures) == ({"1", "2"}, [])
        assert "rollout_waits" in server.log_path.read_text()
        before = actions(server)
        assert ("rollout.started", "2", "rollout") in before
        assert ("rollout.started", "3", "rollout") in before
    with ServerProcess(registry) as server, Crowd(server, 0.001) as crowd:
        wait_for(lambda: server.call(f"{BASE}/rollout")[1]["waiting"])
        count = crowd.answers
        wait_for(lambda: crowd.answers > count + 1000)
        assert (crowd.versions, actions(server)) == ({"2"}, before), "not tried again"
        linear(registry, "4")
        by_itself(server, "4")
        assert crowd.versions == {"2"}
        server.call(f"{BASE}/rollout/approve", "POST")
        ended(server, "completed")
        assert not crowd.failures
