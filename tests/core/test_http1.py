"""The HTTP/1.1 front end without a socket."""

import random

import httptools
import pytest

from batchmill.core.loopback import Loopback

INFER = b"POST /v2/models/m/versions/3/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: 1\r\n\r\n"
COLD = b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-A: b\r\n\r\n"
HEALTH = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def test_an_inference_goes_in_and_its_answer_comes_out():
    loop = Loopback(False)
    assert loop.feed(INFER)
    assert loop.infers() == [(b"m", b"3", b"", b"hello", -1, False)]
    loop.answer(0, b"{}")
    assert loop.sent() == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\nX-Model-Version: 7\r\n\r\n{}"
    assert loop.requests_alive() == 0


def test_every_split_of_the_bytes_gives_the_same():
    stream = INFER + CHUNKED + COLD + HEALTH
    for cut in range(1, len(stream)):
        loop = Loopback(False)
        assert loop.feed(stream[:cut])
        assert loop.feed(stream[cut:])
        assert [i[:4] for i in loop.infers()] == [(b"m", b"3", b"", b"hello"), (b"m", b"", b"", b"hello")], cut
        assert loop.colds() == [(b"GET", b"/v2", [(b"host", b"x"), (b"x-a", b"b")], b"", False)]
    loop = Loopback(False)
    assert all(loop.feed(stream[i:i + 1]) for i in range(len(stream)))
    assert len(loop.infers()) == 2


def test_answers_keep_the_order_of_the_requests_hot_and_cold():
    loop = Loopback(False)
    loop.feed(INFER + COLD + HEALTH + INFER)
    loop.answer(1, b"last")
    loop.cold_answer(0, 200, [(b"content-length", b"4")], [b"co", b"ld"])
    assert loop.sent() == b""
    loop.answer(0, b"first")
    sent = loop.sent()
    assert sent.index(b"first") < sent.index(b"cold") < sent.index(b"Content-Length: 0") < sent.index(b"last")
    assert loop.requests_alive() == 0


def test_a_cold_answer_without_a_length_is_chunked():
    loop = Loopback(False)
    loop.feed(COLD)
    loop.cold_answer(0, 200, [], [b"x" * 20, b"yz"])
    assert loop.sent().endswith(b"Transfer-Encoding: chunked\r\n\r\n14\r\n" + b"x" * 20 + b"\r\n2\r\nyz\r\n0\r\n\r\n")


def test_99_of_100_pipelined_requests_are_right_and_one_is_told_what_is_wrong():
    loop = Loopback(False)
    for number in range(100):
        loop.feed(INFER)
        loop.refuse(number, b"bad") if number == 50 else loop.answer(number, b"{}")
    sent = loop.sent()
    assert (sent.count(b"HTTP/1.1 200 OK"), sent.count(b"HTTP/1.1 400 Bad Request"), sent.count(b'{"error":"bad"}')) == (99, 1, 1)


def test_expect_continue_is_answered_before_the_body():
    loop = Loopback(False)
    loop.feed(INFER[:-5].replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert loop.sent() == b"HTTP/1.1 100 Continue\r\n\r\n"
    loop.feed(b"hello")
    assert len(loop.infers()) == 1


def test_head_has_no_body_and_close_closes():
    loop = Loopback(False)
    assert loop.feed(HEALTH.replace(b"GET", b"HEAD"))
    assert not loop.feed(HEALTH.replace(b"Host", b"Connection: close\r\nHost"))
    assert loop.sent().count(b"HTTP/1.1 200 OK") == 2
    assert loop.finished()


def test_a_caller_who_leaves_frees_what_was_his():
    loop = Loopback(False)
    loop.feed(INFER + COLD + INFER[:-2])
    loop.abandon()
    assert loop.colds()[0][4]
    assert loop.requests_alive() == 1       # on its way; it comes back later
    loop.answer(0, b"{}")
    assert loop.requests_alive() == 0


@pytest.mark.parametrize(("length", "status"), [(100, b""), (101, b"413")])
def test_a_body_is_refused_just_beyond_the_limit(length, status):
    for body in (b"Content-Length: %d\r\n\r\n" % length + b"x" * length,
                 b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * length + b"0\r\n\r\n"):
        loop = Loopback(False, max_body_bytes=100)
        loop.feed(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n" + body)
        assert loop.sent()[9:12] == status
        assert len(loop.infers()) == (0 if status else 1)


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
    head(HOST, b"Content-Encoding: gzip", b"Content-Length: 0"),
    b"GET /v2 HTTP/1.1\nHost: x\n\n", b"GET /v2 HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x00" * 10,
    *(head(HOST, b"Transfer-Encoding: chunked") + body for body in (
        b"g\r\n", b"-1\r\n", b"\r\n", b"0x5\r\nhello\r\n", b"1\r\nxy\r\n", b"ffffffffffffffffff\r\n", b"1\nx\n", b"1" + b" " * 300 + b"\r\n", b"5;\x00\r\n")),
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


class Oracle:
    """What llhttp makes of a stream: (method, target, body) of each whole request, until its first error."""

    def __init__(self, stream):
        self.found, self.body, self.target = [], b"", b""
        self.parser = httptools.HttpRequestParser(self)
        self.failed = False
        try:
            self.parser.feed_data(stream)
        except httptools.HttpParserError:
            self.failed = True

    def on_url(self, url):
        self.target += url

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        self.found.append((self.parser.get_method(), self.target, self.body))
        self.body, self.target = b"", b""


def test_what_llhttp_frames_differently_is_refused():
    rng = random.Random(7)
    seeds = [COLD.replace(b"/v2", b"/a"), b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
             CHUNKED.replace(b"/v2/models/m/infer", b"/c"), b"GET /d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"]
    for round_ in range(20_000):
        stream = bytearray(b"".join(rng.choices(seeds, k=2)))
        for _ in range(rng.randrange(4)):
            at = rng.randrange(len(stream))
            kind = rng.randrange(3)
            if kind == 0:
                stream[at] = rng.choice(b"\r\n :;,\t\x000159abXx/+-\xff")
            elif kind == 1:
                del stream[at]
            else:
                stream.insert(at, rng.choice(b"\r\n :;,\t\x000159abXx"))
        loop, oracle = Loopback(False), Oracle(bytes(stream))
        loop.feed(bytes(stream))
        ours = [(method, target, body) for method, target, _, body, _ in loop.colds()]
        theirs = oracle.found
        common = min(len(ours), len(theirs))
        assert ours[:common] == theirs[:common], (round_, bytes(stream))
        if len(ours) > common:
            assert oracle.failed, (round_, bytes(stream))     # stricter than ours is fine only where it says so
