"""What a new version must pass before it gets traffic, while the old one serves."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from . import models
from .server import ServerProcess
from .test_behaviour import post, tensor
from .test_hot import ROW, Hammer, in_place, index, made, serves, wait_for


@pytest.fixture
def server(registry):
    with ServerProcess(registry) as running:
        yield running


def golden(folder, version):
    """Writes what the model of that version answers."""
    rows = np.arange(16, dtype=np.float32).reshape(2, 8)
    weights = np.arange(32, dtype=np.float32).reshape(8, 4) / 10 * version
    np.savez(folder / "golden.npz", **{"in:x": rows, "out:y": rows @ weights})


def with_golden(content, folder, version):
    aside = folder.parent / f".{folder.name}.tmp"
    aside.mkdir()
    (aside / "model.onnx").write_bytes(content)
    golden(aside, version)
    aside.rename(folder)


def test_a_version_that_does_not_reproduce_its_golden_outputs_never_serves_until_they_are_repaired(server, registry, tmp_path):
    folder = registry / "linear" / "2"
    with Hammer(server) as hammer:
        with_golden(made(tmp_path, "2"), folder, version=3)
        wait_for(lambda: index(server).get(("linear", "2"), {}).get("state") == "UNAVAILABLE")
        assert index(server)["linear", "2"]["reason"].startswith('golden: output "y" max-abs ')
        assert server.get("/v2/models/linear/versions/2/ready")[0] != 200
        assert serves(server, "1")()
        golden(folder, version=2)
        wait_for(serves(server, "2"))
    assert not hammer.failures
    assert server.log_path.read_text().count("version_failed") == 1


def test_golden_outputs_that_come_later_are_held_against_what_serves(server, registry):
    with Hammer(server) as hammer:
        golden(registry / "linear" / "1", version=2)
        wait_for(lambda: "refused: golden: " in index(server)["linear", "1"]["reason"])
        golden(registry / "linear" / "1", version=1)
        wait_for(lambda: not index(server)["linear", "1"]["reason"])
    assert not hammer.failures


WIDE = [tensor("x", "FP32", [1, 8], [1.0] * 8), tensor("bias", "FP32", [1, 4], [1.0] * 4)]


def wide(registry, version):
    """y = x @ W + bias: a caller of `linear` does not send a bias."""
    weights = [numpy_helper.from_array(np.ones((8, 4), np.float32), "w")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "bias"], ["y"])]
    inputs = [models.value("x", "FP32", ["n", 8]), models.value("bias", "FP32", ["n", 4])]
    return models.write(registry, "linear", nodes, inputs, [models.value("y", "FP32", ["n", 4])], weights, version)


def test_a_version_with_other_inputs_is_ready_by_number_and_gets_no_default_traffic(server, registry, tmp_path):
    with Hammer(server) as hammer:
        wide(registry, "2")
        wait_for(lambda: index(server).get(("linear", "2"), {}).get("state") == "READY")
        assert 'input "bias": not there before, FP32 [-1,4] now' in index(server)["linear", "2"]["reason"]
        assert not index(server)["linear", "1"]["reason"]
        assert post(server, "linear/versions/2", WIDE)[1]["outputs"][0]["data"] == [9.0] * 4
        assert serves(server, "1")()
        (registry / "linear" / "model.yaml").write_text("labels: {next: 2}\n")
        wait_for(lambda: post(server, "linear/labels/next", WIDE)[0] == 200)
        assert serves(server, "1")()
        wait_for(lambda: not index(server)["linear", "2"]["reason"])
        in_place(made(tmp_path, "3"), registry / "linear" / "3")  # as version 1: it takes over
        wait_for(serves(server, "3"))
    assert not hammer.failures
    assert server.log_path.read_text().count("version_on_hold") == 1


def test_signature_change_allow_gives_it_the_default_traffic(server, registry):
    wide(registry, "2")
    wait_for(lambda: "on hold" in index(server).get(("linear", "2"), {}).get("reason", ""))
    (registry / "linear" / "model.yaml").write_text("signature_change: allow\n")
    wait_for(lambda: post(server, "linear", WIDE)[0] == 200)
    assert not index(server)["linear", "2"]["reason"]


def test_other_inputs_under_the_number_in_service_are_refused_until_they_are_allowed(server, registry):
    with Hammer(server) as hammer:
        wide(registry, "1")
        wait_for(lambda: "signature_change: hold" in index(server)["linear", "1"]["reason"])
    assert not hammer.failures
    (registry / "linear" / "model.yaml").write_text("signature_change: allow\n")
    wait_for(lambda: post(server, "linear", WIDE)[0] == 200)


def test_at_a_start_the_newest_serves_whatever_its_inputs(registry):
    wide(registry, "2")
    (registry / "linear" / "model.yaml").write_text("versions: {policy: all}\n")
    with ServerProcess(registry) as server:
        assert post(server, "linear", WIDE)[1]["model_version"] == "2"
        assert post(server, "linear/versions/1", ROW)[0] == 200


def test_a_version_in_service_that_a_label_names_serves_on_while_its_successor_loads(registry, tmp_path):
    (registry / "linear" / "model.yaml").write_text("labels: {stable: 1}\n")
    with ServerProcess(registry) as server, Hammer(server) as hammer:
        in_place(made(tmp_path, "2"), registry / "linear" / "2")
        wait_for(serves(server, "2"))
    assert not hammer.failures


def test_an_older_version_that_comes_later_takes_nothing_from_the_one_in_service(registry, tmp_path):
    (registry / "linear" / "1").rename(tmp_path / "aside")
    in_place(made(tmp_path, "2"), registry / "linear" / "2")
    (registry / "linear" / "model.yaml").write_text("versions: {policy: all}\n")
    with ServerProcess(registry) as server, Hammer(server) as hammer:
        wide(registry, "1")
        wait_for(lambda: post(server, "linear/versions/1", WIDE)[0] == 200)
        (registry / "linear" / "model.yaml").write_text("versions: {policy: [9]}\n")
        wait_for(lambda: "version 2 serves on" in index(server)["linear", "2"]["reason"])
        wait_for(lambda: ("linear", "1") not in index(server))
    assert not hammer.failures
    assert {*hammer.versions} == {"2"}
    log = server.log_path.read_text()
    assert "version_swapped" not in log
    assert "version_on_hold" not in log
