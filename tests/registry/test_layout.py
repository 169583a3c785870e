"""What lies in a registry directory: names, kinds of files, links, permissions."""

import ast
import contextlib
import os
import tempfile
from pathlib import Path

import pytest

from batchmill import backends
from batchmill.core import ort
from batchmill.errors import ModelError, StartError
from batchmill.registry import layout
from e2e import models
from reference.registry import Kept


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ort.initialise()


def test_only_version_folders_count_and_the_rest_is_noted(tmp_path):
    for version in ("1", "02", "latest", "3.tmp", "٣", "-1"):
        models.linear(tmp_path / "registry", "m", version)
    (tmp_path / "registry" / "m" / "5").mkdir()
    (tmp_path / "registry" / ".hidden" / "1").mkdir(parents=True)
    (tmp_path / "registry" / "half.tmp" / "1").mkdir(parents=True)
    outside = models.linear(tmp_path / "elsewhere")
    (tmp_path / "registry" / "m" / "7").symlink_to(outside.parent)
    ((found,), _) = layout.scan(tmp_path / "registry")
    assert (found.name, list(found.versions)) == ("m", [1])
    assert len(found.notes) == 7
    assert any("outside" in note for note in found.notes)


def test_a_name_that_no_model_can_have_is_noted(tmp_path):
    for name in ("a" * 201, "two\nlines", "m@label", "other", "fine"):
        models.linear(tmp_path, name)
    (tmp_path / "other").rename(tmp_path / os.fsdecode(b"no UTF-8 \xff"))
    ((found,), notes) = layout.scan(tmp_path)
    assert (found.name, len(notes), all("ignored" in note and note.isprintable() for note in notes)) == ("fine", 4, True)


def test_what_is_no_file_is_no_model_and_is_never_opened(tmp_path):
    os.mkfifo(models.linear(tmp_path, "m", "1").parent.parent / "fifo")
    for version, make in (("2", os.mkfifo), ("3", os.mkdir), ("4", lambda path: os.symlink("/dev/zero", path))):
        (tmp_path / "m" / version).mkdir()
        make(tmp_path / "m" / version / "model.onnx")
    ((found,), _) = layout.scan(tmp_path)
    assert ([*found.versions], len(found.notes)) == ([1], 3)


def as_nobody(function):
    """What the function returns where permissions count: in a child, which gives up being root if it is."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            os.write(writer, repr(function()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(child, 0)
    return ast.literal_eval(text)


@pytest.fixture
def readable():
    """A folder that everybody may look into, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="batchmill-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_folder_that_may_not_be_read_is_told_and_leaves_the_others(readable):
    for name in "abc":
        models.linear(readable, name)
    models.linear(readable, "b", "2")
    for locked in (readable / "a", readable / "b" / "2"):
        locked.chmod(0)
    found = as_nobody(lambda: [(one.name, sorted(one.versions), one.problem) for one in layout.scan(readable).models])
    assert found == [("a", [], "its folder cannot be read: Permission denied"), ("b", [1, 2], ""), ("c", [1], "")]
    readable.chmod(0)
    assert as_nobody(lambda: told(lambda: layout.scan(readable))) == f"{readable}: Permission denied"


def test_a_version_that_may_not_be_read_fails_and_says_so(readable):
    path, backend = models.linear(readable, "b"), backends.find("onnxruntime")
    path.parent.chmod(0)
    assert as_nobody(lambda: told(lambda: backend.check(path))) == f"{path}: Permission denied"


def told(function):
    try:
        return function()
    except (StartError, ModelError) as error:
        return str(error)


def test_a_registry_that_is_not_there_is_told(tmp_path):
    with pytest.raises(StartError, match="no such"):
        layout.scan(tmp_path / "nothing")


@pytest.mark.parametrize(("path", "name", "version"), [
    ("digits/7/model.onnx", "digits", 7), ("digits/07/model.onnx", "model", 1), ("digits/7/other.onnx", "other", 1), ("model.onnx", "model", 1),
])
def test_a_single_file_has_the_name_and_version_of_its_folders(tmp_path, monkeypatch, path, name, version):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    monkeypatch.chdir(file.parent)
    for given in (file, Path(file.name)):
        ((found,), _) = layout.scan(given)
        assert (found.name, found.versions) == (name, {version: file})


@pytest.mark.parametrize(("files", "noted"), [(["config.pbtxt"], False), (["config.pbtxt", "model.yaml"], True), ([], False)])
def test_a_config_that_is_not_read_is_noted(tmp_path, files, noted):
    models.linear(tmp_path, "m")
    for file in files:
        (tmp_path / "m" / file).touch()
    ((found,), _) = layout.scan(tmp_path)
    assert any("config.pbtxt is not read" in note for note in found.notes) == noted


def test_a_model_whose_folder_cannot_be_read_serves_on_and_says_why(tmp_path, monkeypatch):
    for name in "ab":
        models.linear(tmp_path, name)
    whole = layout.scan_model

    def locked(folder, root, *, is_link):
        if folder.name == "b":
            raise PermissionError(13, "Permission denied")
        return whole(folder, root, is_link=is_link)

    with Kept(tmp_path, poll_secs=0.05) as kept:
        kept.wait(lambda now: all(name in now and now[name].pick() for name in "ab"))
        monkeypatch.setattr(layout, "scan_model", locked)
        kept.wait(lambda now: now["b"].reason == "its folder cannot be read: Permission denied")
        models.linear(tmp_path, "a", "2")
        kept.wait(lambda now: now["a"].pick().number == "2")
        assert kept.models["b"].pick() is not None
        monkeypatch.undo()
        kept.wait(lambda now: not now["b"].reason)
        assert kept.retired == ["1"]    # of a


def test_the_folder_of_a_model_in_the_place_of_a_registry_is_told(tmp_path):
    models.linear(tmp_path, "digits")
    (found,) = layout.scan(tmp_path / "digits").models
    assert found.notes == (f"'1' looks like a version, and {tmp_path}/digits like a model: a registry is the folder above its models' folders",)


def test_a_link_in_a_circle_is_no_folder_and_harms_no_other(tmp_path):
    models.linear(tmp_path, "a")
    for loop in tmp_path / "loop", tmp_path / "a" / "2", tmp_path / "a" / "config.pbtxt":
        loop.symlink_to(loop)
    ((found,), _) = layout.scan(tmp_path)
    assert (found.name, [*found.versions], found.problem) == ("a", [1], "")
