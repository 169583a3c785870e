"""What a server died over is known at its next start, and nothing else is."""

import os

import pytest

from batchmill.core import ort
from batchmill.registry import journal as module
from batchmill.registry.journal import Journal, fingerprint
from batchmill.registry.safety import SafeLoader
from batchmill.registry.settings import ModelSettings
from e2e import models

ALIVE = []
PATHS = ["/models/m/1/model.onnx", "/with\ttab and\nline/model.onnx", "/r\udce9/ü/модель/model.onnx"]


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ort.initialise()


def died_while_loading(folder, *paths, files="f"):
    """As kill -9 leaves it."""
    journal = Journal(folder)
    for path in paths:
        loading = journal.loading(path, files)
        loading.__enter__()
        ALIVE.append(loading)  # or its end would be told when it is collected
    return journal


@pytest.mark.parametrize("path", PATHS)
def test_deaths_over_the_same_files_are_counted_in_a_row(tmp_path, path):
    for count in range(4):
        assert Journal(tmp_path).deaths(path, "f") == count
        died_while_loading(tmp_path, path)
    assert Journal(tmp_path).deaths(path, "changed") == 0
    died_while_loading(tmp_path, path, files="changed")
    assert Journal(tmp_path).deaths(path, "changed") == 1


def test_to_live_through_a_load_ends_the_row(tmp_path):
    died_while_loading(tmp_path, "a", "b")
    with Journal(tmp_path).loading("a", "f"):
        pass
    assert [Journal(tmp_path).deaths(path, "f") for path in "ab"] == [0, 1]


def test_a_load_that_raises_has_ended(tmp_path):
    with pytest.raises(RuntimeError), Journal(tmp_path).loading("a", "f"):
        raise RuntimeError
    assert not Journal(tmp_path).has_suspects


def test_a_server_that_ends_by_its_own_will_blames_nobody(tmp_path):
    died_while_loading(tmp_path, "a").close()
    assert not Journal(tmp_path).has_suspects


def test_it_does_not_grow_without_end(tmp_path, monkeypatch):
    died_while_loading(tmp_path, "guilty")
    monkeypatch.setattr(module, "COMPACT_BYTES", 500)
    journal = Journal(tmp_path)
    for number in range(1000):
        with journal.loading(str(number), "f"):
            pass
    assert (tmp_path / "loads").stat().st_size < 600
    assert Journal(tmp_path).deaths("guilty", "f") == 1


@pytest.mark.parametrize("content", [b"", b"began", b"began\tf", b"died x\tf\ta\n", b"\xff\xfe\t\\x\t\\\n\n\t\t\t", os.urandom(300)])
def test_a_spoiled_file_ends_no_start(tmp_path, content):
    (tmp_path / "loads").write_bytes(content)
    assert Journal(tmp_path).deaths("a", "f") == 0


def test_without_a_place_or_on_a_full_disk_loads_go_on(tmp_path, caplog):
    for folder in (None, tmp_path / "nowhere"):
        with Journal(folder).loading("a", "f"):
            pass
    journal = Journal(tmp_path)
    os.dup2(os.open("/dev/full", os.O_WRONLY), journal._file)
    with journal.loading("a", "f"), journal.loading("b", "f"):
        pass
    assert [record.getMessage() for record in caplog.records].count("journal_not_kept") == 2


def test_a_fingerprint_changes_with_the_files_and_their_settings_alone(tmp_path):
    path = models.linear(tmp_path, "m")
    found = [fingerprint(path)]
    (tmp_path / "m" / "2").mkdir()
    assert fingerprint(path) == found[0]
    for change in (path.touch, (path.parent / "golden.npz").touch, (tmp_path / "m" / "model.yaml").touch):
        change()
        found.append(fingerprint(path))
    assert len(set(found)) == 4


def loaded(folder, path, *, probing=False, timeout=30):
    """The version as a server makes it that starts on this state, and the deaths that the next one will know of."""
    loader = SafeLoader(1, timeout, Journal(folder))
    if probing:
        loader.start_probing()
    status = loader.load("m", 1, path, ModelSettings())
    loader.close()
    return status, Journal(folder).deaths(path, fingerprint(path))


def test_an_innocent_suspect_is_tried_in_a_child_and_served(tmp_path):
    path = models.linear(tmp_path)
    died_while_loading(tmp_path, path, files=fingerprint(path))
    status, deaths = loaded(tmp_path, path)
    assert (status.state, status.batched, deaths) == ("READY", True, 0)


def test_a_guilty_one_is_quarantined_at_the_next_start_and_not_tried_at_the_one_after(tmp_path):
    path = models.fatal(tmp_path)
    died_while_loading(tmp_path, path, files=fingerprint(path))
    status, deaths = loaded(tmp_path, path)
    assert (status.state, deaths) == ("FAILED", 2)
    assert status.reason.startswith("quarantined: the server died while it loaded this version, and now a child did; probe: ended by SIGFPE")
    status, deaths = loaded(tmp_path, path)
    assert (status.state, deaths) == ("FAILED", 2)
    assert status.reason.startswith("quarantined: the server died while it loaded this version, 2 times in a row; it is loaded again when")


@pytest.mark.parametrize("release", ["touch", "call"])
def test_a_quarantine_ends_with_a_touch_or_a_load_call(tmp_path, release):
    path = models.linear(tmp_path)
    for _ in range(2):
        died_while_loading(tmp_path, path, files=fingerprint(path))
    assert loaded(tmp_path, path)[0].state == "FAILED"
    if release == "touch":
        path.touch()
    assert loaded(tmp_path, path, probing=release == "call")[0].state == "READY"
    assert loaded(tmp_path, path)[0].state == "READY"


def test_without_a_probe_a_suspect_has_a_second_chance(tmp_path):
    path = models.linear(tmp_path)
    died_while_loading(tmp_path, path, files=fingerprint(path))
    assert loaded(tmp_path, path, timeout=0)[0].state == "READY"
