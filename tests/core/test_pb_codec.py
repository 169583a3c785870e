"""The hand-written protobuf codec against protobuf itself."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchmill.core import pb_request, pb_response
from reference import pb_request as reference
from reference import proto

pb = proto.Messages()
FIELDS = reference.FIELDS
NUMPY = {"BOOL": "?", "INT8": "i1", "INT16": "i2", "INT32": "i4", "INT64": "i8", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4",
         "UINT64": "u8", "FP16": "f2", "FP32": "f4", "FP64": "f8"}
NAMES = st.text(max_size=20)


def raw_of(datatype, values):
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(v)) + v for v in values)
    return np.array(values, NUMPY[datatype]).tobytes()


@st.composite
def tensors(draw, typed):
    datatype = draw(st.sampled_from(sorted(FIELDS if typed else NUMPY)))
    if datatype == "BYTES":
        element = st.binary(max_size=8)
    elif datatype == "BOOL":
        element = st.booleans()
    elif NUMPY[datatype][0] == "f":
        element = st.floats(width=8 * int(NUMPY[datatype][1]), allow_nan=False)
    else:
        info = np.iinfo(NUMPY[datatype])
        element = st.integers(int(info.min), int(info.max))
    values = draw(st.lists(element, max_size=6))
    return draw(NAMES), datatype, [len(values)], values


@st.composite
def requests(draw):
    typed = draw(st.booleans())
    message = pb.ModelInferRequest(model_name=draw(NAMES), model_version=draw(NAMES), id=draw(NAMES))
    parts = draw(st.lists(tensors(typed), min_size=1, max_size=4))
    for name, datatype, shape, values in parts:
        tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
        if typed:
            tensor.contents.SetInParent()
            getattr(tensor.contents, FIELDS[datatype]).extend(values)
        else:
            message.raw_input_contents.append(raw_of(datatype, values))
    for name in draw(st.lists(NAMES, max_size=3)):
        message.outputs.add(name=name).parameters["binary_data"].bool_param = True
    message.parameters["timeout"].int64_param = draw(st.integers(0, 2**40))
    message.parameters["label"].string_param = draw(NAMES)
    return message, parts, typed


@pytest.mark.parametrize(("wish", "typed"), [(None, False), (True, False), (False, True)])
def test_an_answer_is_typed_only_where_that_is_asked_for(wish, typed):
    """Whatever the request's own form: Triton's clients read raw_output_contents alone."""
    message = pb.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype="FP32", shape=[1])
    tensor.contents.fp32_contents.append(1)
    if wish is not None:
        message.parameters["binary_data_output"].bool_param = wish
    assert pb_request.decode(message.SerializeToString())["typed"] is typed


@settings(max_examples=300, deadline=None)
@given(requests())
def test_a_request_reads_as_protobuf_reads_it(case):
    message, parts, _ = case
    got = pb_request.decode(message.SerializeToString())
    assert got["model_name"].decode() == message.model_name
    assert got["model_version"].decode() == message.model_version
    assert got["id"].decode() == message.id
    assert got["timeout_us"] == message.parameters["timeout"].int64_param
    assert got["label"].decode() == message.parameters["label"].string_param
    assert [name.decode() for name in got["outputs"]] == [o.name for o in message.outputs]
    assert got["typed"] is False
    assert got["inputs"] == [(name.encode(), datatype, shape, raw_of(datatype, values)) for name, datatype, shape, values in parts]


@settings(max_examples=300, deadline=None)
@given(NAMES, st.lists(tensors(True), min_size=1, max_size=4), st.booleans(), st.booleans())
def test_an_answer_reads_as_it_was_meant(request_id, parts, typed, stream):
    outputs = [(name.encode(), datatype, shape, raw_of(datatype, values)) for name, datatype, shape, values in parts]
    frame = pb_response.encode_response(b"m", b"7", request_id.encode(), outputs, typed=typed, stream=stream)
    flag, size = struct.unpack(">BI", frame[:5])
    assert (flag, size) == (0, len(frame) - 5)
    answer = pb.ModelStreamInferResponse.FromString(frame[5:]).infer_response if stream else pb.ModelInferResponse.FromString(frame[5:])
    assert (answer.model_name, answer.model_version, answer.id) == ("m", "7", request_id)
    for index, (name, datatype, shape, values) in enumerate(parts):
        tensor = answer.outputs[index]
        assert (tensor.name, tensor.datatype, list(tensor.shape)) == (name, datatype, shape)
        if typed:
            assert raw_of(datatype, list(getattr(tensor.contents, FIELDS[datatype]))) == raw_of(datatype, values)
        else:
            assert answer.raw_output_contents[index] == raw_of(datatype, values)


@settings(max_examples=500, deadline=None)
@given(requests(), st.data())
def test_no_mutation_of_a_request_crashes_or_reads_past_it(case, data):
    message = bytearray(case[0].SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    message = bytes(message[:data.draw(st.integers(0, len(message)))])
    with contextlib.suppress(ValueError):
        pb_request.decode(message)


@pytest.mark.parametrize("message", [
    b"\x0a\x05ab", b"\x0f", b"\x0b" * 50_000, b"\xff" * 40, b"\x2a\x03\x0a\x7fx", b"\x02\x00", b"\x0a\x01\xff", b"\x12\x01\xff", b"\x1a\x02\xc0\xaf",
    pb.ModelInferRequest(inputs=[{"name": "x", "datatype": "FP32", "parameters": {"shared_memory_region": {"string_param": "r"}}}]).SerializeToString(),
    pb.ModelInferRequest(outputs=[{"name": "y", "parameters": {"shared_memory_byte_size": {"int64_param": 4}}}]).SerializeToString(),
    pb.ModelInferRequest(inputs=[{"name": "x", "datatype": "FP31", "shape": [1]}]).SerializeToString(),
    pb.ModelInferRequest(inputs=[{"name": "x", "datatype": "FP32", "shape": [1] * 100_000}]).SerializeToString(),
    pb.ModelInferRequest(inputs=[{"name": "x", "datatype": "INT8", "shape": [1], "contents": {"int_contents": [300]}}]).SerializeToString(),
    pb.ModelInferRequest(inputs=[{"name": "x", "datatype": "FP32", "shape": [1], "contents": {"int_contents": [3]}}]).SerializeToString(),
    pb.ModelInferRequest(inputs=[{"name": "x", "datatype": "FP32", "shape": [1]}], raw_input_contents=[b"1234"] * 2).SerializeToString(),
    pb.ModelInferRequest(inputs=[{"name": "x", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [1]}}],
                         raw_input_contents=[b"1234"]).SerializeToString(),
])
def test_what_is_no_request_is_refused_with_a_text(message):
    with pytest.raises(ValueError, match="."):
        pb_request.decode(message)


def field(number, data):
    return bytes([number << 3 | 2, len(data)]) + data


def tensor(*contents):
    return field(5, field(1, b"x") + field(2, b"INT8") + field(3, b"\x02") + b"".join(field(5, part) for part in contents))


@pytest.mark.parametrize("message", [
    field(1, b"\xff"), field(2, b"\xed\xa0\x80"), field(3, b"\xc0\x80"), field(5, field(1, b"\xff") + field(2, b"INT8")), field(6, field(1, b"\x80")),
    field(5, field(2, b"\xff") + field(2, b"INT8")), field(4, field(1, b"\xf5")), field(4, field(2, field(3, b"\xff"))),
    b"\x00\x00", b"\x07", b"\x80\x80\x80\x80\x80\x01\x00", b"\xff\xff\xff\xff\x1f\x00", b"\x8a\x80\x80\x80\x80\x00\x00",
    field(4, field(1, b"timeout") + field(2, b"\x10")), tensor(b"\x13"),
])
def test_what_protobuf_refuses_is_refused(message):
    with pytest.raises(ValueError, match="Error parsing"):
        reference.decode(message)
    with pytest.raises(ValueError, match="."):
        pb_request.decode(message)


@pytest.mark.parametrize("message", [
    tensor(field(2, b"\x01\x02")), tensor(b"\x10\x01\x10\x02"), tensor(field(2, b"\x01") + b"\x10\x02"), tensor(b"\x0a\x00" + field(2, b"\x01\x02")),
    # other wire types and fields: passed over
    tensor(b"\x15abcd" + field(2, b"\x01\x02")), tensor(b"\x11abcdefgh"), tensor(field(9, b"x") + b"\x10\x01"),
    field(4, field(1, b"timeout") + field(2, b"\x10\x05")), field(4, field(2, b"\x10\x05") + field(1, b"timeout") + field(2, b"")),
    field(4, field(1, b"timeout") + field(2, b"\x08\x01")), field(4, field(1, b"timeout") + field(2, b"\x10\x05\x08\x01")),
    field(4, field(1, b"timeout") + field(2, b"\x10\x05\x21abcdefgh")), field(4, field(1, b"label") + field(2, field(3, b"l") + b"\x10\x05")),
])
def test_what_protobuf_takes_is_read_as_protobuf_reads_it(message):
    assert pb_request.decode(message) == reference.decode(message)


def test_contents_twice_are_refused_where_protobuf_would_merge_them():
    with pytest.raises(ValueError, match="contents twice"):
        pb_request.decode(tensor(field(2, b"\x01"), field(2, b"\x02")))


@pytest.mark.parametrize("typed", [False, True])
def test_a_request_has_up_to_1024_inputs(typed):
    def request(count):
        message = pb.ModelInferRequest(raw_input_contents=[] if typed else [b"%04d" % index for index in range(count)])
        for index in range(count):
            message.inputs.add(name=f"x{index}", datatype="BYTES" if typed else "INT32", shape=[1])
            if typed:
                message.inputs[index].contents.bytes_contents.append(b"%d" % index)
        return message.SerializeToString()

    got = pb_request.decode(request(1024))["inputs"]
    assert got == [(b"x%d" % index, *(("BYTES", [1], raw_of("BYTES", [b"%d" % index])) if typed else ("INT32", [1], b"%04d" % index))) for index in range(1024)]
    with pytest.raises(ValueError, match="more than 1024 inputs"):
        pb_request.decode(request(1025))


@pytest.mark.parametrize("typed", [False, True])
def test_an_answer_over_the_limit_is_refused_with_its_size(typed):
    outputs = [(b"y", "FP32", [1000], bytes(4000))]
    assert pb_response.encode_response(b"m", b"7", b"", outputs, typed=typed, max_bytes=4200)
    with pytest.raises(ValueError, match=r"limit of 4000 bytes \(max_response_mib\): its outputs hold 4000 bytes"):
        pb_response.encode_response(b"m", b"7", b"", outputs, typed=typed, max_bytes=4000)
