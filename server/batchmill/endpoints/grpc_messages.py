"""What REST tells and takes, as messages of the admin service and back: by the names of fields, so that no key is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableSequence
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value

from batchmill.errors import InvalidRequest
from batchmill.proto import admin_pb2 as pb

Filled = TypeVar("Filled", bound=Message)
GATES = (pb.ErrorRateGate, pb.LatencyRatioGate, pb.AgreementGate, pb.QualityGate, pb.ShadowErrorsGate)


def filled(message: Filled, told: Mapping[str, Any]) -> Filled:
    """The message, with what our own dictionary tells. KeyError: the protocol has no such field, or no such word."""
    for name, value in told.items():
        field = message.DESCRIPTOR.fields_by_name[name]
        if value is None:
            put_null(message, name)
        elif field.message_type is not None:
            put(getattr(message, name), value)
        elif field.enum_type is not None:
            setattr(message, name, field.enum_type.values_by_name[value.upper()].number)
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return message


def put(target: Any, value: Any) -> None:
    """target: a message, or messages in a row or by key."""
    if isinstance(target, Value):
        json_format.ParseDict(value, target)
    elif isinstance(target, pb.Interval):
        target.SetInParent()
        filled(target, dict(zip(("low", "high"), value, strict=True)))
    elif isinstance(target, Message):
        target.SetInParent()
        filled(target, value)
    elif isinstance(target, MutableSequence):
        for one in value:
            filled(target.add(), one)  # type: ignore[attr-defined]
    else:
        for key, one in value.items():
            if isinstance(one, str):
                target[key] = one
            else:
                filled(target[key], one)


def put_null(message: Message, name: str) -> None:
    """A gate that is not asked, a limit that there is none of; else a field that is not set."""
    target = getattr(message, name)
    if isinstance(target, GATES):
        target.disabled = True
    elif isinstance(message, GATES) and isinstance(target, Message):
        target.SetInParent()
    elif isinstance(message, GATES):
        setattr(message, name, math.inf)


def given_of(message: Message, place: str = "") -> dict[str, Any]:
    """What a caller has set, as REST takes it. place: of the message, for errors. InvalidRequest: it contradicts itself."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        where = f"{place}{field.name}"
        if isinstance(value, MutableSequence):
            found[field.name] = [given_of(one, f"{where}.{index}.") for index, one in enumerate(value)]
        elif field.enum_type is not None:
            word = field.enum_type.values_by_number.get(value)
            found[field.name] = word.name.lower() if word else value
        else:
            found[field.name] = value_of(value, where)
    return found


def value_of(value: Any, place: str) -> Any:
    if isinstance(value, pb.Interval):
        ends = [getattr(value, name) if value.HasField(name) else None for name in ("low", "high")]
        return None if ends == [None, None] else ends
    if isinstance(value, GATES) and value.disabled:
        if others := [field.name for field, _ in value.ListFields() if field.name != "disabled"]:
            raise InvalidRequest(f"{place}.{others[0]}: given, and the gate is disabled")
        return None
    if isinstance(value, Message):
        return given_of(value, f"{place}.")
    return None if value == math.inf else value
