"""Where the state lies, and that one server at a time has it."""

import os
import subprocess
import sys

import pytest

from batchmill.errors import StartError
from batchmill.state import State, default_folder


def test_each_registry_has_a_folder_of_its_own_whatever_path_leads_to_it(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    environment = {"XDG_STATE_HOME": "/var/state"}
    a, b, link = (default_folder(tmp_path / name, environment) for name in ("a", "b", "link"))
    assert a == link != b
    assert str(a.parent) == "/var/state/batchmill"


@pytest.mark.parametrize("given", [{}, {"XDG_STATE_HOME": ""}, {"XDG_STATE_HOME": "not/absolute"}])
def test_without_xdg_state_home_it_lies_below_the_home_folder(tmp_path, monkeypatch, given):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder(tmp_path, given).parent == tmp_path / ".local" / "state" / "batchmill"


def test_a_second_owner_is_refused_by_name_until_the_first_has_closed_it(tmp_path):
    first = State(tmp_path / "deep" / "state", tmp_path / "models")
    with pytest.raises(StartError, match=f"another server has this state directory \\(process {os.getpid()}, registry {tmp_path}/models\\)"):
        State(tmp_path / "deep" / "state", tmp_path)
    first.close()
    assert State(tmp_path / "deep" / "state", tmp_path).folder


def test_the_lock_ends_with_its_process(tmp_path):
    code = f"from pathlib import Path; from batchmill.state import State; import os; State(Path({str(tmp_path)!r}), Path()); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert State(tmp_path, tmp_path).folder


@pytest.mark.parametrize("place", ["a file", "a file/below", None, "/proc/state"])
def test_a_place_that_cannot_be_written_is_told_and_done_without(tmp_path, caplog, place):
    (tmp_path / "a file").touch()
    descriptors = os.listdir("/proc/self/fd")
    assert State(place and tmp_path / place, tmp_path).folder is None
    (told,) = [record.fields for record in caplog.records if record.getMessage() == "state_not_kept"]
    assert told["reason"]
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_folder_that_others_may_read_is_not_made(tmp_path):
    State(tmp_path / "state", tmp_path).close()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
