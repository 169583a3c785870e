"""What the HTTP/1.1 reader takes, and what it refuses, as its slow twin does."""

import os
import random

import pytest

from batchmill.core.http1_parser import parse_head
from batchmill.core.loopback import Loopback
from reference import http1 as reference

CHUNKED = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: 1\r\n\r\n"
COLD = b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-A: b\r\n\r\n"
ROUNDS = int(os.environ.get("BATCHMILL_FUZZ_ROUNDS", "8000"))
SEED = int(os.environ.get("BATCHMILL_FUZZ_SEED") or "7")


def head(*lines, start=b"POST /v2/models/m/infer HTTP/1.1"):
    return b"\r\n".join([start, *lines, b"", b""])


HOST = b"Host: x"
REFUSED = [
    head(HOST, start=b"POST /v2 HTTP/9.9"), head(HOST, start=b"POST /v2 HTTP/2.0"), head(HOST, start=b"POST /v2"), head(HOST, start=b"POST  /v2 HTTP/1.1"),
    head(HOST, start=b"POST /v2 HTTP/1.1 "), head(HOST, start=b" POST /v2 HTTP/1.1"), head(HOST, start=b"PO\x00ST /v2 HTTP/1.1"),
    head(HOST, start=b"GET v2 HTTP/1.1"), head(HOST, start=b"GET http://x/v2 HTTP/1.1"), head(HOST, start=b"OPTIONS * HTTP/1.1"),
    head(HOST, start=b"GET /a\x80 HTTP/1.1"), head(), head(HOST, HOST), head(HOST, b"A"), head(HOST, b"A : b"), head(HOST, b" A: b"),
    head(HOST, b"A: b", b" folded"), head(HOST, b"A: b\x00"), head(HOST, b"A: b\x01"), head(HOST, b"A\x80: b"), head(HOST, b": b"),
    head(HOST, b"Content-Length: 1", b"Content-Length: 2"), head(HOST, b"Content-Length: 1", b"Content-Length: 1"),
    head(HOST, b"Content-Length: 1, 1"), head(HOST, b"Content-Length: +1"), head(HOST, b"Content-Length: -1"), head(HOST, b"Content-Length: 0x1"),
    head(HOST, b"Content-Length: "), head(HOST, b"Content-Length: " + b"9" * 30), head(HOST, b"Content-Length: 1", b"Transfer-Encoding: chunked"),
    head(HOST, b"Transfer-Encoding: gzip"), head(HOST, b"Transfer-Encoding: xchunked"), head(HOST, b"Transfer-Encoding: gzip, chunked"),
    head(HOST, b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), head(HOST, b"Transfer-Encoding: identity"),
    head(b"Transfer-Encoding: chunked", start=b"POST /v2 HTTP/1.0"), head(HOST, b"Expect: 200-maybe"),
    head(HOST, b"Inference-Header-Content-Length: -1", b"Content-Length: 0"), head(HOST, b"Inference-Header-Content-Length: 0x3", b"Content-Length: 0"),
    head(HOST, b"Content-Encoding: br", b"Content-Length: 0"), head(HOST, b"Content-Encoding: gzip", b"Content-Encoding: identity"),
    b"GET /v2 HTTP/1.1\nHost: x\n\n", b"GET /v2 HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00" * 10,
    *(head(HOST, b"Transfer-Encoding: chunked") + body for body in (
        b"g\r\n", b"-1\r\n", b"\r\n", b"0x5\r\nhello\r\n", b"1\r\nxy\r\n", b"ffffffffffffffffff\r\n", b"1\nx\n", b"1" + b" " * 300 + b"\r\n", b"5;\x00\r\n", b"1 \r\nx\r\n", b"1 junk\r\nx\r\n", b"1;\x7f\r\n", b"\xef\xbc\x91\r\nx\r\n", b"0\r\nA : b\r\n\r\n", b"0\r\n b\r\n\r\n",
        b"0" * 16 + b"\r\n\r\n", b"0\r\nA: " + b"b" * 33_000)),
    head(HOST, *[b"A: b"] * 20_000), head(HOST, b"A: " + b"b" * 130_000), head(HOST, start=b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1"),
]


@pytest.mark.parametrize("stream", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(stream):
    loop = Loopback(False)
    assert not loop.feed(stream)
    assert loop.sent()[9:12] in (b"400", b"413", b"415", b"417", b"431", b"501", b"505")
    assert loop.infers() == []
    assert loop.finished()
    assert loop.requests_alive() == 0


@pytest.mark.parametrize("stream", [stream for stream in REFUSED if len(stream) < 2000])
def test_bytes_one_by_one_are_refused_like_the_whole(stream):
    loop = Loopback(False)
    assert not all(loop.feed(stream[i:i + 1]) for i in range(len(stream)))
    assert loop.sent()[9:10] in (b"4", b"5")
    assert loop.infers() == loop.colds() == []
    assert loop.finished()


IMPOSSIBLE = [b"\x16", b"G(", b"GET  ", b"GET x", b"GET /\x7f", b"GET / X", b"GET / HTTP/2", b"GET / HTTP/1.2", b"GET / HTTP/1.1 ", b"GET / HTTP/1.1\rx",
              b"\r\r"]
IMPOSSIBLE += [b"GET / HTTP/1.1\r\n" + line for line in (b" ", b"A ", b"A\r", b":", b"A: \x00", b"A: b\r ", b"\r\r")]
CHUNKS = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
IMPOSSIBLE += [CHUNKS + line for line in (b"g", b"-", b"\r", b"1 ", b"1;\x01", b"1\rx", b"1\r\nxy", b"1\r\nx\ry", b"0\r\n ", b"0" * 16)]


@pytest.mark.parametrize("stream", IMPOSSIBLE)
def test_the_first_impossible_byte_is_enough(stream):
    loop = Loopback(False)
    assert loop.feed(stream[:-1])
    assert not loop.feed(stream[-1:])
    assert loop.finished() is False
    assert loop.sent()[9:10] in (b"4", b"5")
    assert loop.finished()


def padded(size):
    return head(HOST, b"A: " + b"b" * (size - len(head(HOST, b"A: ", start=b"GET /v2 HTTP/1.1"))), start=b"GET /v2 HTTP/1.1")


@pytest.mark.parametrize(("stream", "status"), [
    (padded(32 << 10), b""), (padded((32 << 10) + 1), b"431"),
    (head(HOST, *[b"A: b"] * 99, start=b"GET /v2 HTTP/1.1"), b""), (head(HOST, *[b"A: b"] * 100, start=b"GET /v2 HTTP/1.1"), b"431"),
], ids=["32 KiB", "32 KiB + 1", "100 lines", "101 lines"])
def test_a_head_is_refused_just_beyond_the_limit(stream, status):
    loop = Loopback(False)
    assert loop.feed(stream) is (status == b"")
    assert (loop.sent()[9:12], len(loop.colds())) == (status, 0 if status else 1)


def test_a_head_that_drips_is_looked_at_once():
    loop = Loopback(False, max_header_bytes=4 << 20)
    loop.feed(b"GET /v2 HTTP/1.1\r\nHost: x\r\nA: ")
    for _ in range(400_000):     # looking at it again each time would cost 80 GB of reading
        loop.feed(b"b")
    assert loop.feed(b"\r\n\r\n")
    assert len(loop.colds()[0][2][1][1]) == 400_000


@pytest.mark.parametrize("name", [b"Content-Length", b"CONTENT-LENGTH"])
def test_a_head_says_what_it_holds(name):
    assert parse_head(b"PUT /a?b HTTP/1.1\r\nHost: x\r\n%s:\t 7 \r\n\r\n" % name) == (
        0, b"PUT", b"/a?b", [(b"host", b"x"), (b"content-length", b"7")], 7, False)


SEEDS = [COLD.replace(b"/v2", b"/a"), b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
         CHUNKED.replace(b"/v2/models/m/infer", b"/c"), b"GET /d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
         b"PUT /e HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n01\r\n-\r\n00\r\n\r\n"]
LINES = [b"Host: y\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n",
         b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"A:b\r\n", b"A:\tb \t\r\n", b" b\r\n", b"\r\n", b"5\r\n", b"0\r\n"]


def mutated(rng):
    """Two valid requests with up to three changes: of a byte, or of a line."""
    stream = bytearray(b"".join(rng.choices(SEEDS, k=2)))
    for _ in range(rng.randrange(4)):
        at, kind = rng.randrange(len(stream)), rng.randrange(5)
        if kind == 0:
            stream[at] = rng.choice(b"\r\n :;,\t\x000159abXx/+-\xff")
        elif kind == 1:
            del stream[at]
        elif kind == 2:
            stream.insert(at, rng.choice(b"\r\n :;,\t\x000159abXx"))
        elif kind == 3:
            at = stream.find(b"\n", at) + 1
            stream[at:at] = rng.choice(LINES)
        else:
            at = stream.find(b"\n", at) + 1
            del stream[at:stream.find(b"\n", at) + 1]
    return bytes(stream)


def ours_of(stream, cut=0):
    loop = Loopback(False)
    more = loop.feed(stream[:cut]) if cut else True
    more = more and loop.feed(stream[cut:])
    answers = loop.colds()
    assert loop.infers() == []
    return [call[:4] for call in answers], more, loop


def test_the_slow_twin_reads_the_same_however_the_bytes_are_cut():
    rng = random.Random(SEED)
    for round_ in range(ROUNDS):
        stream = mutated(rng)
        ours, more, loop = ours_of(stream, rng.randrange(len(stream)))
        wanted, refused = reference.read(stream)
        assert ours == [(r.method, r.target, r.headers, r.body) for r in wanted], (SEED, round_, stream)
        said = b"" if more else loop_error(loop, len(ours))
        if refused:
            assert said, (SEED, round_, stream)
        elif said:      # at an impossible byte of an unfinished line: no end of that line can save it
            assert reference.read(stream + b"\r\n")[1], (SEED, round_, stream)


def loop_error(loop, calls):
    """Status of the refusal that comes after the answers of so many calls; empty when there is none."""
    for number in range(calls):
        loop.cold_answer(number, 200, [(b"content-length", b"0")], [])
    return loop.sent().split(b"HTTP/1.1 ")[-1][:3].replace(b"200", b"").replace(b"100", b"")
