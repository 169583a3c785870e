"""Feedback tokens with struct and base64, and SipHash-2-4 as its paper writes it down."""

from __future__ import annotations

import base64
import math
import struct

import numpy as np

MASK = (1 << 64) - 1
FIELDS = struct.Struct("<QIIIQ")  # version, generation, seconds, prediction, nonce


def rotated(value, bits):
    return (value << bits | value >> 64 - bits) & MASK


def sip_round(v0, v1, v2, v3):
    v0 = (v0 + v1) & MASK
    v1 = rotated(v1, 13) ^ v0
    v0 = rotated(v0, 32)
    v2 = (v2 + v3) & MASK
    v3 = rotated(v3, 16) ^ v2
    v0 = (v0 + v3) & MASK
    v3 = rotated(v3, 21) ^ v0
    v2 = (v2 + v1) & MASK
    v1 = rotated(v1, 17) ^ v2
    v2 = rotated(v2, 32)
    return v0, v1, v2, v3


def sip_hash(key, data):
    first, second = struct.unpack("<QQ", key)
    state = first ^ 0x736F6D6570736575, second ^ 0x646F72616E646F6D, first ^ 0x6C7967656E657261, second ^ 0x7465646279746573
    padded = data + bytes(-(len(data) + 1) % 8) + bytes([len(data) % 256])
    for (word,) in struct.iter_unpack("<Q", padded):
        v0, v1, v2, v3 = state
        v0, v1, v2, v3 = sip_round(*sip_round(v0, v1, v2, v3 ^ word))
        state = v0 ^ word, v1, v2, v3
    v0, v1, v2, v3 = state
    state = v0, v1, v2 ^ 0xFF, v3
    for _ in range(4):
        state = sip_round(*state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def sealed(key, model, version, generation, made_s, prediction, nonce):
    fields = FIELDS.pack(version, generation, made_s, 0xFFFFFFFF if prediction is None else prediction, nonce)
    seal = sip_hash(key, fields + struct.pack("<Q", sip_hash(key, model.encode())))
    return base64.urlsafe_b64encode(fields + struct.pack("<Q", seal)).decode()


def predicted(array):
    """The class that an output of one row says."""
    if array.dtype.kind in "iu" or array.dtype == bool:
        return int(array.reshape(-1)[0]) if array.size == 1 and 0 <= array.reshape(-1)[0] < 0xFFFFFFFF else None
    if array.ndim == 0 or array.size < 2 or array.size != array.shape[-1]:
        return None
    values = [float(one) for one in np.asarray(array, np.float64).reshape(-1)]
    numbers = [one for one in values if not math.isnan(one)]
    return values.index(max(numbers)) if numbers else None
