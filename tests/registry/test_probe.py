"""A version that ends, stops or holds up the process that loads it does so in a child, and the child leaves nothing behind."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from batchmill.registry import probe as module
from batchmill.registry.policy import VersionPolicy
from batchmill.registry.probe import Probe
from batchmill.registry.probe_child import revive
from batchmill.registry.settings import DeclaredPadding, DeclaredTensor, ModelSettings, PaddedInput
from e2e import models
from reference.processes import busy_child_of, children_of, is_alive, wait_until

OTHERS = set()  # children that were there before


@pytest.fixture(autouse=True)
def others():
    OTHERS.update(children_of(os.getpid()))


def children():
    return [pid for pid in children_of(os.getpid()) if pid not in OTHERS]


@pytest.fixture
def probe(others):
    """Leaves no process and no descriptor behind, whatever a test does with it."""
    before = len(os.listdir("/proc/self/fd"))
    probe = Probe(30)
    yield probe
    probe.close()
    wait_until(lambda: (len(os.listdir("/proc/self/fd")), children()) == (before, []))


def examine(probe, path, **settings):
    return probe.examine("m", "1", path, ModelSettings(**settings))


def test_a_version_that_loads_comes_with_the_proof_of_its_batching(tmp_path, probe):
    finding = examine(probe, models.linear(tmp_path))
    assert (finding.reason, finding.died, finding.proof.batched) == ("", False, True)
    assert finding.proof.reason.startswith("proved")
    assert not examine(probe, models.linear(tmp_path), batching="off").proof.batched


def test_a_version_that_is_refused_says_why_as_without_a_child(tmp_path, probe):
    path = models.linear(tmp_path)
    path.write_bytes(b"broken")
    finding = examine(probe, path)
    assert (finding.reason, finding.died) == (f"{path}: not a readable ONNX file: a field is longer than the file", False)


def test_a_crash_ends_the_child_alone_and_says_where(tmp_path, probe):
    finding = examine(probe, models.fatal(tmp_path))
    assert (finding.reason, finding.died) == ("probe: ended by SIGFPE while it created the session", True)
    assert examine(probe, models.linear(tmp_path)).reason == ""


def test_a_child_serves_many_versions_and_a_crash_is_not_blamed_on_the_next(tmp_path, probe):
    path = models.linear(tmp_path)
    examine(probe, path)
    (first,) = children()
    assert examine(probe, path).reason == ""
    assert children() == [first]
    os.kill(first, signal.SIGKILL)
    assert examine(probe, path).reason == ""
    assert examine(probe, models.fatal(tmp_path)).reason == "probe: ended by SIGFPE while it created the session"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_child_that_is_killed_says_by_what(tmp_path, probe, number):
    path = models.slow(tmp_path, 8000)
    killing = threading.Thread(target=lambda: os.kill(busy_child_of(os.getpid()), number))
    killing.start()
    finding = examine(probe, path)
    killing.join()
    assert finding.died
    assert finding.reason.startswith(f"probe: ended by {number.name}")
    assert ("out of memory?" in finding.reason) == (number == signal.SIGKILL)


@pytest.mark.parametrize("stopped", [False, True])
def test_a_load_without_end_is_ended(tmp_path, stopped):
    probe = Probe(1.5)
    path = models.slow(tmp_path, 8000)
    if stopped:
        stopping = threading.Thread(target=lambda: os.kill(busy_child_of(os.getpid()), signal.SIGSTOP))
        stopping.start()
    finding = examine(probe, path)
    assert finding.died
    assert finding.reason.startswith("probe: not done after 1.5 s, while it ")
    assert children() == []


def test_an_idle_child_ends_after_a_while(tmp_path, probe, monkeypatch):
    monkeypatch.setattr(module, "IDLE_SECS", 0.05)
    examine(probe, models.linear(tmp_path))
    wait_until(lambda: not children())
    assert examine(probe, models.linear(tmp_path)).reason == ""


def test_close_ends_what_is_being_examined(tmp_path):
    probe, findings = Probe(30), []
    examining = threading.Thread(target=lambda: findings.append(examine(probe, models.slow(tmp_path, 8000))))
    examining.start()
    busy_child_of(os.getpid())
    probe.close()
    examining.join(10)
    assert findings[0].died
    assert examine(probe, models.linear(tmp_path)).reason == "probe: the server stops"
    assert children() == []


@pytest.mark.parametrize("stopped", [False, True])
def test_a_child_ends_with_its_server_even_when_stopped(tmp_path, stopped):
    code = f"""
from pathlib import Path
from batchmill.registry.probe import Probe
from batchmill.registry.settings import ModelSettings
print(Probe(30).examine("m", "1", Path({str(models.slow(tmp_path, 8000))!r}), ModelSettings()))"""
    server = subprocess.Popen([sys.executable, "-c", code])
    child = busy_child_of(server.pid)
    if stopped:
        os.kill(child, signal.SIGSTOP)
    server.kill()
    server.wait()
    wait_until(lambda: not is_alive(child), 2)


def test_without_a_child_the_version_is_refused_and_the_way_out_is_told(tmp_path, probe, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    finding = examine(probe, models.linear(tmp_path))
    assert (finding.reason, finding.died) == ("probe: no child could be started (No such file or directory); --probe-timeout-secs 0 does without", False)


def test_what_lies_in_the_working_directory_is_not_taken_for_a_module(tmp_path, probe, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('taken')")
    monkeypatch.chdir(tmp_path)
    assert examine(probe, models.linear(tmp_path).relative_to(tmp_path)).reason == ""


def test_a_child_is_lean():
    code = "import sys, batchmill.registry.probe_child; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"asyncio", "uvloop", "numpy", "onnxruntime", "grpc", "google", "starlette", "pydantic", "yaml", "prometheus_client", "watchfiles"}


@pytest.fixture
def external(tmp_path):
    """Made before the probe counts descriptors: to write one takes a UUID, for which libuuid keeps a file open where it has one."""
    return models.external(tmp_path)


def test_external_data_is_read_and_no_copy_left(external, tmp_path, probe, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    assert examine(probe, external).reason == ""
    assert not [*(tmp_path / "tmp").glob("batchmill*")]


@dataclasses.dataclass(frozen=True)
class Nested:
    policy: VersionPolicy | None = None
    names: tuple[str, ...] = ()


@pytest.mark.parametrize("given", [
    ModelSettings(), ModelSettings(VersionPolicy("specific", numbers=(1, 2)), {"a": "1"}, "on", 7, execution_providers=("A", "B"), without_effect=("slo",)),
    ModelSettings(declared=(DeclaredTensor("config.pbtxt:3:1", "input", "x", "FP32", (-1, 4), "with"), DeclaredTensor("", "output", "y", "", None, "either"))),
    ModelSettings(padding=DeclaredPadding((PaddedInput("ids", 2, True), PaddedInput("x", 1, float("-inf"))), (("y", 1), ("z", 2)), (16, 32))),
    Nested(), Nested(VersionPolicy("all"), ("x",)),
])
def test_settings_arrive_as_they_were(given):
    assert revive(type(given), json.loads(json.dumps(dataclasses.asdict(given)))) == given


def test_a_child_is_of_this_session_and_not_of_this_group(probe, tmp_path):
    """A terminal's Ctrl-C goes to the group; the kernel's autogroups give each session its own share of a core, however nice it is."""
    assert not examine(probe, models.linear(tmp_path)).reason
    (child,) = probe._all
    assert os.getsid(child._process.pid) == os.getsid(0)
    assert os.getpgid(child._process.pid) == child._process.pid
