"""The HTTP/1.1 reader against llhttp: what the two frame differently is refused, and what ours takes llhttp takes, but for what is listed."""

import os
import random
from itertools import pairwise

import pytest
from fuzz.drive import requests_of
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import llhttp

ROUNDS = int(os.environ.get("BATCHMILL_FUZZ_ROUNDS", "12000"))
SEED = int(os.environ.get("BATCHMILL_FUZZ_SEED") or "7")
GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
SIZED = b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello"
CHUNKED = b"PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b;c\r\nhel\r\n02\r\nlo\r\n00\r\nTrailer: 1\r\n\r\n"
OLD = b"GET /d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
LAST = b"GET /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LINES = [
    b"Host: y\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Content-Length: 5, 5\r\n", b"Content-Length:\r\n",
    b"Content-Length: +5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n",
    b"Transfer-Encoding: chunked\t\r\n", b"Transfer-Encoding: \tchunked\r\n", b"Transfer-Encoding : chunked\r\n", b"Transfer_Encoding: chunked\r\n",
    b"Connection: close\r\n", b"Connection: keep-alive, close\r\n", b"Connection: ,close\r\n", b"Connection: closed\r\n", b"Connection: upgrade\r\n",
    b"Upgrade: h2c\r\n", b"Proxy-Connection: close\r\n", b"Expect: 100-continue\r\n", b"A:b\r\n", b"A:\tb \t\r\n", b" b\r\n", b"\r\n", b"5\r\n",
    b"0\r\n",
    b"1;a=\"\r\n", b"1;a=\"b\\\"\";c\r\n", b"1; a\r\n", b"A: b\rc\r\n", b"A: b\n", b"GET /f HTTP/1.1\r\n",
]
WORDS = [
    b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b",", b";", b'"', b"=", b"\\", b"\0", b"\x0b", b"\x7f", b"\x80", b"0x", b"-", b"+", b"_",
    b"00000000000000000",
    b"chunked", b"close", b"keep-alive", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"GET", b"CONNECT", b"OPTIONS", b"PRI", b"#", b"?", b"http://x",
    b"//", b"%",
]


def mutated(rng):
    """One to three valid requests with up to four changes: of a byte, a word, a line, or a value's beginning."""
    stream = bytearray(b"".join(rng.choices((GET, SIZED, CHUNKED, OLD, LAST), k=rng.randrange(1, 4))))
    for _ in range(rng.randrange(5)):
        at = rng.randrange(len(stream) + 1)
        line = stream.find(b"\n", at) + 1
        match rng.randrange(6):
            case 0 if at < len(stream):
                stream[at] = rng.randrange(256)
            case 1:
                del stream[at:at + rng.randrange(1, 5)]
            case 2:
                stream[at:at] = rng.choice(WORDS)
            case 3:
                stream[line:line] = rng.choice(LINES)
            case 4:
                del stream[line:stream.find(b"\n", line) + 1]
            case _:
                at = stream.find(b": ", at) + 2
                stream[at:at] = rng.choice(WORDS)
    return bytes(stream)


def pieces(stream, cuts):
    bounds = [0, *sorted(cuts), len(stream)]
    return [stream[low:high] for low, high in pairwise(bounds) if low < high]


def test_mutated_streams_are_framed_as_llhttp_frames_them_or_refused():
    rng, both = random.Random(SEED), 0
    for round_ in range(ROUNDS):
        stream = mutated(rng)
        cuts = [rng.randrange(len(stream) + 1) for _ in range(rng.randrange(4))] if stream else []
        ours, refused = requests_of(pieces(stream, cuts))
        try:
            llhttp.compare(stream, ours, refused)
        except AssertionError as error:
            pytest.fail(f"seed {SEED}, round {round_}, {stream!r}: {error}")
        both += len(ours)
    assert both > ROUNDS / 2    # or nothing was compared


TOKENS = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=9).map(str.encode)
VALUES = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]) | st.just("\t"), max_size=12).map(lambda text: text.encode("latin-1"))
SPACES = st.sampled_from([b"", b" ", b"\t", b" \t "])
NAMES = st.sampled_from([b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"Host", b"content-LENGTH"])


@st.composite
def requests(draw):
    """A request by the grammar, with what the two parsers look at in it; a few of them contradict themselves."""
    body, chunked = draw(st.binary(max_size=40)), draw(st.booleans())
    words = st.sampled_from([b"0", b"5", b"chunked", b"Chunked", b"close", b"keep-alive", b"100-continue", b"x"])
    headers = [(b"Host", b"x"), *draw(st.lists(st.tuples(TOKENS, VALUES) | st.tuples(NAMES, words | VALUES), max_size=3))]
    if chunked:
        headers.append((b"Transfer-Encoding", b"chunked"))
        sizes = pieces(body, [draw(st.integers(0, len(body))) for _ in range(draw(st.integers(0, 2)))])
        ends = [draw(st.sampled_from([b"", b";a", b";a=b", b';a="b;\\"c"', b";a;b=c"])) for _ in range(len(sizes) + 1)]
        body = b"".join(b"%x%s\r\n%s\r\n" % (len(part), end, part) for part, end in zip(sizes, ends, strict=False))
        trailers = draw(st.lists(st.tuples(TOKENS | NAMES, VALUES), max_size=1))
        body += b"0%s\r\n" % ends[-1] + b"".join(b"%s: %s\r\n" % field for field in trailers) + b"\r\n"
    elif body:
        headers.append((b"Content-Length", b"%d" % len(body)))
    lines = b"".join(b"%s:%s%s%s\r\n" % (name, draw(SPACES), value, draw(SPACES)) for name, value in draw(st.permutations(headers)))
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"OPTIONS", b"PURGE", b"get", b"FOO"]))
    target = b"/" + draw(st.text("abc/?#%&=.~;:@!$'()*+,[]{}|\\^`\"<>-_", max_size=12)).encode()
    return b"%s %s HTTP/1.%d\r\n%s\r\n%s" % (method, target, draw(st.sampled_from([1, 1, 1, 0])), lines, body)


@settings(max_examples=250, deadline=None)
@given(st.lists(requests(), min_size=1, max_size=3), st.data())
def test_streams_by_the_grammar_are_framed_as_llhttp_frames_them_or_refused(given, data):
    stream = b"".join(given)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=4))
    llhttp.compare(stream, *requests_of(pieces(stream, cuts)), llhttp.Reader(*pieces(stream, cuts)))


def test_what_llhttp_frames_alike_when_it_is_valid_is_all_read():
    ours, _ = requests_of([GET + SIZED + CHUNKED + OLD + LAST])
    assert ours == llhttp.Reader(GET + SIZED + CHUNKED + OLD + LAST).found
    assert [call[3] for call in ours] == [b"", b"hello", b"hello", b"", b""]


@pytest.mark.parametrize(("stream", "calls", "reason"), [
    (b"FOO /a HTTP/1.1\r\nHost: x\r\n\r\n", 1, "a method is any token"),
    (GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n") + GET, 2, "an Upgrade to what is not spoken here"),
    (GET.replace(b"\r\n\r\n", b"\r\nProxy-Connection: close\r\n\r\n") + GET, 2, "Proxy-Connection"),
    (CHUNKED.replace(b"chunked", b"chunked\t"), 1, "a tab, too"),
])
def test_each_difference_from_llhttp_is_one_on_purpose(stream, calls, reason):
    ours, refused = requests_of([stream])
    assert len(ours) == calls
    assert llhttp.compare(stream, ours, refused).startswith(reason)


@pytest.mark.parametrize("line", [
    b'3;a="', b'3;a="\\', b"3;", b"3;;", b"3;=", b"3;a=", b"3;a=;b", b"3;a==b", b"3;a b", b"3; a", b"3;a\x94", b'3;a="b"c', b"3;\x7f", b'3;a="\x01"',
])
def test_a_malformed_chunk_extension_is_refused_as_llhttp_refuses_it(line):
    stream = CHUNKED.replace(b"3;a=b;c", line)
    assert requests_of([stream]) == requests_of([stream[i:i + 1] for i in range(len(stream))]) == ([], True)
    if line not in (b"3;=", b"3;a=", b"3;a=;b"):    # llhttp takes an extension without its name, or its value
        assert llhttp.Reader(stream).found == []


@pytest.mark.parametrize("line", [
    b"Content-Length: 5", b"content-length:", b"Transfer-Encoding: chunked", b"TRANSFER-ENCODING: x", b"Connection: close",
])
def test_a_trailer_that_llhttp_would_frame_by_is_refused(line):
    stream = CHUNKED.replace(b"Trailer: 1", line)
    assert requests_of([stream]) == ([], True)
    assert llhttp.Reader(stream + GET).found[1:] == []
