"""The HTTP/2 front end without a socket; the client's bytes are made by the h2 library."""

import struct

import h2.config
import h2.connection
import h2.events
import pytest

from batchmill.core import grpc
from batchmill.core.loopback import Loopback

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


class Client:
    def __init__(self, **limits):
        self.loop = Loopback(True, **limits)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.headers, self.data, self.trailers, self.ended = {}, {}, {}, set()

    def start(self, path, *more, method="POST", content_type="application/grpc", end=False):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [(":method", method), (":path", path), (":scheme", "http"), (":authority", "x"),
                                      ("content-type", content_type), *more], end_stream=end)
        return stream

    def send(self, stream, data, end=True):
        self.h2.send_data(stream, data, end_stream=end)

    def pump(self):
        assert self.loop.feed(self.h2.data_to_send())
        self.read()

    def read(self):
        for event in self.h2.receive_data(self.loop.sent()):
            if isinstance(event, h2.events.ResponseReceived):
                self.headers[event.stream_id] = dict(event.headers)
            elif isinstance(event, h2.events.TrailersReceived):
                self.trailers[event.stream_id] = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)


def frame(data, flag=0):
    return struct.pack(">BI", flag, len(data)) + data


def test_a_unary_call_goes_in_and_its_answer_comes_out():
    client = Client()
    stream = client.start(INFER, ("te", "trailers"))
    client.send(stream, frame(b"hello"))
    client.pump()
    assert client.loop.infers()[0][3:] == (b"hello", -1, True)
    client.loop.answer(0, frame(b"answer"))
    client.read()
    assert client.headers[stream] == {":status": "200", "content-type": "application/grpc"}
    assert client.data[stream] == frame(b"answer")
    assert client.trailers[stream] == {"grpc-status": "0", "x-model-version": "7"}
    assert client.loop.requests_alive() == 0


def test_every_split_of_the_bytes_gives_the_same():
    client = Client()
    stream = client.start(INFER)
    client.send(stream, frame(b"hello"))
    bytes_ = client.h2.data_to_send()
    for cut in range(1, len(bytes_)):
        loop = Loopback(True)
        assert loop.feed(bytes_[:cut])
        assert loop.feed(bytes_[cut:])
        assert loop.infers()[0][3] == b"hello"
    loop = Loopback(True)
    assert all(loop.feed(bytes_[i:i + 1]) for i in range(len(bytes_)))
    assert loop.infers()[0][3] == b"hello"


def test_an_error_is_trailers_only_with_details():
    client = Client()
    stream = client.start(INFER)
    client.send(stream, frame(b"hello"))
    client.pump()
    client.loop.refuse(0, "naïve 100%".encode())
    client.read()
    got = client.headers[stream]
    assert (got["grpc-status"], got["grpc-message"]) == ("3", "na%C3%AFve 100%25")
    assert got["grpc-status-details-bin"]
    assert stream in client.ended
    assert client.loop.requests_alive() == 0


def test_a_stream_keeps_the_order_of_its_requests():
    client = Client()
    stream = client.start(STREAM)
    client.send(stream, frame(b"a") + frame(b"b") + frame(b"c")[:3], end=False)
    client.send(stream, frame(b"c")[3:])
    client.pump()
    assert [i[3] for i in client.loop.infers()] == [b"a", b"b", b"c"]
    client.loop.answer(2, frame(b"C"))
    client.loop.answer(1, frame(b"B"))
    client.read()
    assert stream not in client.data
    client.loop.answer(0, frame(b"A"))
    client.read()
    assert client.data[stream] == frame(b"A") + frame(b"B") + frame(b"C")
    assert client.trailers[stream]["grpc-status"] == "0"


@pytest.mark.parametrize(("body", "code"), [
    (b"", "3"), (b"\x00\x00", "3"), (frame(b"x")[:-1], "3"), (frame(b"x", 1), "13"), (frame(b"x") * 2, "3"), (b"\x00\xff\xff\xff\xff", "8"),
])
def test_broken_message_framing_is_told(body, code):
    client = Client()
    stream = client.start(INFER, end=not body)
    if body:
        client.send(stream, body)
    client.pump()
    assert client.headers[stream]["grpc-status"] == code
    assert client.loop.requests_alive() == 0


def test_rest_over_http2():
    client = Client()
    stream = client.start("/v2/models/m/infer", content_type="application/json")
    client.send(stream, b"{}")
    live = client.start("/v2/health/live", method="GET", content_type="text/plain", end=True)
    cold = client.start("/v2?x=1", method="GET", content_type="text/plain", end=True)
    client.pump()
    assert client.loop.infers()[0][:4] == (b"m", b"", b"", b"{}")
    assert client.headers[live][":status"] == "200"
    client.loop.answer(0, b"JSON", -1)
    client.loop.cold_answer(0, 404, [(b"content-type", b"text/plain")], [b"no", b"no"])
    client.read()
    assert (client.headers[stream][":status"], client.data[stream]) == ("200", b"JSON")
    assert (client.headers[cold][":status"], client.data[cold]) == ("404", b"nono")


def test_a_cold_grpc_call_gets_messages_and_trailers():
    client = Client()
    stream = client.start("/some.Service/Method", ("x-key", "v"))
    client.send(stream, frame(b"one") + frame(b"two"))
    client.pump()
    method, target, headers, body, _ = client.loop.colds()[0]
    assert (method, target, body) == (b"POST", b"/some.Service/Method", b"onetwo")
    assert (b"x-key", b"v") in headers
    client.loop.cold_answer(0, 200, [(b"initial", b"1")], [b"uno"], [(b"grpc-status", b"0")])
    client.read()
    assert client.headers[stream]["initial"] == "1"
    assert client.data[stream] == frame(b"uno")
    assert client.trailers[stream]["grpc-status"] == "0"


def test_a_cancelled_stream_and_a_lost_connection_free_what_was_theirs():
    client = Client()
    first, second = client.start(INFER), client.start(INFER)
    client.send(first, frame(b"a"))
    client.send(second, frame(b"bbbb")[:-2], end=False)
    client.start("/some.Service/Method")
    client.pump()
    client.h2.reset_stream(first)
    client.pump()
    client.loop.answer(0, frame(b"late"))
    client.loop.abandon()
    assert client.loop.requests_alive() == 0
    assert client.loop.colds()[0][4]


def test_headers_over_the_limit_are_refused_and_nobody_elses():
    client = Client(max_header_bytes=1000)
    call = client.start(INFER, ("x", "y" * 2000))
    request = client.start("/v2/models/m/infer", ("x", "y" * 600), ("z", "y" * 600), content_type="text/plain")
    fine = client.start(INFER)
    client.send(fine, frame(b"a"))
    client.pump()
    assert len(client.loop.infers()) == 1
    assert client.headers[call]["grpc-status"] == "8"
    assert client.headers[request][":status"] == "431"


@pytest.mark.parametrize(("path", "content_type"), [("/v2", "text/plain"), ("/some.Service/Method", "application/grpc")])
def test_what_python_will_answer_counts_against_the_budget_and_all_of_it_comes_back(path, content_type):
    client = Client()
    client.loop.set_budget(128 << 10)
    first, second, third = (client.start(path, content_type=content_type) for _ in range(3))
    body = frame(b"x" * 15_000)
    client.send(first, body[:-1], end=False)
    client.send(second, body[:-1], end=False)
    client.pump()
    assert client.loop.charged() == 128 << 10
    client.send(third, body[:10_000], end=False)
    client.pump()
    refusal = client.headers[third]
    assert refusal.get("grpc-status") == "14" if content_type != "text/plain" else refusal[":status"] == "503"
    client.send(first, body[-1:])
    client.h2.reset_stream(second)
    client.pump()
    assert client.loop.charged() == 0
    whole = [call[3] for call in client.loop.colds() if call[3]]
    assert whole == [body if content_type == "text/plain" else body[5:]]


def test_garbage_after_the_preface_ends_the_connection_with_a_goaway():
    loop = Loopback(True)
    loop.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100)
    assert b"\x07\x00\x00\x00\x00\x00" in loop.sent()
    assert loop.finished()


def test_headers_in_many_frames_are_refused_as_others_are_and_the_connection_goes_on():
    client = Client(max_header_bytes=1000)
    call = client.start(INFER, *((f"x{n}", "y" * 1000) for n in range(1000)))
    fine = client.start(INFER)
    client.send(fine, frame(b"a"))
    client.pump()
    assert client.headers[call]["grpc-status"] == "8"
    assert len(client.loop.infers()) == 1


def test_a_flood_of_continuations_ends_with_a_goaway():
    client = Client(max_header_bytes=1000)
    client.start(INFER, *((f"x{n}", "y" * 1000) for n in range(3000)))
    assert not client.loop.feed(client.h2.data_to_send())
    goaway = client.loop.sent()[-17:]
    assert goaway == struct.pack(">HBBBIII", 0, 8, 7, 0, 0, 1, 11)
    assert client.loop.finished()


@pytest.mark.parametrize(("text", "ns"), [
    (b"1n", 1), (b"20u", 20_000), (b"3m", 3_000_000), (b"4S", 4 * 10**9), (b"5M", 300 * 10**9), (b"6H", 6 * 3600 * 10**9),
    (b"", -1), (b"1", -1), (b"S", -1), (b"1x", -1), (b"-1S", -1), (b"123456789S", -1), (b"1.5S", -1),
])
def test_grpc_timeouts(text, ns):
    assert grpc.timeout_ns(text) == ns


def test_a_stream_refused_while_messages_are_on_their_way_frees_them_once():
    client = Client(max_body_bytes=100)
    stream = client.start(STREAM)
    client.send(stream, frame(b"a") + frame(b"b") + struct.pack(">BI", 0, 1000), end=False)
    client.pump()
    client.loop.refuse(0, b"no")
    client.loop.abandon()
    client.loop.answer(1, frame(b"B"))
    assert client.loop.requests_alive() == 0


def test_the_route_key_and_the_timeout_of_a_call_are_its_own():
    client = Client()
    for path, content_type, *headers in (
        (INFER, "application/grpc", ("x-route-key", "user 7"), ("grpc-timeout", "3S"), ("x-request-timeout-ms", "nonsense")),
        ("/v2/models/m/infer", "application/json", ("x-route-key", "user 8"), ("x-request-timeout-ms", "250"), ("grpc-timeout", "nonsense")),
        (INFER, "application/grpc"),
    ):
        client.send(client.start(path, *headers, content_type=content_type), frame(b"a"))
    client.pump()
    assert [client.loop.routing(number) for number in range(3)] == [(b"user 7", 3 * 10**9), (b"user 8", 250_000_000), (b"", 0)]


def test_every_answer_carries_the_request_id_of_its_own_call():
    client = Client()
    rest = ("/v2/models/m/infer", ("x-request-id", "rest"))
    calls = [client.start(INFER, ("x-request-id", "unary")), client.start(*rest, content_type="application/json"),
             client.start(INFER, ("x-request-id", "refused")), client.start(INFER)]
    for call in calls:
        client.send(call, frame(b"a"))
    stream = client.start(STREAM, ("x-request-id", "stream"), end=True)
    cold = client.start("/some.Service/Method", ("x-request-id", "cold"), end=True)
    client.pump()
    for number in (0, 1, 3):
        client.loop.answer(number, frame(b"A"))
    client.loop.refuse(2, b"no")
    client.loop.cold_answer(0, 200, [], [b"x"], [(b"grpc-status", b"0")])
    client.pump()
    ids = [client.headers[call].get("x-request-id") for call in (*calls, stream, cold)]
    assert ids == ["unary", "rest", "refused", None, "stream", "cold"]


def test_server_timing_is_a_trailer_in_grpc_and_a_header_in_rest():
    client = Client()
    calls = [client.start(INFER, ("x-server-timing", "1")), client.start("/v2/models/m/infer", ("x-server-timing", "1"), content_type="application/json"),
             client.start(INFER)]
    for call in calls:
        client.send(call, frame(b"a"))
    client.pump()
    for number in range(3):
        client.loop.answer(number, frame(b"A"), at_us=[1000, 1020, 0, 0, 0, 0, 2600])
    client.pump()
    wanted = "decode;dur=0.020, total;dur=1.600"
    assert client.trailers[calls[0]]["server-timing"] == client.headers[calls[1]]["server-timing"] == wanted
    assert "server-timing" not in client.headers[calls[0]]
    assert "server-timing" not in client.trailers[calls[2]]


def test_a_malformed_timeout_is_told_by_name():
    client = Client()
    call = client.start(INFER, ("grpc-timeout", "5"))
    rest = client.start("/v2/models/m/infer", ("x-request-timeout-ms", "5s"), content_type="application/json")
    client.pump()
    assert client.headers[call]["grpc-status"] == "3"
    assert "grpc-timeout" in client.headers[call]["grpc-message"]
    assert client.headers[rest][":status"] == "400"
    assert b"x-request-timeout-ms" in client.data[rest]
    assert client.loop.requests_alive() == 0


def test_a_listener_for_scrapers_serves_metrics_and_health_alone():
    client = Client(metrics_only=True)
    calls = [client.start(path, end=True) for path in (INFER, STREAM, "/grpc.health.v1.Health/Check", "/some.Service/Method")]
    paths = [client.start(path, method="GET", content_type="text/plain", end=True) for path in ("/livez", "/v2", INFER, "/metrics")]
    client.pump()
    assert [client.headers[stream]["grpc-status"] for stream in calls] == ["12"] * 4
    assert [client.headers[stream][":status"] for stream in paths[:3]] == ["200", "404", "404"]
    assert [call[1] for call in client.loop.colds()] == [b"/metrics"]


def test_what_a_slow_caller_has_no_window_for_is_pending():
    client = Client()
    stream = client.start("/some.Service/Method", end=True)
    client.pump()
    client.loop.cold_write(0, 200, [], [b"x" * 50_000] * 4)
    assert client.loop.cold_pending(0) == 4 * 50_005
    client.read()               # as much as the client's first window allows
    assert client.loop.cold_pending(0) == 4 * 50_005 - 65_535
    for _ in range(5):
        client.pump()
    assert (client.loop.cold_pending(0), len(client.data[stream])) == (0, 4 * 50_005)


SECOND = 1_000_000_000


@pytest.mark.parametrize(("path", "content_type", "part"), [
    (INFER, "application/grpc", frame(b"x" * 30_000)), ("/inference.GRPCInferenceService/ServerLive", "application/grpc", frame(b"x" * 30_000)),
    ("/v2/models/m/infer", "application/json", b"x" * 30_000), ("/v2", "application/json", b"x" * 30_000),
])  # fmt: skip
def test_a_body_that_comes_too_slowly_is_refused_and_what_came_of_it_given_back(path, content_type, part):
    client = Client()
    client.loop.set_now(SECOND)
    streams = [client.start(path, content_type=content_type) for _ in range(3)]
    client.send(streams[0], part[:1000], end=False)        # 10 s and what 1,024 bytes/s allow
    client.send(streams[1], part[:15_000], end=False)
    client.pump()
    assert client.loop.charged() > 0
    client.loop.set_now(11 * SECOND)
    client.loop.time_out()
    client.read()
    assert not client.headers
    client.loop.set_now(12 * SECOND)
    client.loop.time_out()
    client.read()
    assert set(client.headers) == {streams[0], streams[2]}
    for stream in client.headers:
        told = client.headers[stream]
        assert told.get("grpc-status") == "4" if content_type == "application/grpc" else told[":status"] == "408"
    client.send(streams[1], part[15_000:])
    client.pump()
    client.loop.set_now(1000 * SECOND)
    client.loop.time_out()
    client.read()
    told = client.headers.get(streams[1], {})
    assert told.get("grpc-status") != "4"
    assert told.get(":status") != "408"


def test_a_stream_may_take_its_time_between_messages():
    client = Client()
    client.loop.set_now(SECOND)
    stream = client.start(STREAM)
    client.send(stream, frame(b"a")[:3], end=False)
    client.pump()
    client.loop.set_now(1000 * SECOND)
    client.loop.time_out()
    client.read()
    assert stream not in client.trailers
    assert stream not in client.ended


def test_a_stream_that_is_refused_ends_with_the_reason_after_what_was_asked_before():
    client = Client(max_body_bytes=100)
    stream = client.start(STREAM)
    client.send(stream, frame(b"a") + frame(b"b") + struct.pack(">BI", 0, 101), end=False)
    client.pump()
    client.loop.answer(1, frame(b"second"))
    client.read()
    assert stream not in client.trailers
    client.loop.answer(0, frame(b"first"))
    client.read()
    assert client.data[stream] == frame(b"first") + frame(b"second")
    assert (client.trailers[stream]["grpc-status"], client.trailers[stream]["grpc-message"]) == ("8", "the message is larger than the server's limit")
    assert client.trailers[stream]["grpc-status-details-bin"]
    assert client.loop.requests_alive() == 0
