"""The chain of hashes: where a copy was changed, cut or made anew is found."""

import hashlib
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill import chain
from batchmill.chain import START, Event
from batchmill.ledger import MemoryLedger


def test_a_line_of_an_export_is_the_canonical_form_with_its_hash_last():
    entry = chain.linked(chain.entry_of(Event("a", "mö", before={"b": 1, "a": [None, 1.5]}), 1_700_000_000_123), START)
    form = ('{"action":"a","actor":"registry","after":null,"at":"2023-11-14T22:13:20.123Z","before":{"a":[null,1.5],"b":1},"files":{},"key":false,'
            '"model":"m\\u00f6","outcome":"ok","reason":"","seq":1,"version":""}')
    digest = hashlib.sha256(("0" * 64 + form).encode()).hexdigest()
    assert chain.line_of(entry) == f'{form[:-1]},"hash":"{digest}"}}\n'


def exported(entries):
    led = MemoryLedger()
    heads = led.append([chain.entry_of(Event("a", reason=text), 0) for text in entries])
    return [chain.line_of(entry).encode() for entry in led.read(0, 1000)] + [chain.last_line(led.head()).encode()], heads


def without(lines, at):
    return lines[:at] + lines[at + 1 :]


@pytest.mark.parametrize(("change", "broken", "problem"), [
    (lambda lines: lines, None, ""),
    (lambda lines: [line.replace(b"\n", b"\r\n") for line in lines], None, ""),
    (lambda lines: [lines[0].replace(b'{"action":"a"', b'{"action":"b","action":"a"'), *lines[1:]], 1, "canonical"),
    (lambda lines: [lines[0].replace(b'"seq":1', b'"seq": 1'), *lines[1:]], 1, "canonical"),
    (lambda lines: [lines[0], lines[1].replace(b"two", b"owt"), *lines[2:]], 2, "its hash"),
    (lambda lines: [re.sub(rb'"key":false', b'"key":true', lines[0]), *lines[1:]], 1, "its hash"),
    (lambda lines: without(lines, 1), 2, "entry 3 is in its place"),
    (lambda lines: without(lines, 0), 1, "entry 2 is in its place"),
    (lambda lines: without(lines, 3), 4, "no head at its end"),
    (lambda lines: without(lines, 2), 3, "the head of the file"),
    (lambda lines: [lines[1], lines[0], *lines[2:]], 1, "entry 2 is in its place"),
    (lambda lines: [lines[0], *lines], 2, "entry 1 is in its place"),
    (lambda lines: [*lines, lines[0]], 4, "cannot be read"),
    (lambda lines: [lines[0][:20], *lines[1:]], 1, "cannot be read"),
    (lambda lines: [b"[1]\n", *lines[1:]], 1, "cannot be read"),
    (lambda lines: [b"[" * 100_000, *lines[1:]], 1, "cannot be read"),
    (lambda lines: [lines[0].replace(b'"reason":"one"', b'"reason":NaN'), *lines[1:]], 1, "cannot be read"),
    (lambda lines: [lines[0].replace(b'"seq":1', b'"seq":"1"'), *lines[1:]], 1, "in its place"),
    (lambda lines: [], 1, "no head at its end"),
])
def test_a_copy_tells_where_it_was_changed(change, broken, problem):
    lines, _ = exported(["one", "two", "three"])
    verdict = chain.verified_export(change(lines))
    assert verdict.broken == broken
    assert problem in verdict.problem
    assert verdict.head.seq == (3 if broken is None else broken - 1)


def test_who_has_noted_a_head_finds_that_a_trail_was_made_anew_or_cut():
    lines, heads = exported(["one", "two", "three"])
    assert chain.verified_export(lines, *heads).broken is None
    others, _ = exported(["one", "two", "THREE"])
    assert chain.verified_export(others).broken is None
    assert chain.verified_export(others, heads[2]).broken == 3
    shorter, _ = exported(["one", "two"])
    assert chain.verified_export(shorter).broken is None
    assert chain.verified_export(shorter, heads[2]).broken == 3


@given(st.lists(st.text(), min_size=1, max_size=5), st.data())
def test_no_byte_of_an_export_can_be_changed_unseen(texts, data):
    lines, heads = exported(texts)
    whole = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(whole) - 1))
    was, whole[at] = whole[at], data.draw(st.integers(0, 255))
    verdict = chain.verified_export(io.BytesIO(bytes(whole)).readlines(), heads[-1])
    assert (verdict.broken is None) == (was == whole[at])
