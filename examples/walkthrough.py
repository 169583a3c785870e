#!/usr/bin/env python3
"""Brings digits from version 1 to a better 2 under load, through shadow and canary with live feedback, and has a bad 3 turned back.

docs/walkthrough.md tells the story; this runs its commands, with a server, a registry and a state of its own, in under two minutes, and
exits with 1 when something does not come out as told there. Needs: numpy, onnx, and batchmill installed for this Python.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from run_demo import HERE, free_ports, stop, wait_ready

BUNDLED = HERE / "registry" / "digits"
SETTINGS = "versions: {policy: latest, count: 1}\nfeedback: true    # answers carry a token, by which callers tell what was right\n"
PLAN = """\
steps:
  - {share: 100, shadow: true, min_samples: 300, min_secs: 2}
  - {share: 20, min_samples: 200, min_secs: 3}
  - {share: 50, min_samples: 300, min_secs: 3}
  - {share: 100, min_samples: 300, min_secs: 2}
gates:
  agreement: {at_least: 0.8}                      # of the digits that both name
  error_rate: {rise: 0.01}
  latency_ratio: {mean: 3, at_quantile: null}     # a laptop does other things, too
  quality: {margin: 0.05, min_samples: 50}
"""
NOISE = 0.05  # of the pixels: the callers' pictures are not those of the files
ROLLOUT_SECS = 60


class Callers(threading.Thread):
    """Ask for digits that they know, and tell afterwards whether the answer was right."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port, self.done, self.answers, self.failures = port, threading.Event(), 0, 0
        known = np.load(HERE / "images" / "digits.npz")
        self.images, self.labels = known["image"], known["label"]

    def run(self) -> None:
        connection, chance = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30), np.random.default_rng(7)
        told: list[dict[str, object]] = []
        while not self.done.is_set():
            which = int(chance.integers(len(self.labels)))
            image = np.clip(self.images[which] + chance.normal(0, NOISE, 64), 0, 1)
            answer = self.post(connection, "infer", {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 64], "data": image.tolist()}]})
            if answer:
                told.append({"token": answer["parameters"]["feedback_token"], "label": int(self.labels[which])})
            if len(told) == 100:
                self.post(connection, "feedback", {"feedback": told})
                told.clear()
            time.sleep(0.002)

    def post(self, connection: http.client.HTTPConnection, call: str, body: object) -> dict[str, dict[str, str]]:
        connection.request("POST", f"/v2/models/digits/{call}", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
        self.answers += call == "infer"
        self.failures += answer.status != 200
        return json.loads(data) if answer.status == 200 else {}


def command(url: str, *arguments: str) -> str:
    """What `batchmill` prints, which is shown as well."""
    print("$ batchmill", *arguments, flush=True)
    done = subprocess.run([sys.executable, "-m", "batchmill", *arguments, "--url", url], capture_output=True, text=True)
    print(done.stdout + done.stderr, flush=True)
    return done.stdout


def publish(made: Path, registry: Path, version: str) -> None:
    """By a rename: whole, or not there."""
    (made / version).rename(registry / "digits" / version)


def spoiled(path: Path) -> bytes:
    """The model with its classes in another order: it is as fast, never fails, and is wrong."""
    model = onnx.load(path)
    for one in model.graph.initializer:
        values = numpy_helper.to_array(one)
        if values.shape[-1] == 10:
            one.CopyFrom(numpy_helper.from_array(np.roll(values, 1, axis=-1), one.name))
    return model.SerializeToString()


def wait(url: str, what: str, seconds: float, is_there) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > end:
            raise RuntimeError(f"not after {seconds:g} s: {what}")
        time.sleep(0.2)


def get(url: str, path: str) -> tuple[int, dict[str, object]]:
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"{}")


def rolled_out(url: str, version: str, plan: Path) -> str:
    """How the rollout of that version ended."""
    wait(url, f"version {version} ready", 30, lambda: get(url, f"/v2/models/digits/versions/{version}")[0] == 200)
    command(url, "rollout", "start", "digits", version, "--plan", str(plan))
    path = "/admin/models/digits/rollout"
    wait(url, f"the end of the rollout of version {version}", ROLLOUT_SECS, lambda: get(url, path)[1]["status"] != "running")
    command(url, "rollout", "status", "digits")
    return str(get(url, "/admin/models/digits/rollout")[1]["status"])


def walk(url: str, registry: Path, made: Path, plan: Path, callers: Callers) -> list[str]:
    """What did not come out as told."""
    wrong = []
    command(url, "promote", "digits", "1")
    callers.start()
    publish(made, registry, "2")
    if (status := rolled_out(url, "2", plan)) != "completed":
        wrong.append(f"version 2: {status}")
    if "better" not in command(url, "quality", "digits"):
        print("(the callers have not told enough yet for a verdict)")
    publish(made, registry, "3")
    if (status := rolled_out(url, "3", plan)) != "rolled_back":
        wrong.append(f"version 3: {status}")
    if "2        100.00%" not in command(url, "route", "digits"):
        wrong.append("version 2 does not have the traffic")
    command(url, "audit", "--model", "digits", "--limit", "12")
    if not command(url, "audit", "--verify").startswith("whole"):
        wrong.append("the audit trail is not as it was written")
    return wrong


def main() -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="batchmill-walkthrough-") as place:
        folder = Path(place)
        registry, made, plan = folder / "registry", folder / "made", folder / "plan.yaml"
        (registry / "digits").mkdir(parents=True)
        (registry / "digits" / "model.yaml").write_text(SETTINGS)
        plan.write_text(PLAN)
        shutil.copytree(BUNDLED / "1", registry / "digits" / "1")
        shutil.copytree(BUNDLED / "2", made / "2")
        (made / "3").mkdir()
        (made / "3" / "model.onnx").write_bytes(spoiled(BUNDLED / "2" / "model.onnx"))
        (port,) = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        serve = [sys.executable, "-m", "batchmill", "serve", str(registry), "--port", str(port), "--grpc-port", "0", "--lame-duck-secs", "0",
                 "--state-dir", str(folder / "state"), "--log-level", "warning"]
        server, callers = subprocess.Popen(serve), Callers(port)
        try:
            wait_ready(server, url)
            wrong = walk(url, registry, made, plan, callers)
        finally:
            callers.done.set()
            if callers.ident:
                callers.join()
            stop(server)
    if callers.failures:
        wrong.append(f"{callers.failures} of {callers.answers} requests failed")
    print(f"{callers.answers} requests, {callers.failures} failed, {time.monotonic() - started:.0f} s")
    print("\n".join(wrong) or "all came out as told")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
