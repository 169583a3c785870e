"""A server that is killed at any moment of many changes has all of them after a restart that callers were told of, and no half of any."""

from __future__ import annotations

import http.client
import random
import signal
import threading
import time
from collections import Counter

import pytest

from . import models
from .server import ServerProcess
from .test_audit import trail, verdict
from .test_hot import wait_for

ROUNDS = 4
PLAN = {"steps": [{"share": 10, "min_secs": 1000}, {"share": 100}]}


class Caller(threading.Thread):
    """Changes one thing after the other. told: the last value that was acknowledged. asked: the one on its way when the server died; None: none."""

    def __init__(self, chance, told):
        super().__init__()
        self.chance, self.told, self.asked, self.acknowledged = chance, told, None, Counter()

    def begin(self, server):
        self.server, self.asked, self.acknowledged = server, None, Counter()
        threading.Thread.__init__(self)
        self.start()

    def run(self):
        while True:
            self.asked, action, method, path, body = self.next()
            try:
                status, answer = self.server.call(path, method, body)
            except (OSError, http.client.HTTPException, ValueError):
                return
            assert status == 200, answer
            self.told, self.asked = self.asked, None
            self.acknowledged[action] += 1

    def check(self, found):
        assert found in (self.told, self.asked)
        self.told = found


class Labels(Caller):
    def __init__(self, chance, label):
        super().__init__(chance, None)
        self.label = label

    def next(self):
        version = self.chance.choice(["1", "2", None])
        action, method, body = ("label.set", "PUT", {"version": version}) if version else ("label.removed", "DELETE", None)
        return version, action, method, f"/admin/models/first/labels/{self.label}", body

    def look(self, server):
        self.check(server.call("/admin/models/first/route")[1]["labels"].get(self.label))


class Weights(Caller):
    def next(self):
        weights = {"1": float(self.chance.randint(1, 99)), "2": float(self.chance.randint(1, 99))}
        return weights, "route.set", "PUT", "/admin/models/first/route", {"weights": weights}

    def look(self, server):
        self.check(server.call("/admin/models/first/route")[1]["weights"])


class Rollouts(Caller):
    def next(self):
        if self.told == "running":
            return "aborted", "rollout.abort", "POST", "/admin/models/second/rollout/abort", None
        return "running", "rollout.start", "POST", "/admin/models/second/rollout", {"version": "2", "plan": PLAN}

    def look(self, server):
        def weights():
            return server.call("/admin/models/second/route")[1]["weights"]

        self.check(server.call("/admin/models/second/rollout")[1].get("status", ""))
        if self.told == "running":
            wait_for(lambda: weights() == {"1": 90.0, "2": 10.0})
        else:
            assert weights() == {"1": 100.0}


@pytest.fixture
def registry(tmp_path):
    for name in ("first", "second"):
        for version in "12":
            models.linear(tmp_path / "registry", name, version, float(version))
    return tmp_path / "registry"


def test_what_was_acknowledged_of_routes_labels_rollouts_and_the_trail_is_there_after_a_kill(registry):
    chance = random.Random(11)
    callers = [Labels(chance, "a"), Labels(chance, "b"), Weights(chance, {"1": 50.0, "2": 50.0}), Rollouts(chance, "")]
    with ServerProcess(registry) as server:
        assert server.call("/admin/models/first/route", "PUT", {"weights": {"1": 50, "2": 50}})[0] == 200
        assert server.call("/admin/models/second/promote", "POST", {"version": "1"})[0] == 200
    for _ in range(ROUNDS):
        with ServerProcess(registry) as server:
            begun = verdict(server)["head"]["seq"]
            for caller in callers:
                caller.begin(server)
            time.sleep(chance.uniform(0.05, 0.4))
            server.stop(signal.SIGKILL)
            for caller in callers:
                caller.join()
        with ServerProcess(registry) as server:
            for caller in callers:
                caller.look(server)
            found = Counter(one["action"] for one in trail(server) if one["seq"] > begun and one["outcome"] == "ok")
            assert sum((caller.acknowledged for caller in callers), Counter()) <= found
            assert verdict(server)["broken"] is None
