"""The cases of gRPC's interop descriptions that a server has to pass, with grpcio and our own calls.

Source: grpc/doc/interop-test-descriptions.md, connection-backoff and keepalive left to its client side.
"""

from __future__ import annotations

import queue
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from conformance.served import Relay, in_flight, wait_idle

from reference.proto import message

from . import models
from .server import ServerProcess

SERVICE = "/inference.GRPCInferenceService/"
MIB = 1 << 20
SECONDS = 20
ROWS = np.linspace(-1, 1, 16, dtype=np.float32).reshape(2, 8)


class Client:
    """Our calls on one connection of its own, each as a callable of grpcio."""

    def __init__(self, address, **options):
        given = {"grpc.use_local_subchannel_pool": 1, "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1, **options}
        self.channel = grpc.insecure_channel(address, options=list(given.items()))
        self.live = self.method("ServerLive", "ServerLiveRequest", "ServerLiveResponse")
        self.metadata = self.method("ModelMetadata", "ModelMetadataRequest", "ModelMetadataResponse")
        self.infer = self.method("ModelInfer", "ModelInferRequest", "ModelInferResponse")
        self.stream = self.method("ModelStreamInfer", "ModelInferRequest", "ModelStreamInferResponse", self.channel.stream_stream)

    def method(self, name, request, response, kind=None):
        return (kind or self.channel.unary_unary)(SERVICE + name, message(request).SerializeToString, message(response).FromString)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.channel.close()


@pytest.fixture
def client(server):
    with Client(server.address) as client:
        yield client


def request(model, datatype, array, name="x", **more):
    made = message("ModelInferRequest")(model_name=model, raw_input_contents=[array.tobytes()], **more)
    made.inputs.add(name=name, datatype=datatype, shape=array.shape)
    return made


def linear(**more):
    return request("linear", "FP32", ROWS, **more)


def slow():
    return request("slow", "FP32", np.zeros((1, 256, 256), np.float32))


def refused(call, *arguments, **named):
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **{"timeout": SECONDS, **named})
    return caught.value.code(), caught.value.details()


def test_every_answer_on_a_stream_says_that_it_is_its_requests_last(client):
    """As Triton's clients of streams ask for; names that are reserved for the server do not come back."""
    asked = linear()
    asked.parameters["triton_enable_empty_final_response"].bool_param = True
    asked.parameters["mine"].string_param = "text"
    answers = [answer.infer_response.parameters for answer in client.stream(iter([linear(), asked]), timeout=SECONDS)]
    assert [sorted(told) for told in answers] == [["triton_final_response"], ["mine", "triton_final_response"]]
    assert all(told["triton_final_response"].bool_param for told in answers)
    assert [*client.infer(asked, timeout=SECONDS).parameters] == ["mine"]


class Conversation:
    """A stream that is asked and answered by turns."""

    def __init__(self, client, **named):
        self.questions = queue.Queue()
        self.call = client.stream(iter(self.questions.get, None), **{"timeout": SECONDS, **named})

    def ask(self, question):
        self.questions.put(question)
        return next(self.call)

    def end(self):
        self.questions.put(None)
        return list(self.call)


def test_an_empty_unary_call_is_answered(client):
    assert client.live(message("ServerLiveRequest")(), timeout=SECONDS).live


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("size", [1, 271_828, 24 * MIB])
def test_a_unary_call_of_any_size_is_answered_plain_or_compressed(client, size, compression):
    values = np.resize(np.arange(251, dtype=np.uint8), (-(-size // 3), 3))
    answer = client.infer(request("identity_uint8", "UINT8", values), timeout=SECONDS, compression=compression)
    assert answer.raw_output_contents[0] == values.tobytes()


def test_a_channel_that_compresses_sends_single_calls_plain(server):
    with Client(server.address, **{"grpc.default_compression_algorithm": 2}) as client:
        for compression in (None, grpc.Compression.NoCompression, grpc.Compression.Gzip):
            assert client.infer(linear(id="a"), timeout=SECONDS, compression=compression).id == "a"


def test_ping_pong_each_message_is_answered_before_the_next_is_sent(client):
    talk = Conversation(client)
    for size in (27_182, 8, 1_828, 45_904):
        rows = np.resize(ROWS, (size // 8, 8))
        answer = talk.ask(request("linear", "FP32", rows, id=str(size))).infer_response
        assert (answer.id, list(answer.outputs[0].shape)) == (str(size), [size // 8, 4])
    assert talk.end() == []
    assert talk.call.code() == grpc.StatusCode.OK


def test_a_stream_without_messages_ends_well(client):
    call = client.stream(iter(()), timeout=SECONDS)
    assert list(call) == []
    assert call.code() == grpc.StatusCode.OK


def test_metadata_of_the_callers_own_is_taken_and_what_is_ours_comes_back(client):
    given = [("x-request-id", "interop"), ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab\x00"), ("an-own", "a"), ("an-own", "b")]
    _, call = client.infer.with_call(linear(), timeout=SECONDS, metadata=given)
    assert ("x-request-id", "interop") in call.initial_metadata()
    assert ("x-model-version", "2") in call.trailing_metadata()
    streamed = client.stream(iter([linear()]), timeout=SECONDS, metadata=given)
    assert len(list(streamed)) == 1
    assert streamed.code() == grpc.StatusCode.OK


@pytest.mark.parametrize("name", ["infer", "metadata"], ids=["native", "Python"])
def test_a_status_message_keeps_its_unicode_and_has_no_control_characters(client, name):
    model = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
    asked = linear() if name == "infer" else message("ModelMetadataRequest")()
    setattr(asked, "model_name" if name == "infer" else "name", model)
    code, details = refused(getattr(client, name), asked)
    assert code == grpc.StatusCode.NOT_FOUND
    assert "Unicode BMP \u263a and non-BMP \U0001f608" in details
    assert details.isprintable()


@pytest.mark.parametrize("path", [SERVICE + "Unheard", "/inference.Unheard/ServerLive", "/", "//", "/a/b/c", "/grpc.testing.TestService/EmptyCall"])
def test_an_unknown_method_or_service_is_unimplemented(client, path):
    assert refused(client.channel.unary_unary(path), b"")[0] == grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        list(client.channel.stream_stream(path)(iter([b""]), timeout=SECONDS))
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_a_stream_cancelled_after_its_begin_is_forgotten(server, client):
    talk = Conversation(client)
    talk.call.cancel()
    assert talk.call.code() == grpc.StatusCode.CANCELLED
    talk.questions.put(None)
    assert wait_idle(server)


def test_a_stream_cancelled_after_its_first_answer_is_forgotten(server, client):
    talk = Conversation(client)
    assert talk.ask(linear(id="1")).infer_response.id == "1"
    talk.call.cancel()
    with pytest.raises(grpc.RpcError):
        next(talk.call)
    assert talk.call.code() == grpc.StatusCode.CANCELLED
    talk.questions.put(None)
    assert wait_idle(server)
    assert client.infer(linear(), timeout=SECONDS).model_version == "2"


def test_what_runs_out_of_time_ends_in_time_and_is_forgotten(server, client):
    began = time.monotonic()
    assert refused(client.infer, slow(), timeout=0.05)[0] == grpc.StatusCode.DEADLINE_EXCEEDED
    talk = Conversation(client, timeout=0.05)   # nothing is said on it
    with pytest.raises(grpc.RpcError):
        next(talk.call)
    assert talk.call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - began < 5
    talk.questions.put(None)
    assert wait_idle(server)


def test_many_calls_at_once_on_one_connection_get_their_own_answers(server):
    """More than --max-streams allows at once: the rest waits at the caller."""
    with Relay(server.port) as relay, Client(relay.address) as client:
        rows = [np.full((1, 8), number, np.float32) for number in range(1500)]
        calls = [client.infer.future(request("linear", "FP32", row, id=str(number)), timeout=60) for number, row in enumerate(rows)]
        streams = [Conversation(client) for _ in range(100)]
        for number, talk in enumerate(streams):
            assert talk.ask(linear(id=f"s{number}")).infer_response.id == f"s{number}"
        weights = np.arange(32, dtype=np.float32).reshape(8, 4) / 10 * 3
        for number, call in enumerate(calls):
            answer = call.result()
            assert answer.id == str(number)
            assert np.allclose(np.frombuffer(answer.raw_output_contents[0], np.float32), (rows[number] @ weights)[0], rtol=1e-4)
        for talk in streams:
            assert talk.end() == []
        assert relay.connections == 1


def test_pings_are_answered_while_a_stream_is_open_and_while_nothing_is(server):
    """One a second, the most that grpcio sends. It would end the connection if one stayed unanswered, and the server if they were too many for it."""
    pings = {"grpc.keepalive_time_ms": 1000, "grpc.keepalive_timeout_ms": 500, "grpc.keepalive_permit_without_calls": 1,
             "grpc.http2.max_pings_without_data": 0}

    def rest(relay):
        before = list(relay.bytes)
        time.sleep(3.6)
        return [(after - earlier) // 17 for after, earlier in zip(relay.bytes, before, strict=True)]  # a PING has 17 bytes

    with Relay(server.port) as relay, Client(relay.address, **pings) as client:
        assert client.infer(linear(), timeout=SECONDS).model_version == "2"
        sent, answered = rest(relay)
        assert min(sent, answered) >= 2
        talk = Conversation(client)
        assert talk.ask(linear(id="1")).infer_response.id == "1"
        sent, answered = rest(relay)
        assert min(sent, answered) >= 2
        assert talk.ask(linear(id="2")).infer_response.id == "2"
        assert talk.end() == []
        assert relay.connections == 1


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A server that takes 1 MiB and 8 KiB of headers."""
    registry = tmp_path_factory.mktemp("small") / "registry"
    models.linear(registry)
    models.identity(registry, "UINT8")
    with ServerProcess(registry, "--max-body-mib", "1", "--max-header-kib", "8") as process:
        yield process


def of_size(bytes_):
    return request("identity_uint8", "UINT8", np.zeros((bytes_ // 3, 3), np.uint8))


def test_errors_of_every_kind_leave_the_connection_to_the_next_call(small):
    with Relay(small.port) as relay, Client(relay.address) as client:
        assert refused(client.infer, linear(model_version="9"))[0] == grpc.StatusCode.NOT_FOUND
        assert refused(client.infer, request("linear", "FP64", ROWS))[0] == grpc.StatusCode.INVALID_ARGUMENT
        assert refused(client.channel.unary_unary(SERVICE + "ModelInfer"), b"\xff\xff")[0] == grpc.StatusCode.INVALID_ARGUMENT
        assert refused(client.channel.unary_unary(SERVICE + "Unheard"), b"")[0] == grpc.StatusCode.UNIMPLEMENTED
        assert refused(client.infer, of_size(2 * MIB))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.infer(linear(), timeout=SECONDS).model_version == "1"
        assert relay.connections == 1


def test_a_message_over_the_limit_is_refused_and_one_below_it_is_taken_after_it(small):
    with Relay(small.port) as relay, Client(relay.address) as client:
        for _ in range(3):
            assert refused(client.infer, of_size(16 * MIB)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "the message is larger than the server's limit")
            assert len(client.infer(of_size(MIB - 300), timeout=SECONDS).raw_output_contents[0]) > MIB - 400
        assert relay.connections == 1


def test_a_message_over_the_limit_on_a_stream_ends_it_with_the_reason(small):
    with Client(small.address) as client:
        talk = Conversation(client)
        assert talk.ask(linear(id="1")).infer_response.id == "1"
        talk.questions.put(of_size(2 * MIB))
        with pytest.raises(grpc.RpcError):
            next(talk.call)
        talk.questions.put(None)
        assert talk.call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_at_the_limit_is_taken_and_beyond_it_ends_the_call_alone(small):
    """8 KiB as HTTP/2 counts them: names and values, and 32 bytes for each."""
    unlimited = {"grpc.max_metadata_size": MIB, "grpc.absolute_max_metadata_size": MIB}
    with Relay(small.port) as relay, Client(relay.address, **unlimited) as client:
        around = Conversation(client)
        assert around.ask(linear(id="before")).infer_response.id == "before"
        assert client.infer(linear(), timeout=SECONDS, metadata=[("fill", "a" * 7000)]).model_version == "1"
        assert client.infer(linear(), timeout=SECONDS, metadata=[(f"fill-{n}", "a" * 60) for n in range(60)]).model_version == "1"
        for metadata in ([("fill", "a" * 8200)], [("fill-bin", bytes(7000))], [(f"fill-{n}", "") for n in range(300)]):
            assert refused(client.infer, linear(), metadata=metadata)[0] in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL), metadata
            assert client.infer(linear(), timeout=SECONDS).model_version == "1"
        assert around.ask(linear(id="after")).infer_response.id == "after"
        assert around.end() == []
        assert relay.connections == 1


def test_callers_that_vanish_take_nothing_with_them(server):
    """Connections that are cut in the middle of calls and streams."""
    def vanish(number):
        with Relay(server.port) as relay, Client(relay.address) as client:
            talk = Conversation(client)
            talk.ask(linear(id="1"))
            client.infer.future(slow(), timeout=SECONDS)
            talk.questions.put(None if number % 2 else linear())

    with Client(server.address) as other, ThreadPoolExecutor(8) as pool:
        cut = [pool.submit(vanish, number) for number in range(16)]
        for number in range(50):
            assert other.infer(linear(id=str(number)), timeout=SECONDS).id == str(number)
        for one in cut:
            one.result()
    assert wait_idle(server, 60)
    assert in_flight(server) == 0

