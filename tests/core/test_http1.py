"""The HTTP/1.1 front end without a socket."""

import os
import random

import pytest

from batchmill.core.loopback import Loopback

INFER = b"POST /v2/models/m/versions/3/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: 1\r\n\r\n"
COLD = b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-A: b\r\n\r\n"
SEED = int(os.environ.get("BATCHMILL_FUZZ_SEED") or "7")
SECOND_NS = 10**9
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


def test_of_100_requests_in_one_stream_those_before_the_malformed_one_are_answered_and_no_other():
    loop = Loopback(False)
    assert not loop.feed(INFER * 50 + INFER.replace(b"Host", b"Host ") + INFER * 49)
    for number in range(len(loop.infers())):
        loop.answer(number, b"{}")
    sent = loop.sent()
    assert (sent.count(b"HTTP/1.1 200 OK"), sent.count(b"HTTP/1.1 400 Bad Request")) == (50, 1)
    assert b"Connection: close" in sent
    assert loop.finished()
    assert loop.requests_alive() == 0


def test_no_more_than_64_requests_wait_and_the_rest_are_read_as_those_are_answered():
    loop = Loopback(False)
    loop.feed(INFER * 100)
    assert (len(loop.infers()), loop.paused()) == (64, True)
    for number in range(100):
        loop.answer(number, b"%03d" % number)
    sent = loop.sent()
    assert [sent.index(b"\r\n\r\n%03d" % number) for number in range(100)] == sorted(sent.index(b"\r\n\r\n%03d" % n) for n in range(100))
    assert not loop.paused()
    assert loop.requests_alive() == 0


def test_reading_stops_while_the_caller_does_not_read():
    loop = Loopback(False)
    loop.feed(INFER)
    loop.answer(0, b"x" * (2 << 20))
    assert loop.paused()
    loop.sent((1 << 20) + 200)
    assert not loop.paused()


def test_an_http_1_0_caller_is_not_told_to_continue():
    loop = Loopback(False)
    loop.feed(INFER[:-5].replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert loop.sent() == b""


def test_who_asks_to_send_too_much_is_refused_before_sending_it():
    loop = Loopback(False, max_body_bytes=4)
    assert not loop.feed(INFER[:-5].replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert loop.sent().startswith(b"HTTP/1.1 413 ")


def test_200_000_chunks_of_one_byte_are_one_body():
    loop = Loopback(False)
    stream = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n"
    for at in range(0, len(stream), 65_537):
        assert loop.feed(stream[at:at + 65_537])
    assert loop.infers()[0][3] == b"x" * 200_000


def test_a_chunk_over_the_limit_is_refused_by_its_size_line_alone():
    loop = Loopback(False, max_body_bytes=100)
    assert not loop.feed(CHUNKED[:CHUNKED.index(b"\r\n\r\n") + 4] + b"65\r\n")
    assert loop.sent().startswith(b"HTTP/1.1 413 ")


def test_expect_continue_is_answered_before_the_body():
    loop = Loopback(False)
    loop.feed(INFER[:-5].replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
    assert loop.sent() == b"HTTP/1.1 100 Continue\r\n\r\n"
    loop.feed(b"hello")
    assert len(loop.infers()) == 1


COLD_ANSWERS = {
    "no content": (204, [], [], b"HTTP/1.1 204 No Content\r\n\r\n"),
    "no content, yet a length": (204, [(b"content-length", b"0")], [], b"HTTP/1.1 204 No Content\r\n\r\n"),
    "not modified": (304, [], [b"zz"], b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "more than declared": (200, [(b"content-length", b"2")], [b"ab", b"cd"], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"),
    "forged header": (200, [(b"content-length", b"0"), (b"a", b"b\r\nSet-Cookie: c")], [], b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "its own framing": (200, [(b"transfer-encoding", b"gzip"), (b"content-length", b"1")], [b"x"],
                        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
}


@pytest.mark.parametrize(("status", "headers", "parts", "wanted"), COLD_ANSWERS.values(), ids=COLD_ANSWERS)
def test_the_end_of_a_cold_answer_is_where_its_head_says(status, headers, parts, wanted):
    loop = Loopback(False)
    loop.feed(COLD)
    loop.cold_answer(0, status, headers, parts)
    assert loop.sent() == wanted
    assert not loop.finished()


def test_a_cold_answer_shorter_than_declared_ends_the_connection():
    loop = Loopback(False)
    loop.feed(COLD)
    loop.cold_answer(0, 200, [(b"content-length", b"5")], [b"ab"])
    assert loop.sent().endswith(b"\r\n\r\nab")
    assert loop.finished()


def test_nothing_follows_a_body_that_the_end_of_the_connection_ends():
    loop = Loopback(False)
    loop.feed(COLD.replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\nConnection: keep-alive\r\n") + COLD)
    loop.cold_answer(1, 200, [], [b"second"])
    loop.cold_answer(0, 200, [], [b"first"])
    assert loop.sent() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nfirst"
    assert loop.finished()


def test_a_full_cold_queue_is_said_and_the_connection_goes_on():
    loop = Loopback(False)
    loop.fill_cold_queue()
    assert loop.feed(COLD + HEALTH)
    sent = loop.sent()
    assert sent.startswith(b"HTTP/1.1 503 ")
    assert b"Retry-After: 1\r\n" in sent
    assert b"HTTP/1.1 200 OK" in sent


def test_a_draining_server_says_close_with_the_last_answer_only():
    loop = Loopback(False)
    loop.feed(INFER + INFER)
    loop.set_draining()
    loop.answer(0, b"first")
    assert b"close" not in loop.sent()
    assert not loop.finished()
    loop.answer(1, b"second")
    assert b"Connection: close\r\n" in loop.sent()
    assert loop.finished()


@pytest.mark.parametrize("path", [b"/v2/models/m/infer", b"/v2"])
def test_bodies_count_against_the_budget_and_all_of_it_comes_back(path):
    def stream(size):
        return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path, size) + b"x" * size

    loop = Loopback(False)
    loop.set_budget(128 << 10)
    assert loop.feed(stream(128 << 10)[:-1])
    assert loop.charged() == 128 << 10
    assert loop.feed(b"x")
    if path == b"/v2":
        loop.cold_answer(0, 200, [], [])
    else:
        loop.answer(0, b"{}")
    assert loop.charged() == 0
    assert not loop.feed(stream((128 << 10) + 1))
    sent = loop.sent()
    assert b"HTTP/1.1 503 " in sent
    assert b"Retry-After: 1\r\n" in sent
    assert loop.charged() == 0


def test_a_declared_length_takes_no_memory():
    loop = Loopback(False)
    loop.feed(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    assert loop.charged() == 0


def late(loop, seconds):
    loop.set_now(int(seconds * SECOND_NS))
    if loop.deadline() and loop.deadline() <= seconds * SECOND_NS:
        loop.time_out()


@pytest.mark.parametrize("start", [b"GET /v2", b"GET /v2 HTTP/1.1\r\nA: b"])
def test_a_head_that_drips_is_given_up_ten_seconds_after_its_first_byte(start):
    loop = Loopback(False)
    loop.set_now(SECOND_NS)
    loop.feed(start)
    for tick in range(19):
        late(loop, 1.5 + tick / 2)
        assert loop.sent() == b"", tick
        loop.feed(b"x")
    late(loop, 11)
    assert loop.sent().startswith(b"HTTP/1.1 408 ")
    assert loop.finished()


def test_a_body_may_be_slow_but_not_slower_than_the_rate():
    loop = Loopback(False)
    loop.set_now(SECOND_NS)
    loop.feed(INFER.replace(b"5\r\n\r\nhello", b"99999\r\n\r\n"))
    for second in range(2, 40):
        late(loop, second)
        assert loop.sent() == b"", second
        loop.feed(b"x" * 1025)
    late(loop, 60)
    assert loop.sent().startswith(b"HTTP/1.1 408 ")
    assert loop.requests_alive() == 0


def test_a_body_is_not_hurried_while_the_answer_before_it_is_ours_to_give():
    loop = Loopback(False)
    loop.set_now(SECOND_NS)
    loop.feed(INFER + INFER[:-2])
    late(loop, 100)
    assert loop.sent() == b""
    loop.answer(0, b"{}")
    late(loop, 109)
    assert b"408" not in loop.sent()
    late(loop, 110)
    assert loop.sent().startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed_without_a_word_and_one_that_waits_for_us_is_not():
    loop = Loopback(False)
    loop.set_now(SECOND_NS)
    loop.feed(INFER)
    late(loop, 1000)
    assert loop.deadline() == 0
    loop.answer(0, b"{}")
    loop.sent()
    late(loop, 1119)
    assert not loop.finished()
    late(loop, 1120)
    assert loop.finished()
    assert loop.sent() == b""


def test_a_caller_who_stops_reading_is_closed():
    loop = Loopback(False)
    loop.set_now(SECOND_NS)
    loop.feed(INFER)
    loop.answer(0, b"x" * 1000)
    loop.sent(10)
    late(loop, 100)
    loop.sent(10)
    late(loop, 219)
    assert not loop.finished()
    late(loop, 220)
    assert loop.finished()


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


def play(rng, hangs_up):
    """Sends 1 to 120 requests in random cuts, answers them in a random order, reads in random portions; what the client got."""
    kinds = rng.choices("ich", k=rng.randrange(1, 120))
    stream = b"".join({"i": INFER, "c": COLD, "h": HEALTH}[kind] for kind in kinds)
    loop, at, sent = Loopback(False), 0, b""
    asked, todo = {"i": 0, "c": 0}, []
    while at < len(stream) or todo or sum(asked.values()) < len(loop.infers()) + len(loop.colds()):
        if at < len(stream) and rng.random() < 0.5:
            size = rng.randrange(1, 600)
            assert loop.feed(stream[at:at + size])
            at += size
        for kind, count in (("i", len(loop.infers())), ("c", len(loop.colds()))):
            todo += [(kind, number) for number in range(asked[kind], count)]
            asked[kind] = count
        if hangs_up and rng.random() < 0.05:
            loop.abandon()
            for number in [number for kind, number in todo if kind == "i"]:
                loop.answer(number, b"late")
            break
        if todo and rng.random() < 0.6:
            kind, number = todo.pop(rng.randrange(len(todo)))
            if kind == "i":
                loop.answer(number, b"i%d." % number)
            else:
                loop.cold_answer(number, 200, rng.choice([[], [(b"content-length", b"%d" % len(b"c%d." % number))]]), [b"c%d." % number])
        sent += loop.sent(rng.randrange(1000))
    else:
        sent += loop.sent()
    assert loop.requests_alive() == 0
    assert loop.charged() == 0
    return kinds, sent


def bodies(sent):
    """First letter of each answer's body, by their framing alone; h: empty."""
    found = ""
    while sent:
        start, sent = sent.split(b"\r\n\r\n", 1)
        if b"Transfer-Encoding: chunked" in start:
            chunk, sent = sent.split(b"\r\n0\r\n\r\n", 1)
            found += chunk.split(b"\r\n")[1][:1].decode()
        else:
            size = int(start.split(b"Content-Length: ")[1].split(b"\r\n")[0])
            found, sent = found + (sent[:1].decode() if size else "h"), sent[size:]
    return found


def test_answers_keep_their_order_whatever_comes_when():
    rng = random.Random(SEED)
    for round_ in range(150):
        kinds, sent = play(rng, False)
        assert bodies(sent) == "".join(kinds), (SEED, round_)


def test_nothing_is_left_of_a_caller_who_hangs_up_at_any_time():
    rng = random.Random(SEED)
    for _ in range(300):
        play(rng, True)


@pytest.mark.parametrize(("length", "status"), [(100, b""), (101, b"413")])
def test_a_body_is_refused_just_beyond_the_limit(length, status):
    for body in (b"Content-Length: %d\r\n\r\n" % length + b"x" * length,
                 b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * length + b"0\r\n\r\n"):
        loop = Loopback(False, max_body_bytes=100)
        loop.feed(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n" + body)
        assert loop.sent()[9:12] == status
        assert len(loop.infers()) == (0 if status else 1)
