"""What is done to the registry (faults F) and is not in test_hot.py, test_safety.py, test_gates.py, test_settings.py or tests/registry."""

from __future__ import annotations

import ctypes
import os
import pickle
import shutil
import sys
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from onnx import helper, numpy_helper

from reference import proto
from reference.processes import Held

from . import models, wire
from .faults import ask, infer, request, rest_body
from .server import ServerProcess
from .test_behaviour import post
from .test_hot import ROW, Hammer, in_place, index, made, serves, wait_for

IN_ACCESS, IN_OPEN, IN_NONBLOCK = 1, 32, os.O_NONBLOCK


def failures_told(server, name):
    lines = server.get("/metrics")[1].decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("batchmill_version_failures_total{") and f'"{name}"' in line)


def test_a_broken_version_is_told_once_however_often_the_registry_is_looked_at(registry):
    with ServerProcess(registry, "--poll-secs", "0.2") as server, Hammer(server) as hammer:
        in_place(b"random", registry / "linear" / "2")
        (registry / "linear" / "3").mkdir()
        wait_for(lambda: index(server).get(("linear", "2"), {}).get("state") == "UNAVAILABLE")
        time.sleep(0.8)
        log = server.log_path.read_text()
        assert log.count('"version_failed"') == 1
        assert log.count("version 3 ignored: no model.onnx in it") == 1
        assert failures_told(server, "linear") == 1
    assert not hammer.failures


def test_a_version_in_service_never_goes_back_to_an_older_one_by_itself(registry, tmp_path):
    in_place(made(tmp_path, "2"), registry / "linear" / "2")
    (registry / "linear" / "model.yaml").write_text("versions: {policy: all}\n")
    with ServerProcess(registry, "--poll-secs", "0.2") as server, Hammer(server) as hammer:
        (registry / "linear" / "2" / "model.onnx").write_bytes(b"random")
        wait_for(lambda: "refused" in index(server)["linear", "2"]["reason"])
        in_place(b"random", registry / "linear" / "3")
        wait_for(lambda: index(server).get(("linear", "3"), {}).get("state") == "UNAVAILABLE")
        shutil.rmtree(registry / "linear" / "3")
        os.utime(registry / "linear" / "1" / "model.onnx")
        time.sleep(0.5)
    assert not hammer.failures
    assert {*hammer.versions} == {"2"}


def test_callers_who_leave_before_a_load_has_ended_end_nothing(registry, tmp_path):
    """Over REST and gRPC: the registry is followed on, and the next call is answered."""
    called = "/inference.GRPCInferenceService/RepositoryModel"
    with ServerProcess(registry, "--poll-secs", "0.2") as server, Hammer(server) as hammer, grpc.insecure_channel(server.address) as channel:
        os.rename(models.slow(tmp_path / "made", 400).parents[1], registry / "slow")  # takes a while to load
        left = []  # whether the caller did before it was answered: an unload may be quicker
        for what in ("Load", "Unload", "Load"):
            sent = proto.message(f"RepositoryModel{what}Request")(model_name="slow").SerializeToString()
            call = channel.unary_unary(called + what).future(sent, timeout=30)
            time.sleep(0.05 if what == "Load" else 0.001)
            left.append(call.cancel() and call.cancelled())
            with wire.connect(server.port) as connection:
                connection.sendall(request("/v2/repository/models/slow/load"))
                time.sleep(0.1)
        assert left[0]
        in_place(made(tmp_path, "2"), registry / "linear" / "2")
        wait_for(serves(server, "2"), 30)
        assert ask(server, "/v2/repository/models/slow/load")[0] == 200
        assert "registry_fault" not in server.log_path.read_text()
    assert not hammer.failures


def emptied(registry, aside):
    """As an unmounted file system leaves it."""
    aside.mkdir()
    for entry in [*registry.iterdir()]:
        entry.rename(aside / entry.name)
    return lambda: [entry.rename(registry / entry.name) for entry in [*aside.iterdir()]]


def renamed(registry, aside):
    registry.rename(aside)
    return lambda: aside.rename(registry)


@pytest.mark.parametrize("vanish", [emptied, renamed])
def test_a_registry_that_vanishes_is_told_and_serves_on_and_is_taken_up_again(registry, tmp_path, vanish):
    with ServerProcess(registry, "--poll-secs", "0.2") as server, Hammer(server) as hammer:
        back = vanish(registry, tmp_path / "aside")
        wait_for(lambda: '"registry_vanished"' in server.log_path.read_text())
        status, body = ask(server, "/v2/repository/models/linear/load")
        assert (status, b"gone or empty" in body) == (503, True)
        time.sleep(0.5)
        back()
        in_place(made(tmp_path, "2"), registry / "linear" / "2")
        wait_for(serves(server, "2"))
    assert not hammer.failures
    assert server.log_path.read_text().count('"registry_vanished"') == 1


# Root may read what nobody may, but for these two powers of it.
AS_OTHERS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if os.getuid() == 0 else ()


def test_what_may_not_be_read_is_told_once_and_served_when_it_may(registry, tmp_path):
    models.linear(registry, "other")
    program = (*AS_OTHERS, sys.executable, "-m", "batchmill")
    with ServerProcess(registry, "--poll-secs", "0.2", program=program) as server, Hammer(server) as hammer:
        os.rename(locked(models.linear(tmp_path / "made", "linear", "2", 2.0).parent), registry / "linear" / "2")
        wait_for(lambda: "Permission denied" in index(server).get(("linear", "2"), {}).get("reason", ""))
        time.sleep(0.6)
        assert server.log_path.read_text().count('"version_failed"') == 1
        (registry / "linear" / "2").chmod(0o755)
        wait_for(serves(server, "2"))
        locked(registry)
        wait_for(lambda: '"registry_vanished"' in server.log_path.read_text())
        time.sleep(0.6)
        assert infer(server, "other", rest_body("x", "FP32", [1, 8], [0.0] * 8))[0] == 200
        registry.chmod(0o755)
        in_place(made(tmp_path, "3"), registry / "linear" / "3")
        wait_for(serves(server, "3"))
    assert not hammer.failures
    assert server.log_path.read_text().count('"registry_vanished"') == 1


def locked(folder):
    folder.chmod(0)
    return folder


def test_weights_for_which_the_disk_has_no_room_fail_their_version_alone(registry, tmp_path):
    """A file that may not grow any more stands for the full disk: the copy that the runtime maps cannot be written."""
    limited = ("prlimit", f"--fsize={2 << 20}", sys.executable, "-m", "batchmill")
    with ServerProcess(registry, program=limited) as server, Hammer(server) as hammer:
        os.rename(models.external(tmp_path / "made").parents[1], registry / "external")
        wait_for(lambda: "File too large" in index(server).get(("external", "1"), {}).get("reason", ""))
        in_place(made(tmp_path, "2"), registry / "linear" / "2")
        wait_for(serves(server, "2"))
    assert not hammer.failures


def test_a_model_file_of_many_gigabytes_is_refused_without_its_bytes_in_memory(registry, tmp_path):
    huge = tmp_path / "made" / "huge" / "1" / "model.onnx"
    huge.parent.mkdir(parents=True)
    huge.touch()
    os.truncate(huge, 20 << 30)
    with ServerProcess(registry) as server, Hammer(server) as hammer:
        before = Held.by(server.process.pid).rss_kb
        os.rename(huge.parents[1], registry / "huge")
        wait_for(lambda: "2 GiB" in index(server).get(("huge", "1"), {}).get("reason", ""))
        assert Held.by(server.process.pid).rss_kb - before < 64 << 10
    assert not hammer.failures


def folded(registry):
    """Each run of it wants 4 TiB, and the runtime may try so while it loads: the size is a constant."""
    size = numpy_helper.from_array(np.array([2**40], np.int64), "size")
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["huge"]), helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
             helper.make_node("Add", ["x", "sum"], ["y"])]
    return models.write(registry, "folded", nodes, [models.value("x", "FP32", ["n", 8])], [models.value("y", "FP32", ["n", 8])], [size])


def test_a_model_that_needs_more_memory_than_there_is_harms_no_other(registry, tmp_path):
    with ServerProcess(registry) as server, Hammer(server) as hammer:
        os.rename(folded(tmp_path / "aside").parents[1], registry / "folded")
        wait_for(lambda: index(server).get(("folded", "1"), {}).get("state") in ("READY", "UNAVAILABLE"), 20)
        for _ in range(20):
            status, answer = post(server, "folded", ROW)
            assert (status, "memory" in answer["error"]) == (429, True), answer
        assert server.get("/v2/health/ready")[0] == 200
    assert not hammer.failures


class Bomb:
    """Unpickled, or imported, it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_nothing_but_models_is_loaded_from_a_registry(registry, tmp_path):
    trace = tmp_path / "trace"
    library = next(path for path in map(Path, ("/lib/x86_64-linux-gnu/libm.so.6", "/lib64/libm.so.6", "/usr/lib/libm.so.6")) if path.exists())
    for folder in (registry, registry / "linear", registry / "linear" / "1"):
        for name in ("model.py", "__init__.py", "sitecustomize.py", "handler.py", "conftest.py"):
            (folder / name).write_text(f"import os\nos.mkdir({str(trace)!r})\n")
        for name in ("model.pkl", "model.joblib", "weights.pt", "model.mar"):
            (folder / name).write_bytes(pickle.dumps(Bomb(trace)))
        shutil.copy(library, folder / "custom_ops.so")
    np.savez(registry / "linear" / "1" / "golden.npz", **{"in:x": np.array([Bomb(trace)], object), "out:y": np.zeros((1, 4), np.float32)})
    for name, text in (("by_url", "backend: http://127.0.0.1:1/x\n"), ("by_library", "custom_op_library: custom_ops.so\n"), ("by_tag", "parameters: !!python/object/apply:os.mkdir [trace]\n"),
                       ("by_python", "backend: python\n"), ("by_provider", "execution_providers: [./custom_ops.so]\n")):
        models.linear(registry, name)
        (registry / name / "model.yaml").write_text(text)
    models.linear(registry, "fine")
    with ServerProcess(registry) as server:
        assert infer(server, "fine", rest_body("x", "FP32", [1, 8], [0.0] * 8))[0] == 200
        states = {name: one["state"] for (name, _), one in index(server).items()}
        assert states == {"fine": "READY", **dict.fromkeys(("by_url", "by_library", "by_tag", "by_python", "by_provider", "linear"), "UNAVAILABLE")}
        assert str(registry) not in Path(f"/proc/{server.process.pid}/maps").read_text().replace("model.onnx", "")
        assert index(server)["linear", "1"]["reason"].startswith("golden: ")
    assert not trace.exists()


def test_names_that_are_no_versions_and_files_that_are_none_hold_up_no_start(registry):
    for name in ("01", "1.bak", "-1", "latest", "1" + "0" * 30, "٣", "²", "v" * 255, "new\nline", "2.tmp", "3.part", ".hidden"):
        (registry / "linear" / name).mkdir()
        shutil.copy(registry / "linear" / "1" / "model.onnx", registry / "linear" / name)
    for number, make in (("5", os.mkfifo), ("6", os.mkdir), ("7", lambda path: os.symlink("/dev/zero", path)), ("8", lambda path: os.symlink(path, path))):
        (registry / "linear" / number).mkdir()
        make(registry / "linear" / number / "model.onnx")
    os.mkfifo(registry / "fifo")
    os.mkfifo(registry / "linear" / "1" / "fifo")
    with ServerProcess(registry) as server:
        assert list(index(server)) == [("linear", "1")]
        assert serves(server, "1")()
        log = server.log_path.read_text()
        for name in ("'01'", "'1.bak'", "'latest'", "version 5", "version 6", "version 7", "version 8"):
            assert f"{name} ignored" in log, name


def watched(folder):
    """A descriptor that tells of each file in that folder which is opened or read by anybody."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(IN_NONBLOCK)
    assert descriptor >= 0
    assert libc.inotify_add_watch(descriptor, str(folder).encode(), IN_ACCESS | IN_OPEN) >= 0
    return descriptor


def was_touched(descriptor):
    try:
        return bool(os.read(descriptor, 4096))
    except BlockingIOError:
        return False


def test_no_path_and_no_name_of_a_caller_leads_to_a_file(registry, tmp_path):
    secret = models.linear(tmp_path, "secret")
    (tmp_path / "secret" / "model.yaml").touch()
    with ServerProcess(registry) as server, grpc.insecure_channel(server.address) as channel:
        events = [watched(folder) for folder in (secret.parent, secret.parents[1])]
        for name in ("../secret", "..%2fsecret", "%2e%2e%2fsecret", "%2e%2e/secret", f"{secret.parents[1]}", "linear/../../secret", "linear/versions/..%2f..%2f..%2fsecret%2f1",
                     "linear/labels/..%2fsecret", "..%5csecret", "../secret%00"):
            for path, method in ((f"/v2/models/{name}/infer", "POST"), (f"/v2/models/{name}", "GET"), (f"/v2/models/{name}/config", "GET"), (f"/v2/models/{name}/latency", "GET"),
                                 (f"/v2/repository/models/{name}/load", "POST"), (f"/v2/repository/models/{name}/unload", "POST"), (f"/{name}/1/model.onnx", "GET")):
                assert ask(server, path, b"", method=method)[0] in (400, 404, 405), path
        for name in ("../secret", f"{secret.parents[1]}", "..", "../secret\0", "."):
            for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
                sent = proto.message(f"{method}Request")(model_name=name).SerializeToString()
                with pytest.raises(grpc.RpcError, match="NOT_FOUND|INVALID"):
                    channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(sent, timeout=20)
        assert not any(map(was_touched, events))
        secret.read_bytes()
        assert was_touched(events[0]), "it would have been seen"
    for descriptor in events:
        os.close(descriptor)
