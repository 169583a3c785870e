"""How an HTTP/1.1 connection ends, what its listener allows, and what waits on it for a slow caller."""

import pytest

from batchmill.core.loopback import Loopback

INFER = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
COLD = b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"


def test_who_has_half_closed_gets_every_answer_and_then_the_end():
    loop = Loopback(False)
    loop.feed(INFER * 100)      # 36 of them are held until others are answered
    assert loop.end_input()
    for number in range(100):
        assert not loop.finished()
        loop.answer(number, b"{}")
    assert loop.sent().count(b"HTTP/1.1 200 OK") == 100
    assert loop.finished()
    assert not loop.lingers()


def test_who_has_half_closed_gets_the_end_with_a_cold_answer_too():
    loop = Loopback(False)
    loop.feed(COLD)
    loop.end_input()
    loop.cold_answer(0, 200, [], [b"x"])
    loop.sent()
    assert loop.finished()


@pytest.mark.parametrize("before", [0, 70], ids=["at once", "behind others"])
def test_a_body_that_its_sender_has_cut_is_refused(before):
    loop = Loopback(False)
    loop.feed(INFER * before + INFER[:-1])
    assert loop.end_input()
    for number in range(before):
        loop.answer(number, b"{}")
    assert b"HTTP/1.1 400 Bad Request" in loop.sent()
    assert loop.finished()
    assert loop.requests_alive() == 0


def test_an_idle_connection_ends_with_its_client():
    loop = Loopback(False)
    loop.feed(INFER[:20])
    assert not loop.end_input()
    assert loop.finished()


def test_an_early_refusal_lingers_for_what_its_caller_still_sends():
    loop = Loopback(False, max_body_bytes=4)
    assert not loop.feed(INFER)
    assert loop.sent().startswith(b"HTTP/1.1 413 ")
    assert loop.finished()
    assert loop.lingers()


def test_an_idle_connection_that_times_out_does_not_linger():
    loop = Loopback(False)
    loop.set_now(loop.deadline())
    loop.time_out()
    assert loop.finished()
    assert not loop.lingers()


def with_headers(*lines):
    return INFER.replace(b"\r\n\r\n", b"".join(b"\r\n" + line for line in lines) + b"\r\n\r\n")


def test_the_route_key_and_the_timeout_of_a_request_are_its_own():
    loop = Loopback(False)
    loop.feed(with_headers(b"X-Route-Key: user 7", b"X-Request-Timeout-Ms: 250") + INFER)
    assert loop.routing(0) == (b"user 7", 250_000_000)
    assert loop.routing(1) == (b"", 0)


def test_every_answer_carries_the_request_id_of_its_own_request():
    loop = Loopback(False)
    loop.feed(with_headers(b"X-Request-ID: first") + INFER + with_headers(b"x-request-id: third") + get(b"/livez"))
    loop.refuse(2, b"no")
    loop.answer(1, b"{}")
    loop.answer(0, b"{}")
    first, second, third, fourth = loop.sent().split(b"HTTP/1.1 ")[1:]
    assert b"\r\nX-Request-Id: first\r\n" in first
    assert b"\r\nX-Request-Id: third\r\n" in third
    assert third.startswith(b"400")
    assert b"X-Request-Id" not in second + fourth
    loop.feed(b"GET /v2 HTTP/1.1\r\nHost: x\r\nX-Request-Id: cold\r\n\r\n")
    loop.cold_answer(0, 200, [(b"content-type", b"text/plain")], [b"hello"])
    assert b"\r\nX-Request-Id: cold\r\n" in loop.sent()


def test_a_request_id_that_is_too_long_is_not_carried():
    loop = Loopback(False)
    loop.feed(with_headers(b"X-Request-Id: " + b"a" * 256) + with_headers(b"X-Request-Id: " + b"a" * 257))
    loop.answer(0, b"{}")
    assert b"a" * 256 in loop.sent()
    loop.answer(1, b"{}")
    assert b"X-Request-Id" not in loop.sent()


def test_server_timing_is_told_to_those_who_ask():
    loop = Loopback(False)
    loop.feed(with_headers(b"X-Server-Timing: 1") + with_headers(b"X-Server-Timing: 0") + INFER)
    for number in range(3):
        loop.answer(number, b"{}", at_us=[1000, 1020, 1500, 1501, 2501, 2502, 2600])
    first, *others = loop.sent().split(b"HTTP/1.1 ")[1:]
    assert b"\r\nServer-Timing: decode;dur=0.020, queue;dur=0.480, assembly;dur=0.001, compute;dur=1.000, encode;dur=0.001, total;dur=1.600\r\n" in first
    assert b"Server-Timing" not in b"".join(others)


@pytest.mark.parametrize("value", [b"", b"0", b"-1", b"1.5", b"1s", b"1e3", b"9" * 30])
def test_a_timeout_that_is_no_number_is_told_by_name(value):
    loop = Loopback(False)
    assert not loop.feed(with_headers(b"X-Request-Timeout-Ms: " + value))
    sent = loop.sent()
    assert sent.startswith(b"HTTP/1.1 400 ")
    assert b"x-request-timeout-ms" in sent
    assert b"digits wanted" in sent
    assert loop.requests_alive() == 0


def get(target):
    return b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_listener_for_scrapers_serves_metrics_and_health_alone():
    loop = Loopback(False, metrics_only=True)
    for target in (b"/livez", b"/v2/health/ready"):
        loop.feed(get(target))
        assert loop.sent().startswith(b"HTTP/1.1 200 "), target
    loop.feed(INFER)
    for target in (b"/", b"/v2", b"/admin/routes", b"/metrics/", b"/v2/models/m/ready", b"/v2/models/%zz"):
        loop.feed(get(target))
    assert loop.sent().count(b"HTTP/1.1 404 Not Found") == 7
    assert loop.infers() == loop.colds() == []
    loop.feed(get(b"/metrics?x=1"))
    assert [call[1] for call in loop.colds()] == [b"/metrics?x=1"]


def test_what_a_slow_caller_has_not_read_is_pending():
    loop = Loopback(False)
    loop.feed(COLD)
    loop.cold_write(0, 200, [], [b"x" * 1000] * 5)
    assert loop.cold_pending(0) > 5000      # the head and what frames the chunks count as well
    pending = loop.cold_pending(0)
    sent = loop.sent(1500)
    assert loop.cold_pending(0) == pending - 1500
    sent += loop.sent()
    assert (len(sent), loop.cold_pending(0)) == (pending, 0)


def test_an_answer_behind_others_stays_pending_until_its_turn():
    loop = Loopback(False)
    loop.feed(INFER + COLD)
    loop.cold_write(0, 200, [], [b"x" * 5000])
    pending = loop.cold_pending(0)
    assert pending > 5000
    assert loop.sent() == b""
    loop.answer(0, b"{}")
    assert loop.cold_pending(0) == pending
    loop.sent()
    assert loop.cold_pending(0) == 0


def test_what_may_not_be_sent_is_not_pending():
    loop = Loopback(False)
    loop.feed(COLD.replace(b"GET", b"HEAD"))
    loop.cold_write(0, 200, [], [b"x" * 5000])
    loop.sent()
    assert loop.cold_pending(0) == 0
