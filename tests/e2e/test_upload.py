"""Uploads by the clients that people have, and by those who mean harm."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from . import models
from .server import ServerProcess
from .test_hot import Hammer, index

tritongrpc = pytest.importorskip("tritonclient.grpc")
tritonhttp = pytest.importorskip("tritonclient.http")

CONFIG = json.dumps({"backend": "onnxruntime", "max_batch_size": 16})
ONE = np.ones((1, 8), np.float32)


@pytest.fixture
def server(registry):
    with ServerProcess(registry, "--allow-upload") as running:
        yield running


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """For calls that are refused: one server for all of them, and the folder around its registry."""
    folder = tmp_path_factory.mktemp("unchanged")
    models.linear(folder / "registry", factor=1.0)
    with ServerProcess(folder / "registry", "--allow-upload") as running:
        yield running, folder


def made(tmp_path, factor):
    return models.linear(tmp_path / "made", factor=factor).read_bytes()


def load(server, name, parameters, **headers):
    """Status and text of a load call with these parameters, or with a body as it is."""
    body = parameters if isinstance(parameters, bytes) else json.dumps({"parameters": parameters}).encode()
    status, _, text = server.ask(f"/v2/repository/models/{name}/load", "POST", body, headers, 60)
    return status, text.decode()


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def encoded(content):
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("module", [tritongrpc, tritonhttp], ids=["grpc", "http"])
def test_tritonclient_uploads_a_model_and_a_version_of_one(server, registry, tmp_path, module):
    with module.InferenceServerClient(server.address) as client, Hammer(server) as hammer:
        def factor(name):
            given = module.InferInput("x", [1, 8], "FP32")
            given.set_data_from_numpy(ONE)
            return float(client.infer(name, [given]).as_numpy("y")[0, 0]) / float(np.arange(0, 32, 4).sum() / 10)

        client.load_model("fresh", config=CONFIG, files={"file:1/model.onnx": made(tmp_path, 5.0)})
        assert (client.is_model_ready("fresh"), round(factor("fresh"), 3)) == (True, 5.0)
        config = client.get_model_config("fresh", **({"as_json": True} if module is tritongrpc else {}))
        assert (config["config"] if module is tritongrpc else config)["max_batch_size"] == 16
        client.load_model("linear", config="{}", files={"file:2/model.onnx": made(tmp_path, 2.0)})
        assert round(factor("linear"), 3) == 2.0
        client.load_model("linear", config="{}", files={"file:2/model.onnx": made(tmp_path, 2.0), "file:3/model.onnx": made(tmp_path, 3.0)})
        assert round(factor("linear"), 3) == 3.0
        with pytest.raises(module.InferenceServerException if hasattr(module, "InferenceServerException") else Exception, match="'config' is missing"):
            client.load_model("linear", files={"file:4/model.onnx": made(tmp_path, 2.0)})
        client.load_model("linear", config=json.dumps({"max_batch_size": 3}))
        client.unload_model("fresh")
        assert not client.is_model_ready("fresh")
    assert not hammer.failures
    assert hammer.versions == sorted(hammer.versions)
    assert {*files(registry)} == {"fresh/1/model.onnx", "fresh/config.pbtxt", "linear/config.pbtxt", *(f"linear/{n}/model.onnx" for n in (1, 2, 3))}


def test_an_upload_that_fails_disturbs_no_request_and_leaves_nothing(server, registry, tmp_path):
    before = files(registry)
    fatal = models.fatal(tmp_path / "made").read_bytes()
    with Hammer(server) as hammer:
        for content in (b"random", made(tmp_path, 1.0)[:-20], fatal):
            for name in ("linear", "fresh"):
                status, text = load(server, name, {"config": "{}", "file:2/model.onnx": encoded(content)})
                assert status == 400, text
                assert str(tmp_path) not in text
        assert "probe: ended by SIGFPE" in text
    assert not hammer.failures
    assert hammer.versions
    assert index(server).keys() == {("linear", "1")}
    assert files(registry) == before
    assert [path.name for path in registry.iterdir()] == ["linear"]


@pytest.mark.parametrize(("name", "parameters"), [
    ("linear", {"config": "{}", "file:../../escaped/model.onnx": "eA=="}), ("linear", {"config": "{}", "file:1/../../../escaped": "eA=="}),
    ("linear", {"config": "{}", "file:/tmp/escaped": "eA=="}), ("linear", {"config": "{}", "file:1\\escaped": "eA=="}),
    ("linear", {"config": "{}", "file:1/a\0b": "eA=="}), ("linear", {"config": "{}", "file:1/" + "a" * 256: "eA=="}),
    ("linear", {"config": "{}", "file:" + "a" * 60_000: "eA=="}), ("linear", {"config": "{}", "file:2/model.onnx": "garbage!"}),
    ("..%2F..%2Fescaped", {"config": "{}", "file:2/model.onnx": "eA=="}), ("%2e%2e", {"config": "{}", "file:2/model.onnx": "eA=="}),
    ("a%00b", {"config": "{}", "file:2/model.onnx": "eA=="}), (".hidden", {"config": "{}", "file:2/model.onnx": "eA=="}),
    ("a" * 300, {"config": "{}", "file:2/model.onnx": "eA=="}), ("linear", {"config": "no JSON", "file:2/model.onnx": "eA=="}),
    ("linear", {"config": "[" * 100_000, "file:2/model.onnx": "eA=="}), ("linear", {"config": 7, "file:2/model.onnx": "eA=="}),
    ("linear", {"config": '{"backend": "/tmp/evil.so"}', "file:2/model.onnx": "eA=="}), ("linear", {"config": "{}", "file:2/evil.so": "eA=="}),
    ("nobody", {"config": '{"max_batch_size": 3}'}), ("linear", {"unknown": "x"}), ("linear", {"config": "{}", "file:2/model.onnx": {"a": 1}}),
    ("linear", b"[" * 250_000), ("linear", b'{"parameters": ' * 250_000), ("linear", b"\xff\xfe"), ("linear", b'{"parameters": []}'), ("linear", b'{"parameters"'),
])
def test_a_load_call_that_means_harm_is_refused_and_writes_nothing(unchanged, name, parameters):
    server, folder = unchanged
    before = files(folder / "registry")
    status, text = load(server, name, parameters)
    assert 400 <= status < 500, text
    assert list(json.loads(text)) == ["error"]
    assert len(text) < 700
    assert text.isprintable()
    assert files(folder / "registry") == before
    assert not [*folder.rglob("*escaped*")]
    assert server.get("/v2/models/linear/ready")[0] == 200


def test_a_body_over_the_limit_is_no_upload(registry, tmp_path):
    with ServerProcess(registry, "--allow-upload", "--max-body-mib", "1") as server:
        assert load(server, "linear", {"config": "{}", "file:2/model.onnx": "A" * (2 << 20)})[0] == 413
        assert [path.name for path in registry.iterdir()] == ["linear"]


def test_uploads_are_off_and_guarded_unless_they_are_allowed(registry, tmp_path):
    parameters = {"config": "{}", "file:2/model.onnx": encoded(made(tmp_path, 2.0))}
    with ServerProcess(registry) as server:
        status, text = load(server, "linear", parameters)
        assert (status, "--allow-upload" in text) == (400, True)
        with tritongrpc.InferenceServerClient(server.address) as client, pytest.raises(Exception, match="INVALID_ARGUMENT.*--allow-upload"):
            client.load_model("linear", config="{}", files={"file:2/model.onnx": made(tmp_path, 2.0)})
        assert load(server, "linear", {})[0] == 200
    key = tmp_path / "key"
    key.write_text("a key of enough characters")
    with ServerProcess(registry, "--allow-upload", "--admin-key-file", str(key)) as server:
        assert load(server, "linear", parameters)[0] == 401
        assert load(server, "linear", parameters, Origin="http://evil.example")[0] == 401
        assert {*files(registry)} == {"linear/1/model.onnx"}
        assert load(server, "linear", parameters, Authorization="Bearer a key of enough characters")[0] == 200
    with ServerProcess(registry, "--allow-upload") as server:
        assert load(server, "linear", parameters, Origin="http://evil.example")[0] == 403


def test_a_model_with_external_data_and_a_golden_file_is_uploaded(server, registry, tmp_path):
    path = models.external(tmp_path / "made")
    x = np.ones((2, 1024), np.float32)
    with (tmp_path / "golden.npz").open("wb") as file:
        np.savez(file, **{"in:x": x, "out:y": x @ np.ones((1024, 1024), np.float32)})
    content = {"file:1/model.onnx": path.read_bytes(), "file:1/weights.bin": (path.parent / "weights.bin").read_bytes(),
               "file:1/golden.npz": (tmp_path / "golden.npz").read_bytes()}
    with tritongrpc.InferenceServerClient(server.address) as client:
        client.load_model("external", config="{}", files=content)
        assert client.is_model_ready("external", "1")
    assert files(registry / "external") == {name.removeprefix("file:"): data for name, data in content.items()}
