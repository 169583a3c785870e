"""curl, over HTTP/1.1 and over HTTP/2 without TLS."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np

from .calls import BYTES, HALVES, NINE, SLOW, TOLD_OF_SHAPE, Column, binary_request, gzipped, json_request, want, want_labels

TIMED_OUT = 28  # curl's exit code


class Answer:
    """What `curl -i` printed: status, headers, and the body as it is after decompression."""

    def __init__(self, printed: bytes) -> None:
        head, self.body = printed.split(b"\r\n\r\n", 1)
        while self.body.startswith(b"HTTP/") and head.split()[1].startswith(b"1"):  # what came before was 100 Continue
            head, self.body = self.body.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        self.protocol, self.status = first.split()[0], int(first.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def json(self) -> Any:
        return json.loads(self.body)


class Curl(Column):
    protocol_flag = "--http1.1"
    protocol = "HTTP/1.1"

    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"

    def run(self, path: str, *flags: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        sending = [] if data is None else ["--data-binary", "@-"]
        return subprocess.run(["curl", "-sS", "-i", self.protocol_flag, "--max-time", "10", *sending, *flags, self.url + path],
                              input=data, capture_output=True, check=False)

    def ask(self, path: str, *flags: str, data: bytes | None = None, wanted: int = 200) -> Answer:
        done = self.run(path, *flags, data=data)
        want(done.returncode == 0, done.stderr.decode())
        answer = Answer(done.stdout)
        want(answer.protocol == self.protocol, answer.protocol)
        want(answer.status == wanted, f"{answer.status} {answer.body[:300]!r}")
        return answer

    def post(self, body: object, *flags: str, model: str = "digits", wanted: int = 200) -> Any:
        path = f"/v2/models/{model}/infer"
        return self.ask(path, "-H", "Content-Type: application/json", *flags, data=json.dumps(body).encode(), wanted=wanted).json()

    def binary(self, model: str, name: str, datatype: str, shape: list[int], raw: bytes) -> dict[str, bytes]:
        """Raw outputs by name."""
        body, headers = binary_request(name, datatype, shape, raw)
        flags = [part for header, value in headers.items() for part in ("-H", f"{header}: {value}")]
        answer = self.ask(f"/v2/models/{model}/infer", *flags, data=body)
        at = int(answer.headers["inference-header-content-length"])
        outputs = {}
        for output in json.loads(answer.body[:at])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            outputs[output["name"]] = answer.body[at : at + size]
            at += size
        want(at == len(answer.body), f"{len(answer.body)} bytes where {at} were announced")
        return outputs

    def live(self) -> None:
        self.ask("/v2/health/live")

    def ready(self) -> None:
        self.ask("/v2/health/ready")

    def model_ready(self) -> None:
        self.ask("/v2/models/digits/versions/1/ready")

    def server_metadata(self) -> None:
        answer = self.ask("/v2").json()
        want(answer["name"] == "batchmill" and answer["version"], answer)

    def model_metadata(self) -> None:
        answer = self.ask("/v2/models/digits").json()
        want(answer["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}] and answer["versions"] == ["1", "2"], answer)

    def model_config(self) -> None:
        answer = self.ask("/v2/models/digits/config").json()
        want(answer["name"] == "digits" and answer["max_batch_size"] > 0, answer)

    def statistics(self) -> None:
        (found,) = self.ask("/v2/models/digits/versions/2/stats").json()["model_stats"]
        want(found["name"] == "digits" and found["version"] == "2" and found["inference_stats"], found)

    def repository_index(self) -> None:
        models = self.ask("/v2/repository/index", data=b'{"ready": true}').json()
        want([(m["version"], m["state"]) for m in models if m["name"] == "digits"] == [("1", "READY"), ("2", "READY")], models)

    def load_unload(self) -> None:
        self.ask("/v2/repository/models/spare/unload", "-X", "POST")
        answer = Answer(self.run("/v2/models/spare/ready").stdout)
        want(answer.status != 200, "ready after unload")
        self.ask("/v2/repository/models/spare/load", "-X", "POST")
        self.ask("/v2/models/spare/ready")

    def infer_raw(self) -> None:
        labels = self.binary("digits", "image", "FP32", [3, 64], np.repeat(NINE, 3, 0).tobytes())["label"]
        want_labels(np.frombuffer(labels, np.int64), 9, 3)

    def infer_typed(self) -> None:
        outputs = {output["name"]: output["data"] for output in self.post(json_request())["outputs"]}
        want(outputs["label"] == [9], outputs)

    def version(self) -> None:
        answer = self.ask("/v2/models/digits/versions/1/infer", data=json.dumps(json_request()).encode()).json()
        want(answer["model_version"] == "1", answer)
        want([output["data"] for output in answer["outputs"] if output["name"] == "label"] == [[8]], answer)

    def bytes(self) -> None:
        want((got := self.binary("identity_bytes", "x", "BYTES", [1, 3], BYTES)) == {"y": BYTES}, got)

    def fp16(self) -> None:
        want((got := self.binary("identity_fp16", "x", "FP16", [1, 3], HALVES.tobytes())) == {"y": HALVES.tobytes()}, got)

    def id_parameters(self) -> None:
        answer = self.post(json_request(id="picture-1", parameters={"timeout": 5_000_000, "note": "of the caller's own"}))
        want(answer["id"] == "picture-1", answer)

    def outputs(self) -> None:
        answer = self.post(json_request(outputs=[{"name": "label"}]))
        want([(output["name"], output["data"]) for output in answer["outputs"]] == [("label", [9])], answer)

    def metadata(self) -> None:
        body = json.dumps(json_request()).encode()
        headers = self.ask("/v2/models/digits/infer", "-H", "x-request-id: request-1", "-H", "x-server-timing: 1", data=body).headers
        want(headers.get("x-request-id") == "request-1" and headers.get("x-model-version") == "2" and "server-timing" in headers, headers)

    def compressed_request(self) -> None:
        answer = self.ask("/v2/models/digits/infer", "-H", "Content-Encoding: gzip", data=gzipped(json_request(1000))).json()
        want_labels(next(output["data"] for output in answer["outputs"] if output["name"] == "label"), 9, 1000)

    def compressed_response(self) -> None:
        answer = self.post(json_request(1000), "--compressed")
        want_labels(next(output["data"] for output in answer["outputs"] if output["name"] == "label"), 9, 1000)

    def unknown_model(self) -> None:
        error = self.post(json_request(), model="nobody", wanted=404)["error"]
        want('unknown model "nobody"' in error, error)

    def bad_shape(self) -> None:
        body = json_request()
        body["inputs"][0] |= {"shape": [1, 63], "data": NINE[0, 1:].tolist()}
        error = self.post(body, wanted=400)["error"]
        want(TOLD_OF_SHAPE in error, error)

    def slow(self, *flags: str) -> subprocess.CompletedProcess[bytes]:
        body, headers = binary_request("x", "FP32", list(SLOW.shape), SLOW.tobytes())
        told = [part for header, value in headers.items() for part in ("-H", f"{header}: {value}")]
        return self.run("/v2/models/slow/infer", *told, *flags, data=body)

    def deadline(self) -> None:
        done = self.slow("-H", "x-request-timeout-ms: 100")
        want(done.returncode == 0, done.stderr.decode())
        want((answer := Answer(done.stdout)).status == 504, answer.status)

    def cancel(self) -> None:
        done = self.slow("--max-time", "0.1")
        want(done.returncode == TIMED_OUT, f"exit code {done.returncode}")
        self.live()

    def tfs_predict(self) -> None:
        rows = NINE.tolist()
        (row,) = self.ask("/v1/models/digits:predict", data=json.dumps({"instances": rows}).encode()).json()["predictions"]
        want(row["label"] == 9, row)
        columns = self.ask("/v1/models/digits/versions/1:predict", data=json.dumps({"inputs": rows}).encode()).json()["outputs"]
        want(columns["label"] == [8], columns)

    def tfs_status(self) -> None:
        told = self.ask("/v1/models/digits").json()["model_version_status"]
        want([(one["version"], one["state"]) for one in told] == [("2", "AVAILABLE"), ("1", "AVAILABLE")], told)

    def tfs_metadata(self) -> None:
        image = self.ask("/v1/models/digits/metadata").json()["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["image"]
        want((image["dtype"], [dim["size"] for dim in image["tensor_shape"]["dim"]]) == ("DT_FLOAT", ["-1", "64"]), image)


class CurlHttp2(Curl):
    protocol_flag = "--http2-prior-knowledge"
    protocol = "HTTP/2"
