"""The Python client against a server that echoes."""

from __future__ import annotations

import numpy as np
import pytest

from batchmill_client import BadAnswer, Client, Refused, Unreachable
from batchmill_client.codec import DATATYPES, decode

NUMERIC = sorted(DATATYPES)


@pytest.fixture
def client(url):
    with Client(url, timeout_secs=5) as client:
        yield client


@pytest.mark.parametrize("dtype", NUMERIC)
def test_every_numeric_dtype_comes_back_bit_equal(client, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    back = client.infer("echo", {"x": array})["x"]
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_strings_and_bytes_come_back_as_bytes(client):
    back = client.infer("echo", {"s": np.array([["a", "é"], ["", "0" * 300]]), "b": np.array([b"x\x00y", b"\xff"], object)})
    assert back["s"].tolist() == [[b"a", "é".encode()], [b"", b"0" * 300]]
    assert back["b"].tolist() == [b"x\x00y", b"\xff"]


def test_big_endian_and_strided_arrays_travel_row_major_and_little_endian(client):
    array = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    assert np.array_equal(client.infer("echo", {"x": array})["x"], array)


def test_an_answer_without_binary_tensors_is_read(client):
    assert client.infer("as_json", {"x": [1]})["y"].tolist() == [[1, 2], [3, 4]]


def test_version_and_parameters_are_sent(client, echo):
    client.infer("a/b", {"x": [1.0]}, version=3, parameters={"timeout": 1000})
    path, head = echo.seen
    assert path == "/v2/models/a%2Fb/versions/3/infer"
    assert head["parameters"] == {"timeout": 1000, "binary_data_output": True}


def test_the_servers_reason_is_in_the_error(client):
    with pytest.raises(Refused, match='404: model "absent" is not here') as caught:
        client.infer("absent", {"x": [1]})
    assert caught.value.status == 404


def test_an_error_that_is_not_json_is_told_as_it_is(client):
    with pytest.raises(Refused, match="502: <html>"):
        client.infer("garbage", {"x": [1]})


@pytest.mark.parametrize("model", ["cut", "long_head"])
def test_a_malformed_answer_is_a_bad_answer(client, model):
    with pytest.raises(BadAnswer):
        client.infer(model, {"x": [1.0]})


@pytest.mark.parametrize("body", [
    b"", b"[]", b"{}", b'{"outputs": [{"name": "y"}]}', b'{"outputs": 3}',
    b'{"outputs": [{"name": "y", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 9}}]}',
])
def test_decode_refuses_what_is_no_answer(body):
    with pytest.raises(BadAnswer):
        decode(body, len(body))


def test_the_connection_is_kept_and_opened_anew_when_the_server_left(client, echo):
    for _ in range(3):
        client.infer("echo", {"x": [1]})
    assert echo.RequestHandlerClass.connections == 1
    client.infer("leaves", {"x": [1]})
    assert client.infer("echo", {"x": [1]})["x"].tolist() == [1]
    assert echo.RequestHandlerClass.connections == 2


def test_nobody_at_the_address_is_unreachable():
    client = Client("127.0.0.1:1", timeout_secs=1)
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        client.infer("echo", {"x": [1]})
    assert not client.ready()


def test_ready_and_metadata(client):
    assert client.ready()
    assert client.metadata("digits")["name"] == "digits"


@pytest.mark.parametrize("url", ["ftp://host", "http://", ""])
def test_an_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="wanted"):
        Client(url)


def test_a_dtype_without_datatype_is_refused_before_anything_is_sent(client, echo):
    with pytest.raises(TypeError, match="complex128"):
        client.infer("echo", {"x": np.array([1j])})
    assert echo.RequestHandlerClass.connections == 0
