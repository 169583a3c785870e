"""Padding by numpy: what a run of requests is fed, and what each gets of its outputs."""

from __future__ import annotations

import numpy as np


def bucket_of(length, edges):
    """The longest length that shares runs with this one."""
    if length == 0:
        return 0
    if not edges:
        bucket = 1
        while bucket < length:
            bucket *= 2
        return bucket
    return next((edge for edge in edges if edge >= length), length)


def run_length(lengths, edges):
    return bucket_of(lengths[0], edges) if edges else max(lengths)


def padded(array, axis, length, value):
    shape = list(array.shape)
    shape[axis] = length
    found = np.full(shape, value, array.dtype)
    found[cut_to(array.shape[axis], axis)] = array
    return found


def cut_to(length, axis):
    """An index: the first of an axis."""
    return (*[slice(None)] * axis, slice(0, length))


def fed(requests, axes, values, length):
    """The inputs of a run. requests: arrays by input; axes: 0: that input is not padded."""
    return [np.concatenate([padded(one[at], axis, length, values[at]) if axis else one[at] for one in requests]) for at, axis in enumerate(axes)]


def answers(outputs, rows, lengths, axes):
    """Of each request, the arrays by output. axes: 0: that output is not cut."""
    found, first = [], 0
    for count, length in zip(rows, lengths, strict=True):
        parts = [whole[first : first + count] for whole in outputs]
        found.append([part[cut_to(length, axis)] if axis else part for part, axis in zip(parts, axes, strict=True)])
        first += count
    return found
