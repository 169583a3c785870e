"""REST bodies that are refused, and how."""

import struct

import pytest

from batchmill.core import json_codec
from reference.json_codec import binary_body, one


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b"{}", b"\xff", one() + b"x", one()[:-1], b'{"inputs":null}', b'{"inputs":{}}', b'{"inputs":[null]}',
    b'{"inputs":' + b"[" * 250_000, b'{"x":' + b'{"x":' * 250_000, b'{"x":' + b"[" * 65 + b"]" * 65 + b',"inputs":[]}',
    b'{"id":5,"inputs":[]}', b'{"inputs":[],"inputs":[]}', b'{"inputs":[{"name":"x"}]}',
    b'{"inputs":[{"name":5,"datatype":"FP32","shape":[],"data":[1]}]}',
    one(datatype="FP31"), one(datatype="fp32"), one(datatype="FP16"), one(shape="[-1]"), one(shape="[1.0]"), one(shape="[true]"),
    one(shape='["1"]'), one(shape="[[1]]"), one(shape="1"), one(shape="[9223372036854775808]"), one(shape="[4611686018427387904,4]"),
    one(shape="[1152921504606846978,16]"), one(shape="[1073741824]"), one(shape="[" + "1," * 99_999 + "1]"), one(shape="[2]"),
    one("[1,2]"),
    one("[[1,2],[3]]", shape="[2,2]"), one("[[1],[2]]", shape="[1,2]"), one("[[[1]]]", shape="[1,1]"), one("[null]"), one("[true]"),
    one('["1"]'),
    one("[NaN]"), one("[01]"), one("[1.]"), one("[.5]"), one("[+1]"), one("[1e400]"), one("[1e39]"), one("[-]"), one("[1,]"), one("1"),
    one("[300]", "INT8"), one("[-129]", "INT8"), one("[1.5]", "INT8"), one("[1e2]", "INT64"), one("[true]", "INT32"), one("[-1]", "UINT8"),
    one("[1180591620717411303424]", "INT64"), one("[9223372036854775808]", "INT64"), one("[18446744073709551616]", "UINT64"),
    one("[" + "9" * 5000 + "]", "INT64"), one("[1]", "BOOL"), one("[1]", "BYTES"), one('["\\ud800"]', "BYTES"), one('["\\x"]', "BYTES"),
    one('["\n"]', "BYTES"), one(more=',"data":[1]'), one(more=',"parameters":{"binary_data_size":4}'),
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":-1}}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":18446744073709551616}}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4.0}}]}',
    b'{"inputs":[]', one() + b"\0", b"\0" + one(), b"\xef\xbb\xbf" + one(),
    one(more=',"":"\\ud8"'), one("[" * 5000 + "]" * 5000), one('["Nan"]'),
    b'{"inputs":[' + b",".join(b'{"name":"%d","datatype":"INT8","shape":[0],"data":[]}' % i for i in range(10_000)) + b"]}",
    b'{"inputs":["x"]}', one()[:-1] + b',"outputs":{}}', one()[:-1] + b',"outputs":[{}]}', one()[:-1] + b',"outputs":["y"]}',
    one()[:-1] + b',"outputs":[{"name":"y"},{"name":"y"}]}', one()[:-2] + b"," + one()[11:],
])
def test_what_is_no_request_is_refused_with_a_text(body):
    with pytest.raises(ValueError, match=r"."):
        json_codec.decode(body)


@pytest.mark.parametrize(("body", "text"), [
    (b"", "the body is not valid JSON at byte 0: it ends too early"),
    (one()[:-1], "the body is not valid JSON at byte 65: it ends too early"),
    (one() + b"x", "the body is not valid JSON at byte 66: bytes follow the JSON"),
    (b"[]", "an array given, an object wanted"),
    (b"{}", "inputs is missing"),
    (b'{"id":5}', "id: 5 given, a string wanted"),
    (b'{"inputs":null}', "inputs: null given, an array wanted"),
    (b'{"inputs":[{"shape":[]}]}', "inputs[0]: name is missing"),
    (b'{"inputs":[{"name":"x"}]}', 'input "x": datatype is missing'),
    (one(datatype="FP31"), 'input "x": datatype: "FP31" given, a datatype such as FP32 wanted'),
    (one(datatype="FP16"), 'input "x": data: FP16 and BF16 travel only as binary data (binary_data_size)'),
    (one(shape="[-1]"), 'input "x": shape: -1 given, an integer from 0 to 2^63 - 1 wanted'),
    (one(shape="[2]"), 'input "x": data: fewer elements than in shape [2]'),
    (one("[[1,2],[3]]", shape="[2,2]"), 'input "x": data: fewer elements than in shape [2,2]'),
    (one("[[1],2]", shape="[2,1]"), 'input "x": data: 2 given, an array wanted'),
    (one("[300]", "INT8"), 'input "x": data: 300 given, a number in the range of INT8 wanted'),
    (one("[1.5]", "INT8"), 'input "x": data: 1.5 given, INT8 wanted'),
    (one('["a"]'), 'input "x": data: "a" given, FP32 wanted'),
    (one("[NaN]"), 'input "x": data: NaN given, FP32 wanted'),
    (one(more=',"parameters":{"binary_data_size":4}'), 'input "x": data and binary_data_size are both given'),
    (one(more=',"data":[1]'), 'input "x": data: given twice'),
    (one()[:-1] + b',"parameters":{"timeout":-5}}', "parameters.timeout: -5 given, an integer from 0 to 2^63 - 1 wanted"),
    (one()[:-1] + b',"outputs":[{"name":"y","parameters":{"binary_data":1}}]}',
     'output "y": parameters.binary_data: 1 given, true or false wanted'),
    (one(more=',"parameters":{"shared_memory_region":"r"}'), 'input "x": parameters: shared memory is not offered'),
    (one()[:-1] + b',"outputs":[{"name":"y","parameters":{"shared_memory_offset":1}}]}', 'output "y": parameters: shared memory is not offered'),
])
def test_a_refusal_names_field_given_and_wanted(body, text):
    with pytest.raises(ValueError, match=r".") as caught:
        json_codec.decode(body)
    assert str(caught.value) == text


@pytest.mark.parametrize("body", [
    one("[" + "9" * 5000 + "]", "INT64"), b'{"id":[' + b"9" * 5000, one('["' + "x" * 10**6 + '"]'), one(datatype="F" * 10**6),
    b'{"inputs":[{"name":"' + b"x" * 10**6 + b'","datatype":5}]}', b'{"inputs":[{"name":"\\n\\u001b","datatype":5}]}',
    b'{"inputs":[{"name":"\\u009b\\u0085\\u2028\\u2029\\u007f","datatype":5}]}',
])
def test_an_echoed_value_is_cut_and_stays_on_one_line(body):
    with pytest.raises(ValueError, match=r".") as caught:
        json_codec.decode(body)
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("datatype", "shape", "size", "payload", "text"), [
    ("FP32", [1], 3, b"123", "3 bytes given do not fit FP32 of shape [1]"),
    ("FP32", [1], 8, b"12345678", "8 bytes given do not fit FP32 of shape [1]"),
    ("FP32", [1], 4, b"123", "4 given, the body has 3 more bytes"),
    ("FP32", [1], 4, b"12345", "1 bytes after the JSON belong to no input"),
    ("FP32", [1], 2**62, b"1234", "given, the body has 4 more bytes"),
    ("FP32", [1], 2**64, b"1234", "18446744073709551616 given, an integer"),
    ("FP32", [1], "4.0", b"1234", "4.0 given, an integer"),
    ("FP32", [1], '"4"', b"1234", '"4" given, an integer'),
    ("FP32", [1], "null", b"1234", "null given, an integer"),
    ("FP32", [2**62, 4], 4, b"1234", "too many elements in shape"),
    ("FP32", [2**60 + 2, 16], 32, b"x" * 32, "too many elements in shape"),
    ("FP32", [2**62], 0, b"", "0 bytes given do not fit"),
    ("FP16", [2], 3, b"123", "3 bytes given do not fit FP16"),
    ("BYTES", [1], 6, struct.pack("<I", 3) + b"xy", "its lengths and bytes"),
    ("BYTES", [1], 6, struct.pack("<I", 2**32 - 1) + b"xy", "its lengths and bytes"),
    ("BYTES", [1], 3, b"\0\0\0", "its lengths and bytes"),
    ("BYTES", [2], 5, struct.pack("<I", 1) + b"x", "its lengths and bytes"),
    ("BYTES", [1], 8, bytes(8), "its lengths and bytes"),
])
def test_binary_data_that_does_not_fit_is_refused(datatype, shape, size, payload, text):
    with pytest.raises(ValueError, match=r".") as caught:
        json_codec.decode(*binary_body(datatype, shape, size, payload))
    assert text in str(caught.value)
