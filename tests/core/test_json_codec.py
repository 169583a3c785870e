"""REST bodies against json and numpy."""

import json
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchmill.core import json_codec
from reference import json_codec as reference

NUMPY = {"BOOL": "?", "INT8": "i1", "INT16": "i2", "INT32": "i4", "INT64": "i8", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4",
         "UINT64": "u8", "FP32": "f4", "FP64": "f8"}
TEXT = st.text(max_size=12)


def elements(datatype):
    if datatype == "BYTES":
        return TEXT
    if datatype == "BOOL":
        return st.booleans()
    if NUMPY[datatype][0] == "f":
        return st.floats(width=8 * int(NUMPY[datatype][1]), allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000)
    info = np.iinfo(NUMPY[datatype])
    return st.integers(int(info.min), int(info.max))


@st.composite
def tensors(draw):
    datatype = draw(st.sampled_from([*NUMPY, "BYTES"]))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = int(np.prod(shape, dtype=np.int64))
    values = draw(st.lists(elements(datatype), min_size=count, max_size=count))
    return {"name": draw(TEXT), "datatype": datatype, "shape": shape, "values": values, "nested": draw(st.booleans()),
            "binary": draw(st.booleans()) and datatype != "BYTES"}


@settings(max_examples=400, deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=4), TEXT, st.booleans(), st.data())
def test_a_request_reads_as_json_and_numpy_read_it(parts, request_id, ascii_only, data):
    inputs, binary = [], b""
    for part in parts:
        raw = reference.raw(part["datatype"], part["values"])
        entry = {"name": part["name"], "datatype": part["datatype"], "shape": part["shape"]}
        if part["binary"]:
            entry["parameters"] = {"binary_data_size": len(raw)}
            binary += raw
        else:
            entry["data"] = reference.nest(part["values"], part["shape"]) if part["nested"] else part["values"]
        inputs.append(dict(data.draw(st.permutations(list(entry.items())))))
    head = json.dumps({"inputs": inputs, "id": request_id, "extra": [{"a": [1, None, True]}]}, ensure_ascii=ascii_only).encode()
    got = json_codec.decode(head + binary, len(head))
    assert got["id"].decode() == request_id
    assert got["inputs"] == [(p["name"].encode(), p["datatype"], p["shape"], reference.raw(p["datatype"], p["values"])) for p in parts]


@settings(max_examples=300, deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=4), TEXT)
def test_an_answer_reads_as_it_was_meant(parts, request_id):
    outputs = [(p["name"].encode(), p["datatype"].encode(), p["shape"], reference.raw(p["datatype"], p["values"]), p["binary"])
               for p in {p["name"]: p for p in parts}.values()]
    body, size = json_codec.encode_response(b"m", b"3", request_id.encode(), outputs)
    answer = json.loads(body if size < 0 else body[:size])
    assert (answer["model_name"], answer["model_version"], answer.get("id", "")) == ("m", "3", request_id)
    rest = b"" if size < 0 else body[size:]
    for output, (name, datatype, shape, raw, binary) in zip(answer["outputs"], outputs, strict=True):
        assert (output["name"].encode(), output["datatype"].encode(), output["shape"]) == (name, datatype, shape)
        if binary:
            assert rest[:output["parameters"]["binary_data_size"]] == raw
            rest = rest[len(raw):]
        else:
            assert reference.raw(datatype.decode(), output["data"]) == raw
    assert rest == b""


def number_texts(count):
    rng = random.Random(20)
    for _ in range(count):
        kind = rng.randrange(5)
        if kind == 0:
            yield repr(struct.unpack("<d", rng.randbytes(8))[0])
        elif kind == 1:
            yield repr(float(struct.unpack("<f", rng.randbytes(4))[0]))
        elif kind == 2:   # halfway between two floats, and a digit beside it
            low = np.float32(rng.uniform(-1e6, 1e6))
            yield f"{(float(low) + float(np.nextafter(low, np.float32(np.inf)))) / 2:.40g}" + rng.choice(["", "0", "1"])
        elif kind == 3:
            yield f"{rng.randrange(10**25)}.{rng.randrange(10**20)}e{rng.randrange(-330, 280)}"
        else:
            yield f"{rng.randrange(-10**6, 10**6)}e{rng.randrange(-50, 20)}"


def test_numbers_are_bit_equal_to_python_and_numpy():
    for text in number_texts(20_000):
        if "nan" in text or "inf" in text:
            continue
        wide = float(text)
        for datatype, dtype in (("FP64", np.float64), ("FP32", np.float32)):
            body = f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[1],"data":[{text}]}}]}}'.encode()
            with np.errstate(over="ignore"):
                wanted = dtype(wide)
            if not np.isfinite(wanted):
                with pytest.raises(ValueError, match="too large"):
                    json_codec.decode(body)
            else:
                assert json_codec.decode(body)["inputs"][0][3] == wanted.tobytes(), text


def one(data="[1]", datatype="FP32", shape="[1]", more=""):
    return f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}{more}}}]}}'.encode()


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b"{}", b"\xff", one() + b"x", one()[:-1], b'{"inputs":null}', b'{"inputs":{}}', b'{"inputs":[null]}',
    b'{"inputs":' + b"[" * 250_000, b'{"x":' + b'{"x":' * 250_000, b'{"x":' + b"[" * 65 + b"]" * 65 + b',"inputs":[]}',
    b'{"id":5,"inputs":[]}', b'{"inputs":[],"inputs":[]}', b'{"inputs":[{"name":"x"}]}', b'{"inputs":[{"name":5,"datatype":"FP32","shape":[],"data":[1]}]}',
    one(datatype="FP31"), one(datatype="fp32"), one(datatype="FP16"), one(shape="[-1]"), one(shape="[1.0]"), one(shape="[true]"),
    one(shape='["1"]'), one(shape="[[1]]"), one(shape="1"), one(shape="[9223372036854775808]"), one(shape="[4611686018427387904,4]"),
    one(shape="[1152921504606846978,16]"), one(shape="[1073741824]"), one(shape="[" + "1," * 99_999 + "1]"), one(shape="[2]"), one("[1,2]"),
    one("[[1,2],[3]]", shape="[2,2]"), one("[[1],[2]]", shape="[1,2]"), one("[[[1]]]", shape="[1,1]"), one("[null]"), one("[true]"), one('["1"]'),
    one("[NaN]"), one("[01]"), one("[1.]"), one("[.5]"), one("[+1]"), one("[1e400]"), one("[1e39]"), one("[-]"), one("[1,]"), one("1"),
    one("[300]", "INT8"), one("[-129]", "INT8"), one("[1.5]", "INT8"), one("[1e2]", "INT64"), one("[true]", "INT32"), one("[-1]", "UINT8"),
    one("[1180591620717411303424]", "INT64"), one("[9223372036854775808]", "INT64"), one("[18446744073709551616]", "UINT64"),
    one("[" + "9" * 5000 + "]", "INT64"), one("[1]", "BOOL"), one("[1]", "BYTES"), one('["\\ud800"]', "BYTES"), one('["\\x"]', "BYTES"),
    one('["\n"]', "BYTES"), one(more=',"data":[1]'), one(more=',"parameters":{"binary_data_size":4}'),
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":-1}}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":18446744073709551616}}]}',
    b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4.0}}]}',
])
def test_what_is_no_request_is_refused_with_a_text(body):
    with pytest.raises(ValueError, match="."):
        json_codec.decode(body)


def test_64_bit_edges_and_words_for_what_json_cannot_write():
    assert json_codec.decode(one("[18446744073709551615]", "UINT64"))["inputs"][0][3] == b"\xff" * 8
    assert json_codec.decode(one("[-9223372036854775808]", "INT64"))["inputs"][0][3] == struct.pack("<q", -2**63)
    values = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    body, _ = json_codec.encode_response(b"m", b"1", b"", [(b"y", b"FP32", [4], values.tobytes(), False)])
    assert json.loads(body)["outputs"][0]["data"] == ["NaN", "Infinity", "-Infinity", -0.0]
    assert json_codec.decode(one('["NaN","Infinity","-Infinity",-0.0]', shape="[4]"))["inputs"][0][3] == values.tobytes()


@pytest.mark.parametrize("json_size", [0, 5, 1000, 2**62])
def test_a_header_length_that_does_not_fit_is_refused_or_means_a_raw_request(json_size):
    if json_size == 0:
        assert json_codec.decode(b"1234", 0)["inputs"] == [(b"", "INVALID", [], b"1234")]
    else:
        with pytest.raises(ValueError, match="."):
            json_codec.decode(one(), json_size)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_no_mutation_crashes(data):
    body = bytearray(one('[[1,-2.5e3],[0,1]]', shape="[2,2]", more=',"parameters":{"a":"\\u00e9"}'))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        got = json_codec.decode(bytes(body[:data.draw(st.integers(0, len(body)))]))
    except ValueError:
        return
    assert got["inputs"] is not None
