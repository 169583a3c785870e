"""The binary tensor extension over HTTP/1.1: where the path leads, what the header says, the JSON, and the raw tensors behind it.

An input is the path, a line feed, the value of Inference-Header-Content-Length, a line feed, and the body.
"""

import json
import re
import struct
from urllib.parse import unquote_to_bytes

from batchmill.core import json_codec, rest
from batchmill.core.loopback import Loopback
from fuzz import json_request
from reference import json_codec as reference

WORDS = (*json_request.WORDS, b"/v2/models/", b"/versions/", b"/labels/", b"/infer", b"%2f", b"%00", b"\n0\n", b"\n99999999999999999999\n", b"\n-1\n",
         b"\x01\x00\x00\x00", b"\xff\xff\xff\xff", b'"parameters":{"binary_data_size":4}')
PATH = b"/v2/models/m/infer"
MODEL = re.compile(rb"/v2/models/([^/]*)(?:/versions/([^/]*)|/labels/([^/]*))?/infer")


def message(head, tensors, path=PATH, size=None):
    return b"%s\n%s\n%s%s" % (path, b"%d" % len(head) if size is None else size, head, tensors)


def seeds():
    """Binary inputs of every datatype, alone and beside JSON; a raw request; sizes that lie."""
    for datatype, width in reference.WIDTHS.items():
        body, size = reference.binary_body(datatype, [2], 2 * width, bytes(range(2 * width)))
        yield message(body[:size], body[size:])
    texts = b"\x01\x00\x00\x00a" + struct.pack("<I", 2) + b"\xff\x00"
    body, size = reference.binary_body("BYTES", [2], len(texts), texts)
    yield message(body[:size], texts, b"/v2/models/a%20b/versions/3/infer")
    yield message(body[:size], texts[:-1], b"/v2/models/m/labels/stable/infer?x=y")
    parts = [{"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}},
             {"name": "y", "shape": [0, 3], "datatype": "FP64", "data": []},
             {"name": "z", "shape": [3], "datatype": "BOOL", "parameters": {"binary_data_size": 3, "more": [1]}}]
    wanted = [{"name": "o", "parameters": {"binary_data": True}}, {"name": "p", "parameters": {"binary_data": False, "classification": 1}}]
    head = json.dumps({"inputs": parts, "outputs": wanted, "parameters": {"binary_data_output": True}})
    yield message(head.encode(), b"\x00\x00\x80\x3f\x00\x01\x02")
    yield message(b"", b"\x01\x02\x03\x04", size=b"0")
    yield message(reference.one(), b"", size=b"")
    yield message(reference.one(), b"", b"/v2/models/%zz/infer", b"12x")


def check(data):
    """One request, through the front end and the codec."""
    path, _, rest_of_it = data.partition(b"\n")
    value, _, body = rest_of_it.partition(b"\n")
    check_path(path)
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: %s\r\nContent-Length: %d\r\n\r\n" % (path, value, len(body))
    loop = Loopback(False)
    loop.feed(head + body)
    for number, (model, version, label, got, json_size, _) in enumerate(loop.infers()):
        if number == 0 and b"\r" not in path + value:
            size = value.strip(b" \t")
            assert (model, version, label) == route(path)
            assert (got, json_size) == (body, int(size)), "another body than was sent"
        check_body(got, json_size)
        loop.refuse(number, b"no")
    loop.abandon()
    assert (loop.requests_alive(), loop.charged()) == (0, 0)


def route(path):
    found = MODEL.fullmatch(path.partition(b"?")[0])
    return tuple(unquote_to_bytes(part or b"") for part in found.groups())


def check_path(path):
    """The names of a path are what urllib makes of them."""
    kind, *names = rest.route_of(b"POST", path)
    if kind == "infer":
        assert tuple(names) == route(path)
        assert not re.search(rb"[\0-\x1f\x7f]", b"".join(names)), "a control character in a name"
    elif found := MODEL.fullmatch(path.partition(b"?")[0]):
        raw = b"/".join(part for part in found.groups() if part is not None)
        broken = re.search(rb"%(?![0-9a-fA-F]{2})|[\0-\x1f\x7f]|%[01][0-9a-fA-F]|%7[fF]", raw) or b"" in [p for p in found.groups() if p is not None]
        assert kind == "bad_path", kind
        assert broken, "a well-formed path is refused"


def check_body(body, json_size):
    if json_size == 0:      # a raw request
        assert json_codec.decode(body, 0)["inputs"] == [(b"", "INVALID", [], body)]
        return
    got = json_request.compare(body, json_size)
    if isinstance(got, dict):
        json_request.check_answer(got)
