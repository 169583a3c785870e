"""A load call that brings files, on a real registry and real models: it serves, or everything is as it was."""

import asyncio
import threading

import pytest

from batchmill.core import ort
from batchmill.endpoints.uploads import Uploads
from batchmill.errors import InvalidUpload, ModelError, UploadUnderWay
from batchmill.registry.loader import load_version
from e2e import models
from reference.proto import private_model_config
from reference.registry import WAIT_SECS, Kept


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ort.initialise()
    with private_model_config():
        yield


@pytest.fixture
def root(tmp_path):
    models.linear(tmp_path / "registry")
    return tmp_path / "registry"


def made(tmp_path, factor=3.0):
    return models.linear(tmp_path / "made", factor=factor).read_bytes()


def other(tmp_path):
    return models.lookup(tmp_path / "made").read_bytes()


def kept(root, **options):
    found = Kept(root, watched=False, **options)
    found.wait(lambda _: found.complete)
    return found


def upload(found, name, **parameters):
    uploads = Uploads(found.keeper._root, found.keeper, lambda: found.models)
    asyncio.run(asyncio.wait_for(uploads.load(name, {"config": "{}", **{key.replace("_", "/"): value for key, value in parameters.items()}}), WAIT_SECS))


def served(found):
    return {f"{name}/{version.number}": version.served for name, model in found.models.items() for version in model.ready()}


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_new_model_a_new_version_and_one_in_the_place_of_another_are_served(root, tmp_path):
    with kept(root) as found:
        upload(found, "fresh", **{"file:7/model.onnx": made(tmp_path)})
        assert {*served(found)} == {"fresh/7", "linear/1"}
        upload(found, "linear", **{"file:2/model.onnx": made(tmp_path)})
        assert {*served(found)} == {"fresh/7", "linear/2"}
        before = served(found)
        upload(found, "linear", **{"file:2/model.onnx": made(tmp_path, 4.0)})
        assert {*served(found)} == {"fresh/7", "linear/2"}
        assert served(found)["linear/2"] is not before["linear/2"]
        assert {*files(root)} == {"fresh/7/model.onnx", "linear/1/model.onnx", "linear/2/model.onnx"}


@pytest.mark.parametrize("name", ["linear", "fresh"])
@pytest.mark.parametrize("number", ["1", "2"])
@pytest.mark.parametrize("content", [b"", b"random", b"fatal"])
def test_a_model_that_cannot_be_loaded_leaves_what_served_before_alone(root, tmp_path, name, number, content):
    """fatal: readable, and not loadable."""
    content = models.write(tmp_path / "made", "bad", [models.helper.make_node("Nonsense", ["x"], ["y"])], [models.value("x", "FP32", [1])],
                           [models.value("y", "FP32", [1])]).read_bytes() if content == b"fatal" else content
    before = files(root)
    with kept(root) as found:
        serving = served(found)
        with pytest.raises((ModelError, InvalidUpload)) as caught:
            upload(found, name, **{f"file:{number}/model.onnx": content})
        assert str(root) not in str(caught.value)
        assert [*served(found)] == [*serving]
        assert [*found.models] == ["linear"]
        assert not any(version.reason for version in found.models["linear"].versions.values())
        assert files(root) == before
        assert [path.name for path in root.iterdir()] == ["linear"]


def test_the_first_upload_into_an_empty_registry_may_fail(tmp_path):
    (tmp_path / "registry").mkdir()
    with kept(tmp_path / "registry") as found:
        with pytest.raises(ModelError, match="version 1: golden: "):
            upload(found, "m", **{"file:1/model.onnx": made(tmp_path), "file:1/golden.npz": b"no zip"})
        assert not found.models
        assert not [*(tmp_path / "registry").iterdir()]
        upload(found, "m", **{"file:1/model.onnx": made(tmp_path)})
        assert [*served(found)] == ["m/1"]


def test_a_version_that_the_policy_does_not_want_is_refused(root, tmp_path):
    models.linear(root, version="5")
    with kept(root) as found:
        with pytest.raises(ModelError, match="version 3 would not be served: the version policy wants others"):
            upload(found, "linear", **{"file:3/model.onnx": made(tmp_path)})
        assert not (root / "linear" / "3").exists()
        upload(found, "linear", config='{"version_policy": {"all": {}}}', **{"file:3/model.onnx": made(tmp_path)})
        assert {*served(found)} == {"linear/1", "linear/3", "linear/5"}


def test_other_inputs_under_the_number_in_service_are_refused(root, tmp_path):
    with kept(root) as found:
        with pytest.raises(ModelError, match="version 1: its files have changed, and were refused"):
            upload(found, "linear", **{"file:1/model.onnx": other(tmp_path)})
        assert not found.models["linear"].versions["1"].reason


def test_an_older_version_that_is_broken_is_no_fault_of_an_upload(root, tmp_path):
    (root / "linear" / "2").mkdir()
    (root / "linear" / "2" / "model.onnx").write_bytes(b"random")
    with kept(root) as found:
        upload(found, "linear", **{"file:3/model.onnx": made(tmp_path)})
        assert "linear/3" in served(found)


def test_a_config_alone_counts_from_then_on(root):
    with kept(root) as found:
        upload(found, "linear", config='{"max_batch_size": 5}')
        assert found.models["linear"].pick().max_batch_size == 5
        with pytest.raises(InvalidUpload, match="max_batch_size"):
            upload(found, "linear", config='{"max_batch_size": -5}')
        with pytest.raises(ModelError, match="no such input"):  # it can be read, and does not fit the model
            upload(found, "linear", config='{"input": [{"name": "nobody", "data_type": "TYPE_FP32", "dims": [8]}]}')
        assert found.models["linear"].pick().max_batch_size == 5


def test_an_upload_that_fails_leaves_a_model_unloaded_that_was(root, tmp_path):
    with kept(root, only=()) as found:
        assert found.models["linear"].held
        with pytest.raises(ModelError):
            upload(found, "linear", **{"file:2/model.onnx": made(tmp_path), "file:2/golden.npz": b"no zip"})
        assert found.models["linear"].held
        upload(found, "linear", **{"file:2/model.onnx": made(tmp_path)})
        assert [*served(found)] == ["linear/2"]


def test_a_second_upload_of_a_model_is_refused_while_one_is_under_way_and_the_first_ends_without_its_caller(root, tmp_path):
    go, loading = threading.Event(), threading.Event()

    def held_up(name, number, path, settings):
        if number == 2:
            loading.set()
            go.wait(WAIT_SECS)
        return load_version(name, str(number), path, settings, 1)

    async def both(found):
        uploads = Uploads(root, found.keeper, lambda: found.models)
        first = asyncio.create_task(uploads.load("linear", {"config": "{}", "file:2/model.onnx": made(tmp_path)}))
        await asyncio.to_thread(loading.wait, WAIT_SECS)
        with pytest.raises(UploadUnderWay, match="under way"):
            await uploads.load("linear", {"config": "{}", "file:3/model.onnx": b""})
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        (task,) = uploads._under_way.values()
        go.set()
        await asyncio.wait_for(task, WAIT_SECS)
        assert not uploads._under_way

    with kept(root, load=held_up) as found:
        asyncio.run(both(found))
        assert [*served(found)] == ["linear/2"]
        assert [path.name for path in root.iterdir()] == ["linear"]
