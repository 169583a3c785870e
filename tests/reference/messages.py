"""What a message of gRPC fails to say of what REST tells: field by field, by the rules that admin.proto states."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value

GATES = {"ErrorRateGate", "LatencyRatioGate", "AgreementGate", "QualityGate", "ShadowErrorsGate"}
NAMES = {"raw": "bytes"}  # of a field, where REST's key is another


def lost(told: Mapping[str, Any], message: Message, place: str = "") -> list[str]:
    """Paths of the keys that the message has not, or says another thing of; and of the fields that are set though nothing was told."""
    found = [path for key, value in told.items() for path in lost_of(message, key, value, f"{place}{key}")]
    return found + [f"{place}{field.name}" for field, _ in message.ListFields() if NAMES.get(field.name, field.name) not in told]


def lost_of(message: Message, key: str, value: Any, place: str) -> Iterator[str]:
    name = "raw" if key == "bytes" else key
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        yield place
    elif value is None:
        yield from [] if says_null(message, name) else [place]
    elif isinstance(value, Mapping) and isinstance(getattr(message, name), Message) and not isinstance(getattr(message, name), Value):
        yield from [] if message.HasField(name) else [place]
        yield from lost(value, getattr(message, name), f"{place}.")
    else:
        yield from lost_in(getattr(message, name), field, key, value, place)


def lost_in(said: Any, field: Any, key: str, value: Any, place: str) -> Iterator[str]:
    """Of what is no message alone."""
    if isinstance(said, Value):
        yield from [] if json_format.MessageToDict(said) == value else [place]
    elif isinstance(said, Message):  # an interval
        ends = [getattr(said, end) if said.HasField(end) else None for end in ("low", "high")]
        yield from [] if ends == [*value] else [place]
    elif isinstance(value, Mapping):
        yield from [] if {*said} == {*value} else [place]
        for one in {*said} & {*value}:
            if isinstance(value[one], Mapping):
                yield from lost(value[one], said[one], f"{place}.{one}.")
            elif said[one] != value[one]:
                yield f"{place}.{one}"
    elif isinstance(value, list | tuple):
        yield from [] if len(said) == len(value) else [place]
        for index, (one, other) in enumerate(zip(said, value, strict=False)):
            if isinstance(one, Message):
                yield from lost(other, one, f"{place}.{index}.")
            elif one != other:
                yield f"{place}.{index}"
    elif field.enum_type is not None:
        yield from [] if field.enum_type.values_by_number[said].name.lower() == value else [place]
    elif key == "bytes":
        yield from [] if said == (base64.b64decode(value) if isinstance(value, str) else value) else [place]
    else:
        yield from [] if said == value else [place]


def says_null(message: Message, name: str) -> bool:
    value = getattr(message, name)
    if isinstance(value, Message) and value.DESCRIPTOR.name in GATES:
        return message.HasField(name) and [field.name for field, _ in value.ListFields()] == ["disabled"]
    if message.DESCRIPTOR.name in GATES:
        return message.HasField(name) and (value.ByteSize() == 0 if isinstance(value, Message) else value == math.inf)
    return not message.HasField(name)
