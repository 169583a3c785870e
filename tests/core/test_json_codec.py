"""REST bodies against json and numpy."""

import json
import math
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchmill.core import json_codec
from reference import json_codec as reference
from reference.json_codec import binary_body, one

NUMPY = reference.NUMPY
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


def named_apart(parts):
    return list({part["name"]: part for part in parts}.values())


def outcome(read, *arguments):
    """What it gives, or that it refuses."""
    try:
        return read(*arguments)
    except ValueError:
        return "refused"


@settings(max_examples=400, deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=4), TEXT, st.booleans(), st.data())
def test_a_request_reads_as_json_and_numpy_read_it(parts, request_id, ascii_only, data):
    inputs, binary, parts = [], b"", named_apart(parts)
    for part in parts:
        raw = reference.raw(part["datatype"], part["values"])
        entry = {"name": part["name"], "datatype": part["datatype"], "shape": part["shape"]}
        if part["binary"]:
            entry["parameters"] = {"binary_data_size": len(raw)}
            binary += raw
        else:
            entry["data"] = reference.nest(part["values"], part["shape"]) if part["nested"] else part["values"]
        inputs.append(dict(data.draw(st.permutations(list(entry.items())))))
    body = {"inputs": inputs, "id": request_id, "extra": [{"a": [1, None, True]}], "outputs": [{"name": request_id, "parameters": {
        "binary_data": ascii_only, "classification": 3}}], "parameters": {"timeout": 5, "label": request_id, "sequence_id": 7}}
    head = json.dumps(dict(data.draw(st.permutations(list(body.items())))), ensure_ascii=ascii_only, indent=data.draw(
        st.sampled_from([None, 1]))).encode()
    got = json_codec.decode(head + binary, len(head))
    assert got["id"].decode() == request_id
    assert got["inputs"] == [(p["name"].encode(), p["datatype"], p["shape"], reference.raw(p["datatype"], p["values"])) for p in parts]
    assert got == reference.decode(head + binary, len(head))


# Texts of values, most of them right in one place and wrong in another.
TEXTS = [
    "null", "true", "false", "0", "-0", "1", "-1", "2", "127", "128", "-128", "-129", "255", "256", "65535", "65536", "2147483647",
    "2147483648", "-2147483648", "4294967296", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
    "-9223372036854775809", "18446744073709551615", "18446744073709551616", "1.0", "1.5", "1e2", "1E+2", "1e-400", "1e400", "1e39",
    "3.4028235677973366e38", "3.4028235677973365e38", "-0.0", "NaN", "-Infinity", "01", "1.", ".5", "+1", "-", "1e", '""', '"1"', '"NaN"',
    '"Infinity"', '"\\u004eaN"',
    '"\\ud83d\\ude00"', '"\\ud83d"', '"\\udc00\\ud83d"', '"\\x"', '"\n"', '"\x7f"', '"é"', "[]", "{}", "[[]]", "[1]",
    "[1,2]", "[[1],[2]]", "[[1,2]]", "[[1,2],[3]]", "[[[1]]]", "[[],[]]", "[1,]", "[,1]", "[1 2]", '["a","b"]', "[true,false]", "[null]",
    "[1.5,2]", '{"a":1}', '{"a":1,}', '{"a":1,"a":2}', '{"binary_data_size":4}', '{"binary_data_size":8,"binary_data_size":8}',
    '{"binary_data_size":1.0}',
]
FLOAT_TEXTS = ["0", "-0", "1", "-0.0", "1.5", "1E+2", "1e-400", "3.4028235677973365e38", '"NaN"', '"\\u004eaN"', "12345678901234567890"]
ELEMENTS = {"BOOL": ["true", "false"], "BYTES": ['""', '"a"', '"\\ud83d\\ude00"', '"\\u00e9\\n"', '"é"', '"[,]"'],
            "FP32": FLOAT_TEXTS, "FP64": FLOAT_TEXTS}
VALUES = {
    "name": ['"x"', '"y"', '"\\u0078"'], "datatype": [f'"{name}"' for name in (*NUMPY, "BYTES", "FP16", "BF16", "fp32", "STRING")],
    "shape": ["[]", "[0]", "[1]", "[2]", "[1,2]", "[2,1]", "[2,0]", "[0,2]", "[-1]", "[4611686018427387904,4]",
              "[4294967296,4294967296,0]"],
    "data": TEXTS, "parameters": ["{}", '{"binary_data_size":1}', '{"binary_data_size":2}', '{"binary_data_size":8}'], "extra": TEXTS,
}


def rows(nested):
    """The text of nested lists of texts."""
    return nested if isinstance(nested, str) else "[" + ",".join(map(rows, nested)) + "]"


@st.composite
def entries(draw):
    """(text, binary bytes) of an input: right, or with one key missing, twice, or of another value."""
    datatype = draw(st.sampled_from([*NUMPY, "BYTES"]))
    shape = draw(st.lists(st.integers(0, 2), max_size=3))
    count = math.prod(shape)
    fields = {"name": draw(st.sampled_from(VALUES["name"])), "datatype": f'"{datatype}"', "shape": str(shape)}
    binary = b""
    if datatype != "BYTES" and draw(st.booleans()):
        binary = draw(st.binary(min_size=count * reference.WIDTHS[datatype], max_size=count * reference.WIDTHS[datatype]))
        fields["parameters"] = f'{{"binary_data_size": {len(binary)}}}'
    else:
        wanted = st.sampled_from(ELEMENTS.get(datatype, ["0", "-0", "1", "100", "127"] + TEXTS[:25] * draw(st.booleans())))
        elements = draw(st.lists(wanted, min_size=count, max_size=count))
        fields["data"] = rows(reference.nest(elements, shape) if draw(st.booleans()) else elements)
    pairs = draw(st.permutations([*fields.items()]))
    how = draw(st.sampled_from(["right", "right", "other value", "another key", "missing"]))
    if how == "other value":
        key = pairs[0][0]
        pairs[0] = (key, draw(st.sampled_from(VALUES[key] + TEXTS)))
    elif how == "another key":
        key = draw(st.sampled_from([*VALUES]))
        pairs.append((key, draw(st.sampled_from(VALUES[key]))))
    elif how == "missing":
        pairs.pop()
    return "{" + ", ".join(f'"{key}": {value}' for key, value in pairs) + "}", binary


@settings(max_examples=1500, deadline=None)
@given(st.lists(entries(), min_size=1, max_size=2), st.sampled_from([b"", b"", b"", b"x"]))
def test_the_twin_refuses_the_same_and_reads_the_rest_alike(inputs, more):
    head = ('{"inputs":[' + ",".join(text for text, _ in inputs) + "]}").encode()
    body = head + b"".join(binary for _, binary in inputs) + more
    assert outcome(json_codec.decode, body, len(head)) == outcome(reference.decode, body, len(head))


WHOLE = ('{"id":"a\\u00e9","inputs":[{"name":"x","datatype":"FP32","shape":[2,2],"data":[[1,-2.5e3],[0,1]]},{"data":["\\n","é"],'
         '"shape":[2],"name":"y","datatype":"BYTES"},{"name":"b","datatype":"INT8","shape":[3],"parameters":{"binary_data_size":3}}],'
         '"outputs":[{"name":"z","parameters":{"binary_data":true}}],"parameters":{"timeout":1,"a":[{"b":null}]}}').encode()


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.tuples(
    st.integers(0, len(WHOLE) - 1), st.sampled_from(b'\0 {}[]:,"\\\n\xff\xc3\xa90123456789.-+eE') | st.integers(0, 255),
    st.sampled_from(["put", "insert", "drop"])), min_size=1, max_size=3))
def test_a_damaged_body_reads_as_the_twin_reads_it(damages):
    body = bytearray(WHOLE)
    for at, byte, how in damages:
        at %= len(body)
        body[at:at + (how != "insert")] = b"" if how == "drop" else bytes([byte])
    whole = bytes(body) + b"abc"
    assert outcome(json_codec.decode, whole, len(body)) == outcome(reference.decode, whole, len(body))


def test_a_cut_at_every_byte_is_refused():
    assert json_codec.decode(WHOLE + b"abc", len(WHOLE))["inputs"][2][3] == b"abc"
    for end in range(len(WHOLE) + 3):
        cut = (WHOLE + b"abc")[:end]
        for size in {-1, min(end, len(WHOLE)) or -1}:
            with pytest.raises(ValueError, match=r"."):
                json_codec.decode(cut, size)


HALVES = st.integers(0, 65535).map(lambda bits: struct.pack("<H", bits))
FLOATS = {"FP16": HALVES, "BF16": HALVES, "FP32": st.binary(min_size=4, max_size=4), "FP64": st.binary(min_size=8, max_size=8)}


@st.composite
def answers(draw):
    """(name, datatype, shape, raw bytes, binary): any bits, so NaN and infinities too."""
    if draw(st.booleans()):
        part = draw(tensors())
        raw = reference.raw(part["datatype"], part["values"])
        return part["name"].encode(), part["datatype"].encode(), part["shape"], raw, part["binary"]
    datatype = draw(st.sampled_from([*FLOATS]))
    elements = draw(st.lists(FLOATS[datatype], max_size=4))
    return draw(TEXT).encode(), datatype.encode(), [len(elements)], b"".join(elements), draw(st.booleans())


def one_nan(datatype, raw):
    """JSON carries no NaN payload: all of them read back as one."""
    if datatype == b"BF16":
        wide = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif datatype in (b"FP16", b"FP32", b"FP64"):
        wide = np.frombuffer(raw, {b"FP16": np.float16, b"FP32": np.float32, b"FP64": np.float64}[datatype])
    else:
        return raw
    return [struct.pack("<d", math.nan if np.isnan(value) else float(value)) for value in wide]


@settings(max_examples=600, deadline=None)
@given(st.lists(answers(), min_size=1, max_size=4), TEXT, TEXT)
def test_an_answer_reads_as_it_was_meant(outputs, request_id, model):
    outputs = list({output[0]: output for output in outputs}.values())
    body, size = json_codec.encode_response(model.encode(), b"3", request_id.encode(), outputs)
    assert (size >= 0) == any(output[4] for output in outputs)
    answer = json.loads(body if size < 0 else body[:size], parse_constant=pytest.fail)
    assert (answer["model_name"], answer["model_version"], answer.get("id", "")) == (model, "3", request_id)
    got = reference.response(answer, b"" if size < 0 else body[size:])
    for output, (name, datatype, shape, raw, binary) in zip(got, outputs, strict=True):
        assert output[:3] == (name, datatype, shape)
        assert output[3] == raw if binary else one_nan(datatype, output[3]) == one_nan(datatype, raw)


@pytest.mark.parametrize(("datatype", "dtype"), [(b"FP32", np.float32), (b"FP64", np.float64)])
def test_floats_are_written_as_briefly_as_they_read_back(datatype, dtype):
    random_bits = np.frombuffer(random.Random(3).randbytes(20_000 * dtype().itemsize), dtype)
    whole = np.array([0, -0.0, 1, -1, 2**24 - 1, 2**24, 2**24 + 2, 1e14, 1e15, 1e16, 1e20, 0.1, 1e-5, 1e-45], dtype)
    values = np.concatenate([whole, random_bits[np.isfinite(random_bits)], random_bits[:2000].view(f"i{dtype().itemsize}").astype(dtype)])
    body, _ = json_codec.encode_response(b"m", b"1", b"", [(b"y", datatype, [len(values)], values.tobytes(), False)])
    for value, text in zip(values, body[body.index(b'"data":') + 8:-4].decode().split(","), strict=True):
        assert dtype(float(text)).tobytes() == value.tobytes(), text
        assert len(text.removesuffix(".0")) <= len(str(value)), text
        assert "." in text or "e" in text


def number_texts(count):
    rng = random.Random(20)
    for _ in range(count):
        kind = rng.randrange(7)
        if kind == 0:
            yield repr(struct.unpack("<d", rng.randbytes(8))[0])
        elif kind == 1:
            yield repr(float(struct.unpack("<f", rng.randbytes(4))[0]))
        elif kind == 2:   # halfway between two floats, and a digit beside it
            low = np.float32(rng.uniform(-1e6, 1e6))
            yield f"{(float(low) + float(np.nextafter(low, np.float32(np.inf)))) / 2:.40g}" + rng.choice(["", "0", "1"])
        elif kind == 3:
            yield f"{rng.randrange(10**25)}.{rng.randrange(10**20)}e{rng.randrange(-330, 280)}"
        elif kind == 4:   # halfway between two doubles, all digits, and one more or less
            low = abs(struct.unpack("<d", rng.randbytes(8))[0])
            if math.isfinite(low) and 1e-290 < low < 1e290:
                top, bottom = (low + 0.0).as_integer_ratio()
                step = math.ulp(low).as_integer_ratio()
                scaled = (2 * top * step[1] + step[0] * bottom) * 10**700 // (2 * bottom * step[1])
                yield f"{scaled + rng.choice([-1, 0, 1])}e-700"
        elif kind == 5:   # denormals
            yield f"{rng.randrange(1, 10**17)}e{rng.randrange(-345, -320)}"
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
                with pytest.raises(ValueError, match="range of FP"):
                    json_codec.decode(body)
            else:
                assert json_codec.decode(body)["inputs"][0][3] == wanted.tobytes(), text


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "BYTES"])
def test_what_json_cannot_carry_comes_through_as_binary(datatype):
    payload = struct.pack("<I", 2) + b"\xff\0" if datatype == "BYTES" else b"\x01\x7c"
    assert json_codec.decode(*binary_body(datatype, [1], len(payload), payload))["inputs"] == [(b"x", datatype, [1], payload)]
    body, size = json_codec.encode_response(b"m", b"1", b"", [(b"y", datatype.encode(), [1], payload, True)])
    assert body[size:] == payload


def test_bytes_that_are_no_utf8_are_refused_in_json_and_not_changed():
    with pytest.raises(ValueError, match=r'output "y": .*ask for binary_data'):
        json_codec.encode_response(b"m", b"1", b"", [(b"y", b"BYTES", [1], struct.pack("<I", 2) + b"\xff\0", False)])


def test_tensors_begin_on_64_bytes_in_the_arena():
    parts = [{"name": str(i), "datatype": "INT8", "shape": [i], "data": [1] * i} for i in range(200)]
    assert set(json_codec.arena_offsets(json.dumps({"inputs": parts}).encode())) == {0}


def test_64_bit_edges_and_words_for_what_json_cannot_write():
    assert json_codec.decode(one("[18446744073709551615]", "UINT64"))["inputs"][0][3] == b"\xff" * 8
    assert json_codec.decode(one("[-9223372036854775808]", "INT64"))["inputs"][0][3] == struct.pack("<q", -2**63)
    values = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32)
    body, _ = json_codec.encode_response(b"m", b"1", b"", [(b"y", b"FP32", [4], values.tobytes(), False)])
    assert json.loads(body)["outputs"][0]["data"] == ["NaN", "Infinity", "-Infinity", -0.0]
    assert json_codec.decode(one('["NaN","Infinity","-Infinity",-0.0]', shape="[4]"))["inputs"][0][3] == values.tobytes()


@pytest.mark.parametrize("json_size", [0, 5, 1000, 2**62, 2**63 - 1, -2, -2**63])
def test_a_header_length_that_does_not_fit_is_refused_or_means_a_raw_request(json_size):
    if json_size == 0:
        assert json_codec.decode(b"1234", 0)["inputs"] == [(b"", "INVALID", [], b"1234")]
    else:
        with pytest.raises(ValueError, match=r"."):
            json_codec.decode(one(), json_size)


@pytest.mark.parametrize("binary", [False, True])
def test_an_answer_over_the_limit_is_refused_with_its_size(binary):
    outputs = [(b"y", b"FP32", [1000], np.full(1000, 0.1, np.float32).tobytes(), binary)]
    body, _ = json_codec.encode_response(b"m", b"7", b"", outputs)
    assert json_codec.encode_response(b"m", b"7", b"", outputs, len(body))[0] == body
    with pytest.raises(ValueError, match=rf"limit of {len(body) - 1} bytes \(max_response_mib\): its outputs hold 4000 bytes"):
        json_codec.encode_response(b"m", b"7", b"", outputs, len(body) - 1)
