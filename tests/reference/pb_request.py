"""The slow, obvious twin of the protobuf parser: protobuf itself, and then the rules of the v2 protocol.

It reads maps as their entries in order. Of the parameters of inputs the server knows those of shared memory alone, and refuses them. Contents that
come twice are refused, where protobuf would merge them.
"""

from __future__ import annotations

import struct
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from reference import proto

FIXED64, FIXED32, MESSAGE, REPEATED = 6, 7, 11, 3
GROUP = 3  # a wire type
FIELDS = {"BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
          "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
          "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents"}
CODES = {"BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
         "FP32": "I", "FP64": "Q"}
INPUTS_MAX, OUTPUTS_MAX, RANK_MAX = 1024, 1024, 16


def loosen(message: Any) -> None:
    """What Python's messages do not show is made to be seen, in this message and in those within."""
    message.options.ClearField("map_entry")
    for field in message.field:
        if field.name == "contents":
            field.label = REPEATED
        elif field.name in ("fp32_contents", "fp64_contents"):  # Python makes quiet NaNs of signalling ones
            field.type = FIXED32 if field.name == "fp32_contents" else FIXED64
    for inner in message.nested_type:
        loosen(inner)


def load() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in proto.files():
        for message in file.message_type:
            loosen(message)
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelInferRequest"))


Request = load()


def require(fine: bool, text: str) -> None:
    """Raises ValueError unless fine."""
    if not fine:
        raise ValueError(text)


def has_group(message: Any) -> bool:
    """Whether a group, which proto3 does not have, is anywhere among the fields."""
    if any(field.wire_type == GROUP for field in UnknownFieldSet(message)):
        return True
    parts = [part for field, value in message.ListFields() if field.type == MESSAGE
             for part in ([value] if hasattr(value, "ListFields") else value)]
    return any(map(has_group, parts))


def parameter(entries: Any, key: str, kinds: tuple[str, ...]) -> Any:
    """The last value of a parameter that is of such a kind, or None."""
    found = None
    for entry in entries:
        kind = entry.value.WhichOneof("parameter_choice")
        if entry.key == key and kind in kinds:
            found = getattr(entry.value, kind)
    return found


def contents(tensor: Any, datatype: str) -> bytes:
    """Typed contents in raw form."""
    require(datatype in FIELDS, "travels only raw")
    wanted = FIELDS[datatype]
    given = tensor.contents[0] if tensor.contents else tensor.contents.add()
    require(all(field.name == wanted for field, _ in given.ListFields()), "field of another datatype")
    values = list(getattr(given, wanted))
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    try:
        return struct.pack(f"<{len(values)}{CODES[datatype]}", *values)
    except struct.error as error:
        raise ValueError("out of range") from error


def decode(message: bytes) -> dict[str, Any]:
    """What pb_request.decode() gives; ValueError where it must refuse."""
    try:
        request = Request.FromString(message)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    require(not has_group(request), "group")
    require(len(request.inputs) <= INPUTS_MAX and len(request.outputs) <= OUTPUTS_MAX, "too many tensors")
    require(not any(entry.key.startswith("shared_memory_") for tensor in [*request.inputs, *request.outputs] for entry in tensor.parameters), "not offered")
    raws = request.raw_input_contents
    typed = any(tensor.contents for tensor in request.inputs)
    require(all(len(tensor.contents) <= 1 for tensor in request.inputs), "contents twice")
    require(not raws or (not typed and len(raws) == len(request.inputs)), "raw")
    inputs = []
    for index, tensor in enumerate(request.inputs):
        datatype = tensor.datatype
        require(datatype in FIELDS or datatype in ("FP16", "BF16"), "datatype")
        require(len(tensor.shape) <= RANK_MAX, "rank")
        data = raws[index] if raws else contents(tensor, datatype)
        inputs.append((tensor.name.encode(), datatype, list(tensor.shape), data))
    whole = ("int64_param", "uint64_param")
    timeout, priority = parameter(request.parameters, "timeout", whole) or 0, parameter(request.parameters, "priority", whole) or 0
    return {
        "model_name": request.model_name.encode(), "model_version": request.model_version.encode(), "id": request.id.encode(),
        "inputs": inputs, "outputs": [output.name.encode() for output in request.outputs],
        "typed": parameter(request.parameters, "binary_data_output", ("bool_param",)) is False,
        "timeout_us": timeout if 0 < timeout < 2**63 else 0, "priority": priority % 2**64,
        "label": (parameter(request.parameters, "label", ("string_param",)) or "").encode(),
    }
