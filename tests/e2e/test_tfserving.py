"""TensorFlow Serving's REST, asked as its clients ask."""

from __future__ import annotations

import json
import subprocess
import threading

import pytest

from . import models
from .server import ServerProcess

ROW = list(range(8))
LINEAR = "/v1/models/linear"
ONE, TWO = ([sum(i * (4 * i + j) for i in range(8)) / 10 * factor for j in range(4)] for factor in (2, 3))


def ask(server, path, wish=None, *arguments):
    """(status, answer) by curl."""
    command = ["curl", "-s", "-w", "%{http_code}", "--max-time", "20", server.url + path, *arguments, *(["-d", "@-"] if wish is not None else [])]
    done = subprocess.run(command, input=None if wish is None else json.dumps(wish), capture_output=True, text=True, check=True).stdout
    return int(done[-3:]), json.loads(done[:-3])


@pytest.mark.parametrize(("path", "wanted"), [(LINEAR, TWO), (f"{LINEAR}/versions/1", ONE), (f"{LINEAR}/versions/2", TWO), (f"{LINEAR}/labels/stable", ONE)])
@pytest.mark.parametrize("wish", [{"instances": [ROW, ROW]}, {"instances": [{"x": ROW}, {"x": ROW}]}, {"signature_name": "serving_default", "inputs": [ROW, ROW]},
                                  {"inputs": {"x": [ROW, ROW]}}], ids=str)  # fmt: skip
def test_predict_answers_in_the_form_of_the_request(server, path, wanted, wish):
    status, answer = ask(server, path + ":predict", wish)
    (key,) = answer
    assert (status, key) == (200, "predictions" if "instances" in wish else "outputs")
    assert answer[key] == [pytest.approx(wanted), pytest.approx(wanted)]


@pytest.mark.parametrize("transport", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize(("path", "wish", "status", "text"), [
    (f"{LINEAR}:predict", {"instances": [[1] * 3]}, 400, "shape [1,3] given, [-1,8] wanted"), (f"{LINEAR}:predict", {"instances": [["a"] * 8]}, 400, "number wanted"),
    (f"{LINEAR}:predict", {"instances": [[1e39] * 8]}, 400, "FP32"), ("/v1/models/lookup:predict", {"instances": [99]}, 400, "lookup/1: the model cannot run this input"),
    ("/v1/models/lookup:predict", {"instances": [1.5]}, 400, "1.5 given, INT64 wanted"), ("/v1/models/nobody:predict", {"instances": [1]}, 404, "unknown model"),
    (f"{LINEAR}/versions/9:predict", {"instances": [ROW]}, 404, "no version"), (f"{LINEAR}/labels/none:predict", {"instances": [ROW]}, 404, "no label"),
    (f"{LINEAR}:classify", {"examples": []}, 501, ":predict"), (f"{LINEAR}:regress", {"examples": []}, 501, ":predict"),
])  # fmt: skip
def test_mistakes_are_told_as_everywhere(server, transport, path, wish, status, text):
    assert (got := ask(server, path, wish, transport))[0] == status
    assert text in got[1]["error"]


def test_a_deadline_counts(server):
    status, answer = ask(server, "/v1/models/slow:predict", {"inputs": [[[0.5] * 256] * 256] * 4}, "-H", "x-request-timeout-ms: 1")
    assert status == 504
    assert "deadline" in answer["error"]
    assert ask(server, f"{LINEAR}:predict", {"instances": [ROW]}, "-H", "x-request-timeout-ms: 0")[0] == 400


def test_status_tells_every_version_the_newest_first(server):
    available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert ask(server, LINEAR) == (200, {"model_version_status": [{"version": "2", **available}, {"version": "1", **available}]})
    for path in (f"{LINEAR}/versions/1", f"{LINEAR}/labels/stable"):
        assert ask(server, path) == (200, {"model_version_status": [{"version": "1", **available}]})
    assert ask(server, f"{LINEAR}/versions/9")[0] == ask(server, "/v1/models/nobody")[0] == 404


def test_metadata_tells_the_signature(server):
    status, told = ask(server, f"{LINEAR}/metadata")
    signature = told["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert status == 200
    assert told["model_spec"] == {"name": "linear", "signature_name": "", "version": "2"}
    assert signature["inputs"]["x"]["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in signature["outputs"]["y"]["tensor_shape"]["dim"]] == ["-1", "4"]


def test_a_broken_version_is_at_its_end_and_says_why(tmp_path):
    registry = tmp_path / "registry"
    models.linear(registry)
    (registry / "linear" / "2").mkdir()
    (registry / "linear" / "2" / "model.onnx").write_bytes(b"no model")
    with ServerProcess(registry) as server:
        newest, oldest = ask(server, LINEAR)[1]["model_version_status"]
        assert (newest["version"], newest["state"], newest["status"]["error_code"]) == ("2", "END", "UNKNOWN")
        assert "model" in newest["status"]["error_message"]
        assert oldest["state"] == "AVAILABLE"


def test_many_callers_get_their_own_answers(server):
    wrong = []

    def calls(number):
        for turn in range(20):
            row = [number] * 8
            status, answer = ask(server, f"{LINEAR}/versions/1:predict", {"instances": [row] * (turn % 3 + 1)})
            wanted = pytest.approx([sum(number * (4 * i + j) for i in range(8)) / 5 for j in range(4)])
            if status != 200 or answer["predictions"] != [wanted] * (turn % 3 + 1):
                wrong.append((number, answer))

    threads = [threading.Thread(target=calls, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
