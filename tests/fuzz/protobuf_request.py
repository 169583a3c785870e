"""ModelInferRequest: read as protobuf reads it, and written back."""

import contextlib

import numpy as np

from batchmill.core import pb_request, pb_response
from reference import pb_request as reference
from reference import proto

pb = proto.Messages()
WORDS = (*(name.encode() for name in (*reference.FIELDS, "FP16", "BF16")), b"timeout", b"priority", b"label", b"route_key", b"classification",
         b"shared_memory_region", b"binary_data_output",
         b"\x08", b"\x0a", b"\x10", b"\x12", b"\x18", b"\x1a", b"\x21", b"\x22", b"\x28", b"\x2a", b"\x32", b"\x3a", b"\x42", b"\x35",
         b"\xff" * 9 + b"\x01", b"\x80" * 9 + b"\x00", b"\x80\x80\x80\x80\x08", b"\x0b\x0c", b"\x0a\x00", b"\x3a\x00", b"\x2a\x00")


def seeds():
    """One request for every datatype, raw and typed; parameters of every kind; what protobuf merges or takes twice."""
    for datatype in (*reference.FIELDS, "FP16", "BF16"):
        message = pb.ModelInferRequest(model_name="m", model_version="3", id="i", inputs=[{"name": "x", "datatype": datatype, "shape": [2]}])
        if datatype in reference.FIELDS:
            typed = pb.ModelInferRequest.FromString(message.SerializeToString())
            values = [b"a", b""] if datatype == "BYTES" else [0, 1]
            getattr(typed.inputs[0].contents, reference.FIELDS[datatype]).extend(values)
            yield typed.SerializeToString()
        message.raw_input_contents.append(b"\x00\x3c" * 2)
        yield message.SerializeToString()
    message = pb.ModelInferRequest(outputs=[{"name": "y"}, {"name": "z"}])
    message.outputs[0].parameters["classification"].int64_param = 3
    for key, kind, value in (("timeout", "int64_param", 1000), ("priority", "uint64_param", 2**63), ("label", "string_param", "stable"),
                             ("route_key", "string_param", "k"), ("binary_data_output", "bool_param", False), ("d", "double_param", 1.5)):
        setattr(message.parameters[key], kind, value)
        yield message.SerializeToString()
    wide = pb.ModelInferRequest(inputs=[{"name": "x", "datatype": "INT32", "shape": [2**62, -1, 0], "contents": {"int_contents": [-1, 2**31 - 1]}},
                                        {"name": "y", "datatype": "UINT64", "shape": [1], "contents": {"uint64_contents": [2**64 - 1]}}])
    yield wide.SerializeToString()
    yield wide.SerializeToString() + message.SerializeToString() * 2
    unpacked = b"\x0a\x01x\x12\x04INT8\x18\x01\x18\x02\x2a\x04\x10\x01\x10\x02"
    yield b"\x2a" + bytes([len(unpacked)]) + unpacked


def outcome(read, message):
    """What it gives, or that it refuses."""
    try:
        return read(message)
    except ValueError:
        return "refused"


def fits(datatype, shape, data):
    """Whether a tensor is whole, so that it may be an output."""
    if datatype == "BYTES":
        return False
    width = 2 if datatype in ("FP16", "BF16") else np.dtype(reference.CODES[datatype]).itemsize
    return all(axis >= 0 for axis in shape) and len(data) % width == 0


def check(data):
    """One request."""
    got = outcome(pb_request.decode, data)
    assert got == outcome(reference.decode, data), "not what protobuf reads"
    if got == "refused":
        return
    for typed in (False, True):
        outputs = [tensor for tensor in got["inputs"] if fits(*tensor[1:])]
        with contextlib.suppress(ValueError):
            check_answer(outputs, pb_response.encode_response(got["model_name"], b"7", got["id"], outputs, typed=typed), typed)


def check_answer(outputs, frame, typed):
    read = pb.ModelInferResponse.FromString(frame[5:])
    assert [(o.name.encode(), o.datatype, list(o.shape)) for o in read.outputs] == [output[:3] for output in outputs]
    if read.raw_output_contents or not typed:
        assert list(read.raw_output_contents) == [output[3] for output in outputs]
