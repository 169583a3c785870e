"""What a load call brings: what is refused before anything is written, and that a registry is as it was, or as it shall be."""

import base64
import errno
import os
from pathlib import Path

import pytest

from batchmill.errors import InvalidUpload, StorageFailed, Unsupported
from batchmill.registry import layout, upload
from batchmill.registry.upload import Staged, clear_up, parsed
from e2e import models
from reference.proto import private_model_config


@pytest.fixture(scope="module", autouse=True)
def messages():
    with private_model_config():
        yield

NAMES = ("../x", "/etc/x", "1/../x", "1/../../x", "..", "1", "1/", "/1/model.onnx", "1//model.onnx", "1/a/b", "1\\model.onnx", "1/a\\b", "1/\0", "1/a\nb",
         "1/.hidden", "1/..", "1/.", "01/model.onnx", "-1/model.onnx", "0/model.onnx", "1.0/model.onnx", "latest/model.onnx", "9" * 20 + "/model.onnx",
         "١/model.onnx", "1/" + "a" * 256, "1/" + "é" * 101, "model.onnx", "config.pbtxt", "")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "registry").mkdir()
    return tmp_path / "registry"


@pytest.fixture
def model(tmp_path):
    """The bytes of a model."""
    return models.linear(tmp_path / "made").read_bytes()


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def staged(root, parameters, name="m"):
    found = Staged(root, parsed(name, parameters))
    try:
        found.write()
    except BaseException:
        found.close()
        raise
    return found


@pytest.mark.parametrize("name", [f"file:{name}" for name in NAMES] + ["file", "File:1/model.onnx", "x", ""])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(InvalidUpload, match="wanted") as caught:
        parsed("m", {"config": "{}", "file:1/model.onnx": b"x", name: b"x"})
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["", ".", "..", "../m", "a/b", "a\\b", "/m", ".m", "m.tmp", "m~", "m@1", "m\0", "m\n", "m" * 201, "é" * 150, ".upload-1"])
def test_a_model_that_can_have_no_folder_is_refused(name):
    with pytest.raises(InvalidUpload, match="no name that a model can have"):
        parsed(name, {"config": "{}", "file:1/model.onnx": b"x"})


@pytest.mark.parametrize(("parameters", "wanted"), [
    ({"file:1/model.onnx": b"x"}, "'config' is missing"),
    ({"config": "{}", "file:1/golden.npz": b"x"}, "'file:1/model.onnx' is missing"),
    ({"config": "{}", "file:1/model.onnx": 7}, "bytes wanted"),
    ({"config": "{}", "file:1/model.onnx": ["x"]}, "bytes wanted"),
    ({"config": {}, "file:1/model.onnx": b"x"}, "a text of JSON wanted"),
    ({"config": b"{}"}, "a text of JSON wanted"),
    ({"config": "{}", **{f"file:{number}/model.onnx": b"" for number in range(1, 2000)}}, "at most 1000 wanted"),
])
def test_an_upload_that_lacks_something_or_has_too_much_is_refused(parameters, wanted):
    with pytest.raises(InvalidUpload, match=wanted):
        parsed("m", parameters)


@pytest.mark.parametrize("text", ["a", "aaa", "a===", "=aaa", "aa=a", "aaa=aaaa", "aaa\n", "aa a", "aa-_", "\u00e9aaa", "aaaa" * 300_000 + "!aaa", "====", "\x00aaa"])
def test_what_is_no_base64_is_refused_and_nothing_is_left(root, text):
    with pytest.raises(InvalidUpload, match="'file:1/model.onnx': base64 wanted"):
        staged(root, {"config": "{}", "file:1/model.onnx": text})
    assert everything(root) == {}


@pytest.mark.parametrize("size", [0, 1, 2, 3, upload.PART * 3 // 4 - 1, upload.PART * 3 // 4, upload.PART * 3 // 4 + 1, upload.PART * 2])
def test_base64_comes_out_as_it_went_in(size):
    content = os.urandom(size)
    assert b"".join(upload.decoded(base64.b64encode(content).decode(), Path("1/x"))) == content


@pytest.mark.parametrize("name", ["weights.bin", "evil.so", "model.py", "model.yaml", "config.pbtxt", "passwd"])
def test_a_file_that_the_registry_does_not_know_is_refused_and_nothing_is_left(root, model, name):
    with pytest.raises(InvalidUpload, match=f"'file:1/{name}': model.onnx, golden.npz or external data"):
        staged(root, {"config": "{}", "file:1/model.onnx": model, f"file:1/{name}": b"x"})
    assert everything(root) == {}


def test_external_data_that_the_model_names_is_taken(root, tmp_path):
    path = models.external(tmp_path / "made")
    one = staged(root, {"config": "{}", "file:1/model.onnx": path.read_bytes(), "file:1/weights.bin": (path.parent / "weights.bin").read_bytes()})
    one.publish()
    one.close()
    assert everything(root) == {"m": None, "m/1": None, **{f"m/1/{name}": (path.parent / name).read_bytes() for name in ("model.onnx", "weights.bin")}}


@pytest.mark.parametrize("content", [b"", b"random", b"\x3a\xff\xff\xff\xff\x7f"])
def test_a_model_that_cannot_be_read_is_refused_in_words_without_our_folders(root, content):
    with pytest.raises(InvalidUpload) as caught:
        staged(root, {"config": "{}", "file:1/model.onnx": content})
    assert str(caught.value).startswith("1/model.onnx: ")
    assert everything(root) == {}


def test_what_is_half_written_is_no_model(root, model):
    one = staged(root, {"config": "{}", "file:1/model.onnx": model})
    assert layout.scan(root).models == []
    one.publish()
    assert [(folder.name, [*folder.versions]) for folder in layout.scan(root).models] == [("m", [1])]
    one.close()
    assert {*everything(root)} == {"m", "m/1", "m/1/model.onnx"}


@pytest.fixture
def full(root, model):
    """A model with versions 1 and 2, settings of both kinds, and a file of somebody's."""
    for number in (1, 2):
        (root / "m" / str(number)).mkdir(parents=True)
        (root / "m" / str(number) / "model.onnx").write_bytes(b"%d" % number)
    (root / "m" / "model.yaml").write_text("versions: {policy: all}\n")
    (root / "m" / "config.pbtxt").write_text('name: "m"\n')
    (root / "m" / "README").write_text("mine")
    return root


UPLOADS = ({"config": "{}"}, {"config": '{"max_batch_size": 4}'}, {"config": '{"batching": {"max_batch_size": 4}}'})


@pytest.mark.parametrize("parameters", UPLOADS)
@pytest.mark.parametrize("versions", [(), (2,), (3,), (1, 2, 3)])
def test_what_is_taken_back_leaves_the_registry_as_it_was(full, model, parameters, versions):
    before = everything(full)
    one = staged(full, {**parameters, **{f"file:{number}/model.onnx": model for number in versions}})
    one.publish()
    now = {name: content for name, content in everything(full).items() if not name.startswith(".upload")}
    assert (now != before) == bool(versions or parameters["config"] != "{}")
    one.undo()
    one.close()
    assert everything(full) == before


def test_an_upload_takes_the_place_of_its_versions_and_of_the_settings_and_of_nothing_else(full, model):
    one = staged(full, {"config": '{"max_batch_size": 4}', "file:2/model.onnx": model})
    one.publish()
    one.close()
    left = everything(full)
    assert (left["m/1/model.onnx"], left["m/2/model.onnx"], left["m/README"]) == (b"1", model, b"mine")
    assert "m/model.yaml" not in left
    assert b"max_batch_size: 4" in left["m/config.pbtxt"]


def test_an_empty_config_leaves_the_settings_that_are_there(full, model):
    one = staged(full, {"config": "{}", "file:2/model.onnx": model})
    one.publish()
    one.close()
    assert (full / "m" / "model.yaml").read_text() == "versions: {policy: all}\n"


@pytest.mark.parametrize("config", ['{"max_batch_size": "many"}', '{"batching": {"max_batch_size": 0}}', '{"name": "other"}', '{"backend": "python"}'])
def test_a_config_that_no_model_can_have_is_refused_and_nothing_is_left(root, model, config):
    with pytest.raises(InvalidUpload, match="config"):
        staged(root, {"config": config, "file:1/model.onnx": model})
    assert everything(root) == {}


@pytest.mark.parametrize("place", ["m", "m/1"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_nothing_is_written_through_a_link_or_over_a_file(root, tmp_path, model, place, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / place).parent.mkdir(exist_ok=True)
    if kind == "link":
        (root / place).symlink_to(outside)
    else:
        (root / place).write_text("mine")
    before = everything(root)
    one = staged(root, {"config": "{}", "file:1/model.onnx": model})
    with pytest.raises(InvalidUpload, match="link"):
        one.publish()
    one.close()
    assert everything(root) == before
    assert not any(outside.iterdir())


def test_a_config_alone_needs_a_model(root):
    one = staged(root, {"config": '{"max_batch_size": 4}'})
    with pytest.raises(InvalidUpload, match="the registry has none of that name"):
        one.publish()
    one.close()
    assert everything(root) == {}


def test_a_single_file_takes_no_uploads(root, model):
    (root / "m.onnx").write_bytes(model)
    with pytest.raises(Unsupported, match="a registry directory"):
        Staged(root / "m.onnx", parsed("m", {"config": "{}", "file:1/model.onnx": model}))


@pytest.mark.parametrize("after", range(8))
def test_a_disk_that_fails_in_the_middle_of_a_publication_leaves_the_registry_as_it_was(full, model, monkeypatch, after):
    """after: how many renames work."""
    before = everything(full)
    one = staged(full, {"config": '{"max_batch_size": 4}', "file:2/model.onnx": model, "file:3/model.onnx": model})
    rename, left = os.rename, [after]

    def fails_once(source, target):
        left[0] -= 1
        if left[0] == -1:
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_once)
    if after < 6:   # two are set aside for the settings, one for version 2, and three come in their place
        with pytest.raises(StorageFailed, match="cannot be written: Input/output error"):
            one.publish()
    else:
        one.publish()
        monkeypatch.undo()
        one.undo()
    one.close()
    assert everything(full) == before


def test_a_registry_that_cannot_be_written_says_so_and_has_nothing_of_it(root, model, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed, match="cannot be written: No space left on device"):
        staged(root, {"config": "{}", "file:1/model.onnx": model})
    assert everything(root) == {}


@pytest.mark.parametrize("aside", [("model.yaml",), ("model.yaml", "config.pbtxt"), ("model.yaml", "config.pbtxt", "2")])
def test_what_a_server_set_aside_when_it_was_ended_is_back_at_the_next_start(full, model, aside):
    before = everything(full)
    one = staged(full, {"config": '{"max_batch_size": 4}', "file:2/model.onnx": model})
    for name in aside:
        one._set_aside(name)
    os.close(one._lock)     # as the end of a process does
    clear_up(full)
    assert everything(full) == before


@pytest.mark.parametrize("parameters", UPLOADS)
def test_what_a_server_published_when_it_was_ended_stays(full, model, parameters):
    one = staged(full, {**parameters, "file:2/model.onnx": model})
    one.publish()
    published = everything(full / "m")
    os.close(one._lock)
    clear_up(full)
    assert everything(full / "m") == published
    assert [path.name for path in full.iterdir()] == ["m"]


def test_what_another_server_writes_just_now_is_left_alone(root, model):
    one = staged(root, {"config": "{}", "file:1/model.onnx": model})
    clear_up(root)
    one.publish()
    one.close()
    assert {*everything(root)} == {"m", "m/1", "m/1/model.onnx"}
