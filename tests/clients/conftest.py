"""A tiny v2 server for the clients' tests: it sends every input back as an output of the same name."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients" / "python"))


class Echo(BaseHTTPRequestHandler):
    """Models: echo (binary), as_json (outputs as JSON), and names of what goes wrong."""

    protocol_version = "HTTP/1.1"
    connections = 0

    def setup(self) -> None:
        super().setup()
        Echo.connections += 1

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(200, json.dumps({"name": self.path.rsplit("/", 1)[1]}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        size = int(self.headers["Inference-Header-Content-Length"])
        head, tensors = json.loads(body[:size]), body[size:]
        self.server.seen = (self.path, head)  # type: ignore[attr-defined]
        model = self.path.split("/")[3]
        if model == "absent":
            return self.reply(404, b'{"error": "model \\"absent\\" is not here"}')
        if model == "garbage":
            return self.reply(502, b"<html>bad gateway</html>")
        if model == "as_json":
            output = {"name": "y", "datatype": "INT64", "shape": [2, 2], "data": [1, 2, 3, 4]}
            return self.reply(200, json.dumps({"outputs": [output]}).encode())
        out = json.dumps({"outputs": head["inputs"]}).encode()
        if model == "cut":
            tensors = tensors[:-1]
        self.reply(200, out + tensors, 10**9 if model == "long_head" else len(out))
        if model == "leaves":
            self.close_connection = True
        return None

    def reply(self, status: int, body: bytes, json_bytes: int | None = None) -> None:
        self.send_response(status)
        if json_bytes is not None:
            self.send_header("Inference-Header-Content-Length", str(json_bytes))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def echo() -> Iterator[ThreadingHTTPServer]:
    Echo.connections = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def url(echo: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{echo.server_port}"
