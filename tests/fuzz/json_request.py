"""A REST body of JSON alone: read as json and numpy read it, and answered in kind."""

import json
import math
import re

from batchmill.core import json_codec
from reference import json_codec as reference

WORDS = (
    *(f'"{name}"'.encode() for name in (*reference.WIDTHS, "BYTES")), b'"inputs":[', b'"outputs":[', b'"name":"x"', b'"datatype":', b'"shape":[',
    b'"data":[', b'"parameters":{', b'"binary_data_size":', b'"binary_data":true', b'"binary_data_output":false', b'"classification":3',
    b'"timeout":1', b'"shared_memory_region":"r"',
    b'"priority":2', b'"label":"l"', b'"route_key":"k"', b'"id":"i"', b"null", b"true", b"false", b'"NaN"', b'"-Infinity"', b"\\u0000",
    b"\\ud83d\\ude00",
    b"\\udc00", b"\\n", b"1e400", b"-0.0", b"1e-46", b"3.4028235677973366e38", b"9007199254740993", b"18446744073709551615", b"9223372036854775808",
    b"2.2250738585072011e-308", b"[[", b"]]", b"},{", b"\xc3\xa9", b"\xf0\x9f\x98\x80", b"\xed\xa0\x80",
)
DEPTH_MAX = 64  # of values that are skipped


def seeds():
    """An input of every datatype, flat and nested, and every key."""
    for datatype in reference.NUMPY:
        values = "true,false" if datatype == "BOOL" else "1,0"
        yield reference.one(f"[{values}]", datatype, "[2]")
        yield reference.one(f"[[[{values}]],[[{values}]]]", datatype, "[2,1,2]")
    yield reference.one('["a","\\u00e9\\n\\ud83d\\ude00é"]', "BYTES", "[2]")
    yield reference.one("[[],[]]", shape="[2,0]")
    yield reference.one('["NaN","Infinity","-Infinity",-0.0,1e-46,3.4e38,0.1,1e22,9007199254740993]', shape="[9]")
    yield reference.one("[1.7976931348623157e308,5e-324,-2.5E+3,123456789012345678901234567890]", "FP64", "[4]")
    yield reference.one("[18446744073709551615,0]", "UINT64", "[2]")
    yield reference.one("[-9223372036854775808,-0]", "INT64", "[2]")
    yield json.dumps({
        "id": "a", "parameters": {"binary_data_output": True, "timeout": 5, "priority": 1, "label": "l", "route_key": "k", "more": [{"a": None}]},
        "outputs": [{"name": "y", "parameters": {"binary_data": False, "classification": 2}}, {"name": "z"}], "extra": [[[{"x": [1, "2", True]}]]],
        "inputs": [{"data": [1], "shape": [1], "datatype": "FP32", "name": "x"}, {"name": "y", "shape": [], "datatype": "INT8", "data": [1]}],
    }, indent=1).encode()


def outcome(read, *arguments):
    """What it gives, or that it refuses."""
    try:
        return read(*arguments)
    except (ValueError, RecursionError) as error:
        return f"refused: {error}"


def compare(body, json_size=-1):
    """What our decoder gives; it is what the twin gives, but for what is named here."""
    got, wanted = outcome(json_codec.decode, body, json_size), outcome(reference.decode, body, json_size)
    if isinstance(got, dict) or isinstance(wanted, dict):
        # The twin skips values however deep they nest.
        assert got == wanted or (isinstance(got, str) and got.endswith("values nest deeper than 64")), (got, wanted)
    return got


def one_nan(datatype, raw):
    """JSON carries no NaN payload: all of them read back as one."""
    if datatype not in ("FP32", "FP64"):
        return raw
    return [math.nan if math.isnan(v) else v for v in memoryview(raw).cast("f" if datatype == "FP32" else "d").tolist()].__repr__()


def check_answer(got):
    """The inputs as the outputs of an answer, as JSON and as binary tensors."""
    outputs = [(name, datatype.encode(), shape, raw, bool(index % 2)) for index, (name, datatype, shape, raw) in enumerate(got["inputs"])]
    try:
        body, size = json_codec.encode_response(b"m", b"7", got["id"], outputs)
    except ValueError as error:
        assert "no UTF-8" in str(error)  # BYTES of a binary input
        return
    read = reference.response(json.loads(body if size < 0 else body[:size]), b"" if size < 0 else body[size:])
    for output, (name, datatype, shape, raw) in zip(read, got["inputs"], strict=True):
        assert (output[0], output[1].decode(), output[2]) == (name, datatype, shape)
        assert output[3] == raw or one_nan(datatype, output[3]) == one_nan(datatype, raw) or (datatype == "BOOL" and re.search(b"[^\0\1]", raw))


def check(data):
    """One body."""
    got = compare(data)
    if isinstance(got, dict):
        check_answer(got)
