"""The connection to a server."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
from numpy.typing import ArrayLike

from batchmill_client.codec import Arrays, decode, encode
from batchmill_client.errors import BadAnswer, Refused, Unreachable


class Client:
    """One kept-alive connection to a server; not for use by several threads at once.

        with Client("http://127.0.0.1:8000") as client:
            outputs = client.infer("digits", {"image": images}, version=2)

    The connection is opened by the first call. A call on a kept connection that the server has closed meanwhile, before
    it sent a byte of an answer, is made once more on a new one.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", *, timeout_secs: float = 30.0) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url {url!r}: http://HOST[:PORT] wanted")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.url = url
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_secs)
        self._prefix = parts.path.rstrip("/")

    def infer(self, model: str, inputs: Mapping[str, ArrayLike], version: str | int | None = None, *,
              parameters: Mapping[str, object] | None = None) -> Arrays:
        """The model's outputs by name.

        version: none for the one in service. parameters: of the request, such as timeout (µs) or priority.
        Raises Refused when the server answers with an error, Unreachable when it does not answer, BadAnswer when the answer
        cannot be read, TypeError for a dtype that the protocol lacks.
        """
        body, json_bytes = encode({name: np.asarray(array) for name, array in inputs.items()}, parameters or {})
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(json_bytes)}
        place = "" if version is None else f"/versions/{quote(str(version), safe='')}"
        answer, data = self._call("POST", f"/v2/models/{quote(model, safe='')}{place}/infer", body, headers)
        given = answer.headers.get("Inference-Header-Content-Length", str(len(data)))
        if not given.isdecimal() or int(given) > len(data):
            raise BadAnswer(f"Inference-Header-Content-Length is {given!r} for a body of {len(data)} bytes")
        return decode(data, int(given))

    def metadata(self, model: str) -> dict[str, Any]:
        """Versions, inputs and outputs of a model, as the server tells them."""
        _, data = self._call("GET", f"/v2/models/{quote(model, safe='')}", None, {})
        try:
            return dict(json.loads(data))
        except (ValueError, TypeError) as error:
            raise BadAnswer(f"the answer cannot be read: {error!r}") from error

    def ready(self) -> bool:
        """Whether the server says it is ready; False too when it says nothing."""
        try:
            self._call("GET", "/v2/health/ready", None, {})
        except (Refused, Unreachable):
            return False
        return True

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _call(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        """The answer and its body, when its status is 200."""
        kept = self._connection.sock is not None
        try:
            try:
                answer, data = self._once(method, path, body, headers)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                if not kept:
                    raise
                self._connection.close()
                answer, data = self._once(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # half an answer may be left in it
            raise Unreachable(f"{self.url}: {error or type(error).__name__}") from error
        if answer.status != 200:
            raise Refused(answer.status, _reason(data))
        return answer, data

    def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        self._connection.request(method, self._prefix + path, body, headers)
        answer = self._connection.getresponse()
        return answer, answer.read()


def _reason(data: bytes) -> str:
    """The text of an error answer: {"error": "text"}, or the body as it is."""
    try:
        return str(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        return data[:1000].decode(errors="replace")
