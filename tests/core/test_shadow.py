"""Candidates run what others have answered: what is drawn, run, compared, shed and let go, on a real data plane."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from batchmill.app import make_server
from batchmill.backends import Tuning
from batchmill.config import ServerConfig
from batchmill.core import ort, shadow_figures
from batchmill.core.route_table import RouteEntry
from batchmill.core.router import Version
from e2e import models, wire

SECONDS = float(os.environ.get("CHURN_SECONDS", "1"))
SETTINGS = {"max_pending_bytes": 64 << 20, "max_cpu": 0.0, "rtol": 1e-3, "atol": 1e-5, "by_argmax": False, "keep": 8, "redact": False, "paired": True}
SUMS = np.arange(32, dtype=np.float32).reshape(8, 4).sum(axis=0) / 10


class Plane:
    """A data plane that serves "linear": version n computes x @ W * n."""

    def __init__(self, folder: Path) -> None:
        ort.initialise()
        self.folder = folder
        self.server = make_server(ServerConfig(io_threads=2, executor_threads=2))
        self.port = self.server.listen("127.0.0.1", 0)
        self.server.start()

    def version(self, number: int, factor: float | None = None, name: str = "linear") -> Version:
        path = models.linear(self.folder, version=str(number), factor=float(number) if factor is None else factor)
        version = Version(name, str(number), ort.Model(str(path)), batched=True, fast_ok=True)
        version.tune(**dataclasses.asdict(Tuning(max_batch_size=8, instances=2)))
        return version

    def publish(self, versions: list[Version], shadows: list[tuple], shares: tuple = ()) -> None:
        self.server.publish([RouteEntry("linear", versions, versions[0], shares=shares, shadows=shadows, generation=1)])

    def ask(self, count: int, rows: int = 1, path: str = "/v2/models/linear/infer") -> list[dict]:
        body = json.dumps({"id": "one", "inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 8], "data": [1.0] * (8 * rows)}]}).encode()
        with wire.connect(self.port) as connection, connection.makefile("rb") as file:
            found = []
            for _ in range(count):
                connection.sendall(wire.post(path, body))
                status, answer = wire.read_answer(file)
                assert status == 200, answer
                found.append(json.loads(answer))
        return found


def settled(version: Version, seconds: float = 20) -> shadow_figures.ShadowFigures:
    """Its figures once nothing waits any more."""
    end = time.monotonic() + seconds
    while True:
        found = shadow_figures.stats_of(version)
        assert found
        if found["mirrored"] == sum(found[key] for key in ("compared", "errors", "shed", "expired", "dropped")):  # type: ignore[literal-required]
            return found
        assert time.monotonic() < end, found
        time.sleep(0.005)


def released(plane: Plane, version: Version, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not plane.server.release(version):
        assert time.monotonic() < end, "requests hold it still"
        time.sleep(0.005)


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    made = Plane(tmp_path)
    try:
        yield made
    finally:
        made.server.stop()


def shadow(version: str = "2", share: int = 10_000, epoch: int = 1, **settings: object) -> tuple:
    return version, share, epoch, {**SETTINGS, **settings}


def test_all_that_others_answer_is_run_and_differences_are_told_exactly(plane: Plane) -> None:
    one, two = plane.version(1), plane.version(2)
    plane.publish([one, two], [shadow()])
    assert {answer["model_version"] for answer in plane.ask(200)} == {"1"}
    found = settled(two)
    assert (found["mirrored"], found["errors"], found["dropped"], found["expired"]) == (200, 0, 0, 0)
    assert found["compared"] + found["shed"] == 200
    assert found["compared"]
    output = found["outputs"]["y"]
    assert (output["compared"], output["agreeing"]) == (found["compared"], 0)
    assert output["max_abs"] == pytest.approx(SUMS.max(), rel=1e-5)
    assert output["abs"]["mean"] == pytest.approx(SUMS.max(), rel=1e-5)
    assert output["max_rel"] == pytest.approx(0.5, rel=1e-5)
    assert (output["argmax"]["mean"], output["cosine"]["mean"]) == (1, pytest.approx(1))
    assert two.stats()["success"] == 0, "what it runs as a shadow is no answer of its own"


def test_the_same_weights_agree(plane: Plane) -> None:
    one, two = plane.version(1), plane.version(2, factor=1.0)
    plane.publish([one, two], [shadow()])
    plane.ask(50, rows=3)
    plane.ask(20, rows=20)      # in parts
    found = settled(two)
    assert found["compared"] == found["agreeing"] > 0
    assert found["rows"] >= found["compared"]
    assert shadow_figures.worst_of(two) == []


def test_only_requests_that_the_route_serves_are_mirrored_and_none_to_whom_it_is_answered_by(plane: Plane) -> None:
    one, two = plane.version(1), plane.version(2)
    plane.publish([one, two], [shadow()])
    plane.ask(20, path="/v2/models/linear/versions/1/infer")
    assert settled(two)["mirrored"] == 0
    plane.publish([two, one], [shadow()])
    plane.ask(20)
    assert settled(two)["mirrored"] == 0


def test_what_another_answers_in_their_place_is_no_answer_to_hold_a_candidate_against(plane: Plane) -> None:
    """Least of all the candidate's own, with which it would always agree."""
    failing, spare = (Version("linear", number, ort.Model(str(models.table(plane.folder, "linear", number, size))), batched=True, fast_ok=True)
                      for number, size in (("1", 2), ("2", 100)))
    for version in (failing, spare):
        version.tune(**dataclasses.asdict(Tuning(max_batch_size=8, instances=2)))
    plane.server.publish([RouteEntry("linear", [failing, spare], failing, shadows=[shadow()], generation=1,
                                     fallbacks=[(("invalid",), "2", "", (), "version 2")])])
    for index, mirrored in ((1, 1), (50, 1)):
        with wire.connect(plane.port) as connection, connection.makefile("rb") as file:
            connection.sendall(wire.post("/v2/models/linear/infer", json.dumps(
                {"inputs": [{"name": "i", "datatype": "INT64", "shape": [1], "data": [index]}]}).encode()))
            status, answer = wire.read_answer(file)
        assert (status, json.loads(answer)["model_version"]) == (200, "1" if index == 1 else "2")
        assert settled(spare)["mirrored"] == mirrored


def test_a_share_is_drawn_for_each_request_and_not_by_its_key(plane: Plane) -> None:
    one, two = plane.version(1), plane.version(2)
    plane.publish([one, two], [shadow(share=2500)])
    plane.ask(2000)             # all with one id, and so one key
    mirrored = settled(two)["mirrored"]
    assert abs(mirrored - 500) < 4.5 * (2000 * 0.25 * 0.75) ** 0.5


def test_several_candidates_run_the_same_request(plane: Plane) -> None:
    one, two, three = plane.version(1), plane.version(2), plane.version(3, factor=1.0)
    plane.publish([one, two, three], [shadow("2"), shadow("3")])
    plane.ask(100)
    found, other = settled(two), settled(three)
    assert found["mirrored"] == other["mirrored"] == 100
    assert found["agreeing"] == 0 < other["agreeing"] == other["compared"]


def test_the_worst_are_kept_with_what_was_asked_and_both_answers(plane: Plane) -> None:
    one, two = plane.version(1), plane.version(2)
    plane.publish([one, two], [shadow(keep=3)])
    plane.ask(30)
    settled(two)
    worst = shadow_figures.worst_of(two)
    assert len(worst) == 3
    (name, datatype, shape, raw), = worst[0]["inputs"]
    assert (name, datatype, shape, raw) == ("x", "FP32", [1, 8], np.ones(8, np.float32).tobytes())
    np.testing.assert_allclose(np.frombuffer(worst[0]["answered"][0][3], np.float32), SUMS, rtol=1e-5)
    np.testing.assert_allclose(np.frombuffer(worst[0]["candidate"][0][3], np.float32), 2 * SUMS, rtol=1e-5)
    assert (worst[0]["id"], worst[0]["output"]) == ("one", "y")


def test_redacted_ones_have_scores_and_shapes_alone(plane: Plane) -> None:
    one, two = plane.version(1), plane.version(2)
    plane.publish([one, two], [shadow(redact=True)])
    plane.ask(5)
    settled(two)
    worst = shadow_figures.worst_of(two)[0]
    assert (worst["id"], worst["inputs"]) == ("", [("x", "FP32", [1, 8], None)])
    assert worst["max_abs"] > 0


def test_beyond_its_bound_it_sheds(plane: Plane) -> None:
    one, two = plane.version(1), plane.version(2)
    plane.publish([one, two], [shadow(max_pending_bytes=1)])
    plane.ask(50)
    found = settled(two)
    assert (found["mirrored"], found["shed"], found["compared"]) == (50, 50, 0)


def test_a_new_epoch_begins_anew_and_one_that_stays_goes_on(plane: Plane) -> None:
    one, two = plane.version(1), plane.version(2)
    plane.publish([one, two], [shadow()])
    plane.ask(10)
    settled(two)
    plane.publish([one, two], [shadow()])
    plane.ask(10)
    assert settled(two)["mirrored"] == 20
    plane.publish([one, two], [shadow(epoch=2)])
    assert settled(two)["mirrored"] == 0


def test_both_versions_can_be_let_go_while_requests_wait(plane: Plane) -> None:
    one, two, three = plane.version(1), plane.version(2), plane.version(3)
    plane.publish([one, two], [shadow(max_cpu=1e-6)])      # after its first batch it waits for hours
    plane.ask(300)
    plane.publish([three], [])
    released(plane, one)
    released(plane, two)
    found = shadow_figures.stats_of(two)
    assert found
    assert not found["active"]
    assert found["pending"] == found["pending_bytes"] == 0


def test_it_takes_no_more_of_the_processor_than_it_may(plane: Plane) -> None:
    one, two = plane.version(1), plane.version(2)
    plane.publish([one, two], [shadow(max_cpu=0.001)])
    began = time.monotonic()
    while time.monotonic() < began + 1:
        plane.ask(20)
    found = shadow_figures.stats_of(two)
    assert found
    assert found["cpu_ns"] < 0.001 * 1e9 * (time.monotonic() - began) + 5e6, "a batch more at most"


def test_a_draining_server_drops_all_of_it(plane: Plane) -> None:
    one, two = plane.version(1), plane.version(2)
    plane.publish([one, two], [shadow(max_cpu=1e-6)])
    plane.ask(100)
    plane.server.drain()
    found = settled(two)
    assert found["dropped"] > 0


def ragged_ids(length: int) -> dict:
    return {"inputs": [{"name": name, "datatype": "INT64", "shape": [1, length], "data": [value] * length} for name, value in (("ids", 5), ("attention_mask", 1))]}


@pytest.mark.parametrize("padded", [(True, True), (True, False), (False, True)])
def test_rows_of_different_lengths_are_compared_whether_or_not_one_of_the_versions_pads(plane: Plane, padded: tuple[bool, bool]) -> None:
    padding = ([(1, bytes(8)), (1, bytes(8))], [0, 1], [])
    model = ort.Model(str(models.texts(plane.folder)))
    one, two = (Version("texts", number, model, batched=True, fast_ok=False, padding=padding if pads else None)
                for number, pads in zip("12", padded, strict=True))
    for version in (one, two):
        version.tune(**dataclasses.asdict(Tuning(max_batch_size=8, instances=2)))
    plane.server.publish([RouteEntry("texts", [one, two], one, shadows=[shadow(rtol=1e-4)], generation=1)])
    with wire.connect(plane.port) as connection, connection.makefile("rb") as file:
        for turn in range(60):
            connection.sendall(wire.post("/v2/models/texts/infer", json.dumps(ragged_ids(1 + turn * 7 % 13)).encode()))
            assert wire.read_answer(file)[0] == 200
    found = settled(two)
    assert (found["errors"], found["last_error"]) == (0, "")
    assert found["compared"] == found["agreeing"] > 0
    assert {name: output["shapes_differ"] for name, output in found["outputs"].items()} == {"mean": 0, "tokens": 0}


def test_a_candidate_that_wants_other_inputs_has_errors_that_say_so(plane: Plane) -> None:
    one = plane.version(1)
    two = Version("linear", "2", ort.Model(str(models.lookup(plane.folder))), batched=True, fast_ok=True)
    two.tune(**dataclasses.asdict(Tuning(instances=2)))
    plane.publish([one, two], [shadow()])
    plane.ask(20)
    found = settled(two)
    assert found["errors"] + found["shed"] == 20
    assert 'input "i" of linear/2: missing' in found["last_error"]


def endless(plane: Plane, rounds: int, timeout_ms: int) -> tuple[Version, bytes]:
    two = Version("endless", "2", ort.Model(str(models.endless(plane.folder))), batched=False, fast_ok=False)
    two.tune(**dataclasses.asdict(Tuning(instances=2, run_timeout_ms=timeout_ms)))
    one = Version("endless", "1", ort.Model(str(models.write(plane.folder / "quick", "endless", [helper.make_node("Identity", ["x"], ["y"])],
                  [models.value("n", "INT64", []), models.value("x", "INT64", ["k"])], [models.value("y", "INT64", ["k"])]))), batched=False, fast_ok=False)
    one.tune(**dataclasses.asdict(Tuning(instances=2)))
    plane.server.publish([RouteEntry("endless", [one, two], one, shadows=[shadow()], generation=1)])
    return two, json.dumps({"inputs": [{"name": "n", "datatype": "INT64", "shape": [], "data": [rounds]},
                                       {"name": "x", "datatype": "INT64", "shape": [1], "data": [0]}]}).encode()


def send(plane: Plane, body: bytes) -> int:
    with wire.connect(plane.port) as connection, connection.makefile("rb") as file:
        connection.sendall(wire.post("/v2/models/endless/infer", body))
        return wire.read_answer(file)[0]


def chain(plane: Plane, number: str, steps: int) -> Version:
    nodes = [helper.make_node("MatMul", [f"t{step}" if step else "x", "w"], [f"t{step + 1}" if step < steps - 1 else "y"]) for step in range(steps)]
    path = models.write(plane.folder, "chain", nodes, [models.value("x", "FP32", ["n", 64])], [models.value("y", "FP32", ["n", 64])],
                        [numpy_helper.from_array(np.eye(64, dtype=np.float32), "w")], number)
    version = Version("chain", number, ort.Model(str(path)), batched=True, fast_ok=True)
    version.tune(**dataclasses.asdict(Tuning(max_batch_size=8, instances=2)))
    return version


def test_run_times_are_measured_side_by_side(plane: Plane) -> None:
    one, same, slow = chain(plane, "1", 20), chain(plane, "2", 20), chain(plane, "3", 200)
    plane.server.publish([RouteEntry("chain", [one, same, slow], one, shadows=[shadow("2"), shadow("3")], generation=1)])
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [1.0] * 64}]}).encode()
    with wire.connect(plane.port) as connection, connection.makefile("rb") as file:
        for _ in range(1000):
            connection.sendall(wire.post("/v2/models/chain/infer", body))
            assert wire.read_answer(file)[0] == 200
    equal, slower = settled(same)["log_latency_ratio"], settled(slow)["log_latency_ratio"]
    assert min(equal["count"], slower["count"]) > 0
    assert abs(equal["mean"]) < np.log(1.5)
    assert slower["mean"] > np.log(3)


def test_a_run_that_does_not_end_is_ended_by_its_time_of_the_processor(plane: Plane) -> None:
    two, body = endless(plane, 1 << 40, timeout_ms=200)
    assert send(plane, body) == 200
    found = settled(two)
    assert (found["errors"], found["last_error"]) == (1, "the run took longer than run_timeout_ms")


def test_a_server_stops_though_a_candidate_does_not_end(plane: Plane) -> None:
    two, body = endless(plane, 1 << 40, timeout_ms=0)
    assert send(plane, body) == 200
    end = time.monotonic() + 10
    while not (found := shadow_figures.stats_of(two)) or not found["pending"]:
        assert time.monotonic() < end
    time.sleep(0.05)
    began = time.monotonic()
    plane.server.stop()
    assert time.monotonic() - began < 5


def test_candidates_come_and_go_under_load(plane: Plane) -> None:
    one, candidates = plane.version(1), [plane.version(2), plane.version(3, factor=1.0)]
    plane.publish([one], [])
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            plane.ask(20)
            plane.ask(1, rows=20)

    callers = [threading.Thread(target=ask) for _ in range(3)]
    for caller in callers:
        caller.start()
    retiring: list[Version] = []
    epoch, end = 0, time.monotonic() + SECONDS
    while time.monotonic() < end or epoch < 3:
        epoch += 1
        wanted = candidates[: epoch % 3]
        plane.publish([one, *wanted], [shadow(each.version, epoch=epoch // 2 + 1) for each in wanted])
        for each in candidates:
            shadow_figures.stats_of(each), shadow_figures.worst_of(each)
        time.sleep(0.02)
        if epoch % 5 == 0:      # another version of that number
            retiring.append(candidates[0])
            candidates[0] = plane.version(2)
        retiring = [each for each in retiring if each in wanted or not plane.server.release(each)]
    ended.set()
    for caller in callers:
        caller.join()
    plane.publish([one], [])
    for each in [*retiring, *candidates]:
        released(plane, each)
