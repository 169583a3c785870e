"""Which version gets a request that names none: shares, keys and rules, as the data plane reads them from what came."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.app import make_server
from batchmill.backends import Tuning
from batchmill.config import ServerConfig
from batchmill.core import ort
from batchmill.core.route_probe import Passage
from batchmill.core.route_table import RouteEntry
from batchmill.core.router import Version
from batchmill.rollout.split import slot_of
from e2e import models
from reference import proto

sys.path.insert(0, str(Path(__file__).resolve().parent))
from test_http2 import INFER, frame

pb = proto.Messages()
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000" "0000040800000000007f000000")  # no settings; a wide window
RULES = [(True, "x-tenant", "gold", "2"), (True, "x-tenanu", "gold", "3"), (False, "tenant", "gold", "2"), (True, "z" * 70, "g" * 256, "3")]
HEADERS = st.tuples(st.sampled_from(["x-tenant", "X-TENANT", "x-tenanu", "x-tenan", "z" * 70, "z" * 69, "x-request-id"]),
                    st.sampled_from(["gold", "golde", "", "g" * 256, "g" * 257]))


@pytest.fixture(scope="module")
def versions(tmp_path_factory) -> list[Version]:
    ort.initialise()
    made = []
    for number in "123":
        path = models.linear(tmp_path_factory.mktemp("models"), version=number)
        made.append(Version("linear", number, ort.Model(str(path)), batched=True, fast_ok=True))
        made[-1].tune(**dataclasses.asdict(Tuning()))
    return made


def rest(parameters: str, headers: list[tuple[str, str]]) -> bytes:
    body = f'{{"parameters":{parameters},"inputs":[{{"name":"x","datatype":"FP32","shape":[1,8],"data":{[0.0] * 8}}}]}}'.encode()
    lines = [("Host", "x"), ("Content-Length", len(body)), *headers]
    return b"POST /v2/models/linear/infer HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines).encode() + b"\r\n" + body


def grpc(parameters: bytes, headers: list[tuple[str, str]]) -> bytes:
    message = pb.ModelInferRequest(model_name="linear", inputs=[{"name": "x", "datatype": "FP32", "shape": [1, 8]}], raw_input_contents=[bytes(32)])
    given_headers = [(":method", "POST"), (":path", INFER), (":scheme", "http"), (":authority", "x"), ("content-type", "application/grpc")]
    block = hpack.Encoder().encode([*given_headers, *((name.lower(), value) for name, value in headers)])
    return b"".join(len(part).to_bytes(3, "big") + bytes([kind, flags, 0, 0, 0, 1]) + part
                    for kind, flags, part in ((1, 4, block), (0, 1, frame(message.SerializeToString() + parameters))))


def served(versions: list[Version], request: bytes, over_http2: bool, **route: object) -> str:
    """The version that it was given to."""
    server = make_server(ServerConfig(io_threads=1, executor_threads=1))
    server.publish([RouteEntry("linear", versions, versions[0], **route)])
    before = [version.answered for version in versions]
    Passage(PREFACE if over_http2 else b"").ask(server, [request], 1)
    (found,) = (version.version for version, count in zip(versions, before, strict=True) if version.answered > count)
    return found


@pytest.mark.parametrize("over_http2", [False, True])
@given(headers=st.lists(HEADERS, max_size=4))
def test_the_first_rule_decides_whose_header_came_first_with_its_value(versions, over_http2, headers):
    first: dict[str, str] = {}
    for name, value in headers:
        first.setdefault(name.lower(), value)
    wanted = next((number for of_header, name, value, number in RULES if of_header and first.get(name) == value), "1")
    request = grpc(b"", headers) if over_http2 else rest("{}", headers)
    assert served(versions, request, over_http2, rules=RULES) == wanted


@given(st.lists(st.tuples(st.sampled_from(["tenant", "tenan"]), st.sampled_from(["gold", "gol", ""])), max_size=4))
def test_of_a_parameter_that_comes_twice_the_last_counts_as_protobuf_and_json_have_it(versions, texts):
    message = b"".join(pb.ModelInferRequest(parameters={name: pb.InferParameter(string_param=text)}).SerializeToString() for name, text in texts)
    parsed = {name: value.string_param for name, value in pb.ModelInferRequest.FromString(message).parameters.items()}
    assert parsed == dict(texts)
    wanted = "2" if parsed.get("tenant") == "gold" else "1"
    assert served(versions, grpc(message, []), True, rules=RULES) == wanted
    in_json = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(text)}" for name, text in texts) + "}"
    assert served(versions, rest(in_json, []), False, rules=RULES) == wanted


@given(st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1).filter(lambda key: key == key.strip()), st.integers(1, 9999))
def test_a_key_has_the_slot_that_the_control_plane_says(versions, key, end):
    request = rest("{}", [("x-route-key", key)])
    assert served(versions, request, False, shares=[(end, "1"), (10_000, "2")]) == ("1" if slot_of("linear", key) < end else "2")
