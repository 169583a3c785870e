"""What REST callers get wrong, by mistake or not (faults A): told in a clear refusal, and nobody else notices."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from . import wire
from .faults import ask, attacked, binary_body, element, error_of, exchange, infer, request, rest_body

FP32 = {"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [0.0] * 8}
GOOD = json.dumps({"inputs": [FP32]}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with attacked(tmp_path_factory.mktemp("rest")) as process:
        yield process


def refused(answer, piece, *statuses):
    status, body = answer
    assert status in (statuses or (400,)), body
    assert piece in error_of(body)


def with_input(**changes):
    """The good request with other fields in its input; None leaves one out."""
    given = {**FP32, **changes}
    return json.dumps({"inputs": [{key: value for key, value in given.items() if value is not None}]}).encode()


def with_text(field, text):
    """The good request with JSON as it is written here in the place of a field."""
    return with_input(**{field: "PLACE"}).replace(b'"PLACE"', text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(("body", "piece"), [
    (b"", "ends too early"), (GOOD[:-1], "ends too early"), (GOOD[:40], "ends too early"), (GOOD + b"x", "bytes follow"), (GOOD + GOOD, "bytes follow"),
    (b"[]", "an object wanted"), (b"null", "an object wanted"), (b"5", "an object wanted"), (b'"x"', "an object wanted"), (b"\xff\xfe", "an object wanted"),
    (GOOD.replace(b'"x"', b'"\xff"'), "not valid JSON"), (GOOD.replace(b'"x"', b'"\xc0\xaf"'), "not valid JSON"),
    (b"[" * 250_000, "an object wanted"), (b'{"a":' * 250_000, "nest"), (b'{"inputs":' + b"[" * 250_000, "an object wanted"),
    (b'{"a":' + b"[" * 250_000 + b"]" * 250_000 + b"}", "nest"), (with_text("data", "[" * 250_000), "data"),
    (with_text("data", "[" * 100_000 + "]" * 100_000), "data"), (with_text("data", '{"a":' * 100_000), "data"), (with_text("name", '"\\ud800"'), "surrogate"),
], ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "")  # fmt: skip
def test_what_is_no_json_object_is_refused(server, body, piece):
    refused(infer(server, "linear", body), piece)


def test_data_nested_5000_deep_is_refused(server):
    refused(infer(server, "linear", with_text("data", "[" * 5000 + "0" + "]" * 5000)), "data")


@pytest.mark.parametrize(("model", "datatype", "text"), [
    ("identity_int64", "INT64", "9" * 5000), ("identity_fp32", "FP32", "1e400"), ("identity_fp64", "FP64", "1e400"), ("identity_fp64", "FP64", "-1e999999999"),
    ("identity_uint64", "UINT64", "-1"), ("identity_fp32", "FP32", "1e39"),
])
def test_numbers_that_no_datatype_holds_are_refused(server, model, datatype, text):
    refused(infer(server, model, rest_body("x", datatype, [1, 3], ["PLACE", 0, 0]).replace(b'"PLACE"', text.encode())), "data")


@pytest.mark.parametrize(("body", "piece"), [
    (b'{"id":5,' + GOOD[1:], "id"), (b'{"id":null,' + GOOD[1:], "id"), (b'{"id":"a","id":"b",' + GOOD[1:], "twice"), (b"{}", "inputs is missing"),
    (b'{"inputs":null}', "an array wanted"), (b'{"inputs":{}}', "an array wanted"), (b'{"inputs":[]}', "missing"), (b'{"inputs":[[]]}', "object"),
    (b'{"inputs":"x"}', "an array wanted"), (b'{"inputs":[],' + GOOD[1:], "inputs: given twice"), (with_input(name=None), "name is missing"),
    (with_input(name=5), "name"), (with_input(name=None, Name="x"), "name is missing"), (with_input(name="y" * 10**6), "missing"), (with_input(name="\r\n\x1b[31m\0"), "missing"),
    (json.dumps({"inputs": [FP32, FP32]}).encode(), "twice"), (json.dumps({"inputs": [FP32, {**FP32, "name": "z"}]}).encode(), '"z" of linear'),
    (json.dumps({"inputs": [{**FP32, "name": "z"}]}).encode(), "missing"), (json.dumps({"inputs": [FP32], "outputs": [{"name": "z"}]}).encode(), "no such output"),
    (json.dumps({"inputs": [FP32], "outputs": [{"name": "y"}, {"name": "y"}]}).encode(), "twice"),
    (json.dumps({"inputs": [FP32], "outputs": [{}]}).encode(), "name is missing"), (json.dumps({"inputs": [FP32], "outputs": [5]}).encode(), "object"),
    (json.dumps({"inputs": [FP32], "outputs": [{"name": "y" * 10**6}]}).encode(), "no such output"),
    (json.dumps({"inputs": [{**FP32, "name": str(n)} for n in range(10_000)]}).encode(), "more than 1024"),
    (json.dumps({"inputs": [FP32], "parameters": []}).encode(), "parameters"), (json.dumps({"inputs": [FP32], "parameters": {"timeout": "soon"}}).encode(), "timeout"),
], ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else "")  # fmt: skip
def test_a_request_of_another_form_is_told_which_field_is_wrong(server, body, piece):
    refused(infer(server, "linear", body), piece)


@pytest.mark.parametrize(("datatype", "piece"), [
    ('"FP31"', '"FP31" given'), ('"fp32"', '"fp32" given'), ("null", "null given"), ("32", "32 given"), ('"FP64"', "FP64 given, FP32 wanted"),
    ('"FP16"', "binary"), ('"' + "F" * 10**6 + '"', "given"), ('"\\u0000\\u001b"', "given"),
])
def test_a_wrong_datatype_is_told(server, datatype, piece):
    refused(infer(server, "linear", with_text("datatype", datatype)), piece)


def test_fp16_in_json_is_refused_and_told_how_it_travels(server):
    refused(infer(server, "identity_fp16", rest_body("x", "FP16", [1, 3], [1, 2, 3])), "binary_data_size")


@pytest.mark.parametrize("shape", [
    "[-1,8]", "[1,-8]", "[1.0,8]", "[true,8]", '["1",8]', "[[1],8]", "8", "null", '"1,8"', "{}", "[]", "[8]", "[1,1,8]", "[2,8]", "[1,7]", "[1,9]", "[0,0]",
    "[9223372036854775808,8]", "[9223372036854775807,8]", "[4611686018427387904,4]", "[1152921504606846978,16]", "[2305843009213693952,8]",
    "[" + "1," * 99_999 + "8]", "[" + "9" * 5000 + ",8]", "[1e0,8]",
], ids=lambda shape: shape[:24])  # fmt: skip
@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "binary"])
def test_a_wrong_shape_is_refused_before_anything_is_allocated_for_it(server, shape, binary):
    if not binary:
        return refused(infer(server, "linear", with_text("shape", shape)), "shape")
    head = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": "PLACE", "parameters": {"binary_data_size": 32}}]}).encode()
    head = head.replace(b'"PLACE"', shape.encode())
    return refused(infer(server, "linear", head + bytes(32), {"Inference-Header-Content-Length": len(head)}), "shape")


def test_no_rows_are_served_where_the_model_can_and_refused_where_it_cannot(server):
    status, body = infer(server, "linear", rest_body("x", "FP32", [0, 8], []))
    assert (status, json.loads(body)["outputs"][0]["shape"]) == (200, [0, 4])
    refused(infer(server, "fixed", rest_body("x", "INT32", [0, 2], [])), "[0,2] given, [2,2] wanted")
    refused(infer(server, "largest", rest_body("x", "FP32", [0], [])), "ArgMax node")


@pytest.mark.parametrize(("model", "datatype", "data"), [
    ("identity_fp32", "FP32", data) for data in ("[]", "[1,2]", "[1,2,3,4]", "[[1,2],[3]]", "[[1],[2],[3]]", "[1,null,3]", "[1,true,3]", '["1",2,3]', "null", "5", "{}", '"abc"')
] + [("identity_int8", "INT8", f"[{value},0,0]") for value in ("300", "-129", "1.5", "true", str(2**70), '"a"', "1e2", "null")] + [
    ("identity_uint8", "UINT8", "[-1,0,0]"), ("identity_uint8", "UINT8", "[256,0,0]"), ("identity_int64", "INT64", f"[{2**63},0,0]"), ("identity_bool", "BOOL", "[1,0,1]"),
    ("identity_bytes", "BYTES", "[1,2,3]"),
])  # fmt: skip
def test_data_that_does_not_fit_is_refused_and_never_wrapped(server, model, datatype, data):
    refused(infer(server, model, rest_body("x", datatype, [1, 3], "PLACE").replace(b'"PLACE"', data.encode())), "data")


def test_nan_and_infinity_are_exact_both_ways_as_words(server):
    words = ["NaN", "Infinity", "-Infinity"]
    status, body = infer(server, "identity_fp32", rest_body("x", "FP32", [1, 3], words))
    assert (status, json.loads(body, parse_constant=pytest.fail)["outputs"][0]["data"]) == (200, words)
    raw = np.array([np.nan, np.inf, -np.inf], np.float32).tobytes()
    body, headers = binary_body("x", "FP32", [1, 3], raw, parameters={"binary_data_output": True})
    assert infer(server, "identity_fp32", body, headers)[1].endswith(raw)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "nan", "inf", '"nan"', '"inf"', '"+Infinity"'])
def test_other_words_for_them_are_refused(server, word):
    refused(infer(server, "identity_fp32", rest_body("x", "FP32", [1, 3], "PLACE").replace(b'"PLACE"', f"[{word},0,0]".encode())), "data" if '"' in word else "")


@pytest.mark.parametrize(("size", "payload", "piece"), [
    (31, 32, "31 bytes"), (33, 33, "33 bytes"), (33, 32, "33 given"), (32, 31, "32 given"), (32, 40, "8 bytes after"), (0, 32, "bytes"), (-1, 32, "-1 given"),
    (2**62, 32, "given"), (2**64, 32, "given"), (32.0, 32, "32.0 given"), ("32", 32, '"32" given'), (True, 32, "true given"), (None, 32, ""), ([32], 32, "given"),
], ids=repr)  # fmt: skip
def test_a_binary_size_unlike_the_body_is_refused(server, size, payload, piece):
    body, _ = binary_body("x", "FP32", [1, 8], bytes(payload), "PLACE")
    body = body.replace(b'"PLACE"', json.dumps(size).encode())
    refused(infer(server, "linear", body, {"Inference-Header-Content-Length": len(body) - payload}), piece)


def test_data_and_binary_data_in_one_input_are_refused(server):
    head = with_input(parameters={"binary_data_size": 32})
    refused(infer(server, "linear", head + bytes(32), {"Inference-Header-Content-Length": len(head)}), "both")


@pytest.mark.parametrize("length", [-1, "five", "0x10", "", "+5", "1.0", 5, len(GOOD) - 1, len(GOOD) + 1, 10**6, 2**63, 2**64, 10**30, "5, 5", "٥".encode().decode("latin-1")])
def test_a_header_length_that_does_not_fit_the_body_is_refused(server, length):
    refused(infer(server, "linear", GOOD, {"Inference-Header-Content-Length": length}), "")


@pytest.mark.parametrize("payload", [
    struct.pack("<I", 7) + b"abc", struct.pack("<I", 2**32 - 1) + b"abc", struct.pack("<I", 2**31) + b"abc", b"\1\0\0", b"", element(b"a"), element(b"a") * 3,
    element(b"a") + struct.pack("<I", 2), element(b"a") + b"\0" * 3, element(b"a") * 2 + b"\0",
], ids=lambda payload: payload[:12].hex())
def test_bytes_whose_lengths_do_not_fill_the_shape_are_refused(server, payload):
    refused(infer(server, "texts", *binary_body("x", "BYTES", [2], payload)), "x")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b", b"\0", b"", "Zwölf".encode(), bytes(range(256)), b"x" * 100_000], ids=lambda content: content[:8].hex())
def test_bytes_come_back_exactly_or_are_refused(server, content):
    raw = element(content) + element(b"other")
    body, headers = binary_body("x", "BYTES", [2], raw, parameters={"binary_data_output": True})
    status, answer = infer(server, "texts", body, headers)
    assert (status, answer.endswith(raw)) == (200, True)
    status, answer = infer(server, "texts", *binary_body("x", "BYTES", [2], raw))
    if status == 200:
        assert json.loads(answer)["outputs"][0]["data"] == [content.decode(), "other"]
    else:
        refused((status, answer), "UTF-8")


@pytest.mark.parametrize(("model", "wish"), [
    ("zeros", [2**40]), ("zeros", [2**62]), ("zeros", [2**63 - 1]), ("zeros", [-1]), ("zeros", [-(2**63)]), ("plane", [2**40, 2**40]), ("plane", [2**32, 2**31]),
    ("plane", [2**62 + 1, 4]), ("plane", [-1, -4]),
], ids=str)
def test_a_small_request_for_a_huge_result_is_an_error_and_costs_nothing(server, model, wish):
    status, body = infer(server, model, rest_body("n", "INT64", [len(wish)], wish))
    assert status == (429 if wish == [2**40] else 400), body
    assert "ConstantOfShape node" in error_of(body)


@pytest.mark.parametrize("path", [
    "nobody", "..", "%2e%2e", "..%2flinear", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "../../etc/passwd", "linear%00", "%00", "%zz", "%", "%f", "%ff", "linear%0d%0aX:%20y", "%1b[31m",
    "a" * 20_000, "linear/versions/9", "linear/versions/abc", "linear/versions/-1", "linear/versions/1" + "0" * 40, "linear/versions/1.0", "linear/versions/%D9%A1",
    "linear/versions/%201", "linear/versions/01", "linear/versions/..", "linear/versions/%2e%2e%2f1", "linear/versions/", "linear/versions/1%00", "linear/labels/nothing",
    "linear/labels/%00", "linear%40nothing", "", "linear/", "linear//", "linear/infer", "LINEAR", "linear%2fversions%2f1",
], ids=lambda path: path[:30])  # fmt: skip
@pytest.mark.parametrize("last", ["/infer", "", "/ready", "/config", "/stats"])
def test_a_path_that_leads_to_no_model_is_400_or_404(server, path, last):
    status, body = ask(server, f"/v2/models/{path}{last}", GOOD if last == "/infer" else b"", method="POST" if last == "/infer" else "GET")
    served = {"": ("",), "linear": ("", "/infer")}      # the list of names, and a model's own paths
    if status in (405, 307):
        assert path in ("linear/", "linear/infer", ""), body
    elif status != 200:
        refused((status, body), "", 400, 404)
    else:
        assert path in served, body


@pytest.mark.parametrize("host", ["[", "[::1", "x]", "a b", "\xff", "", "x:y", "x:99999999"])
@pytest.mark.parametrize("path", ["/nowhere", "/v2/", "/v2/models/linear/config/", "//v2", "/v2//models", "/%zz", "/v2/models/%5B", "*", "/%0d%0a%1b%c2%9b%e2%80%a8", "/" + "n" * 20_000], ids=lambda path: path[:30])
def test_paths_of_nothing_are_refused_whatever_the_host_says(server, path, host):
    status, body = exchange(server, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1"))
    refused((status, body), "", 400, 404)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "GET", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v2/models/linear/infer", "/v2/models/linear/versions/1/infer"])
def test_another_method_on_infer_is_405_and_told_which_one_is_allowed(server, method, path):
    with wire.connect(server.port) as connection, connection.makefile("rb") as file:
        connection.sendall(request(path, GOOD, method=method))
        head = b"".join(iter(file.readline, b"\r\n"))
    assert head.startswith(b"HTTP/1.1 405 ")
    assert b"allow: post\r\n" in head.lower()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "\xff", "application/json; charset=utf-16", "x" * 5000])
def test_another_content_type_is_served_or_refused(server, kind):
    status, body = infer(server, "linear", GOOD, {"Content-Type": kind})
    if status != 200:
        refused((status, body), "", 415)
