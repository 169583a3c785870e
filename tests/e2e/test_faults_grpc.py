"""What gRPC callers get wrong, by mistake or not (faults D): a status that names it, and nobody else notices."""

from __future__ import annotations

import struct
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from reference import proto
from reference.processes import wait_until

from .faults import INFER, OWN, assert_harmless, attacked, element, infer_message, settled

SERVICE = "/inference.GRPCInferenceService/"
STREAM = f"{SERVICE}ModelStreamInfer"
STATUS_TEXT_MOST = 16 << 10     # of all trailers together; beyond it a client sees RESOURCE_EXHAUSTED of its own
INVALID, NOT_FOUND, UNIMPLEMENTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED
READERS = ["ModelMetadata", "ModelConfig", "ModelStatistics", "ModelReady"]
GOOD = infer_message("linear", "x", "FP32", [1, 8], bytes(32))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with attacked(tmp_path_factory.mktemp("grpc")) as process:
        yield process


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.address, [*OWN, ("grpc.max_send_message_length", -1), ("grpc.max_metadata_size", 4 << 20)]) as made:
        yield made


def refused(channel, method, sent, *codes, piece=""):
    """The text of the refusal, after all rules for refusals have been held against it."""
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(sent if isinstance(sent, bytes) else sent.SerializeToString(), timeout=20)
    error = caught.value
    assert error.code() in (codes or (INVALID,)), error.details()
    assert piece in error.details()
    assert_harmless(error.details())
    assert len(error.details()) + sum(len(key) + len(value) for key, value in error.trailing_metadata()) < STATUS_TEXT_MOST
    return error.details()


def deep(levels):
    """Field 4 in field 4 in field 4."""
    message = b""
    for _ in range(levels):
        message = b"\x22" + varint(len(message)) + message
    return message


def varint(number):
    told = b""
    while number > 127:
        told += bytes([number & 127 | 128])
        number >>= 7
    return told + bytes([number])


WHOLE = GOOD.SerializeToString()
NO_MESSAGE = {
    "garbage": b"\xff" * 40, "cut": WHOLE[:-7], "wire type 7": b"\x0f\x01", "wire type 6": b"\x0e", "50k group tags": b"\x0b" * 50_000, "endless varint": b"\x80" * 20,
    "length past the end": b"\x0a\x7f", "length of 2^63": b"\x0a" + b"\xff" * 8 + b"\x7f", "length of 2^64-1": b"\x0a" + b"\xff" * 9 + b"\x01", "field 0": b"\x02\x00",
}


@pytest.mark.parametrize("sent", NO_MESSAGE.values(), ids=NO_MESSAGE)
def test_bytes_that_are_no_message_are_refused(channel, sent):
    refused(channel, INFER, sent)
    for method in READERS:
        if sent is not NO_MESSAGE["cut"]:       # the first fields of such a request are a name and a version, too
            refused(channel, SERVICE + method, sent, INVALID)


@pytest.mark.parametrize("method", [INFER, *(SERVICE + name for name in READERS)])
def test_2000_levels_are_refused_or_passed_over_as_an_unknown_field_is(channel, method):
    sent = WHOLE[:8] + deep(2000)
    if method == INFER:
        refused(channel, method, sent)
    else:
        assert channel.unary_unary(method)(sent, timeout=20)


@pytest.mark.parametrize("field", ["model_name", "model_version", "id"])
def test_a_string_that_is_no_utf8_is_refused(channel, field):
    """Also an id, which would come back in an answer that no client can read."""
    tag = {"model_name": b"\x0a", "model_version": b"\x12", "id": b"\x1a"}[field]
    refused(channel, INFER, WHOLE + tag + b"\x02\xff\xfe", INVALID, NOT_FOUND)


@pytest.mark.parametrize(("sent", "code"), [(b"", NOT_FOUND), (infer_message("linear", "x", "FP32", [1, 8]), INVALID),
                                            (proto.message("ModelInferRequest")(model_name="linear"), INVALID)], ids=["nothing", "no data", "no inputs"])
def test_an_empty_message_and_one_without_inputs_are_refused(channel, sent, code):
    refused(channel, INFER, sent, INVALID, code)


@pytest.mark.parametrize("version", ["9", "1.5", " 1", "1 ", "01", "+1", "-1", "١", "../1", "1\0", "1" + "0" * 40, "stable", "1\r\n"])
@pytest.mark.parametrize("method", ["ModelInfer", *READERS])
def test_what_is_no_version_is_refused(channel, version, method):
    sent = infer_message("linear", "x", "FP32", [1, 8], bytes(32))
    sent.model_version = version
    refused(channel, SERVICE + method, sent if method == "ModelInfer" else proto.message(f"{method}Request")(name="linear", version=version), INVALID, NOT_FOUND)


@pytest.mark.parametrize("name", ["nobody", "", "../linear", "linear/1", "linear\0", "linear@nothing", "@", "m" * 10**6, "ü" * 10**6, "\r\n\x1b[31m", "%s%n", "\U0001f600" * 300],
                         ids=lambda name: repr(name[:20]))
@pytest.mark.parametrize("method", ["ModelInfer", *READERS, "RepositoryModelLoad", "RepositoryModelUnload"])
def test_an_unknown_model_is_not_found_and_its_name_is_cut(channel, name, method):
    if method == "ModelStatistics" and not name:
        return      # all of them
    message = proto.message(f"{method}Request")
    sent = infer_message(name, "x", "FP32", [1, 8], bytes(32)) if method == "ModelInfer" else message(**{"model_name" if method.startswith("Repo") else "name": name})
    refused(channel, SERVICE + method, sent, NOT_FOUND, INVALID)


@pytest.mark.parametrize("name", ["m" * 10**6, "\r\n\x1b[31m", "nobody"], ids=lambda name: repr(name[:20]))
def test_health_of_an_unknown_service_is_not_found(channel, name):
    refused(channel, "/grpc.health.v1.Health/Check", b"\x0a" + varint(len(name.encode())) + name.encode(), NOT_FOUND)


@pytest.mark.parametrize("shape", [
    [-1, 8], [1, -8], [], [8], [1, 1, 8], [1, 7], [2, 8], [0, 0], [2**62 + 1, 8], [2**62, 4], [2**60 + 2, 16], [2**63 - 1, 8], [-(2**63), 8], [1] * 100_000,
], ids=lambda shape: str(shape)[:24])
def test_a_wrong_shape_is_refused_before_anything_is_allocated_for_it(channel, shape):
    refused(channel, INFER, infer_message("linear", "x", "FP32", shape, bytes(32)), piece="shape")


@pytest.mark.parametrize(("datatype", "piece"), [("FP31", '"FP31"'), ("fp32", '"fp32"'), ("", "datatype"), ("FP64", "FP64 given, FP32 wanted"), ("F" * 10**6, "datatype"), ("FP32\0", "datatype")],
                         ids=lambda text: text[:12])
def test_a_wrong_datatype_is_told(channel, datatype, piece):
    refused(channel, INFER, infer_message("linear", "x", datatype, [1, 8], bytes(32)), piece=piece)


@pytest.mark.parametrize("raw", [[], [bytes(31)], [bytes(33)], [b""], [bytes(32), bytes(32)], [bytes(32)] * 65, [bytes(64)]], ids=lambda raw: str([len(part) for part in raw])[:30])
def test_raw_contents_that_do_not_fit_are_refused(channel, raw):
    refused(channel, INFER, infer_message("linear", "x", "FP32", [1, 8], *raw))


def typed(model, datatype, shape, **contents):
    return proto.message("ModelInferRequest")(model_name=model, inputs=[{"name": "x", "datatype": datatype, "shape": shape, "contents": contents}])


@pytest.mark.parametrize(("model", "datatype", "contents"), [
    ("identity_int8", "INT8", {"int_contents": [300, 0, 0]}), ("identity_int8", "INT8", {"int_contents": [-129, 0, 0]}), ("identity_int16", "INT16", {"int_contents": [40_000, 0, 0]}),
    ("identity_uint8", "UINT8", {"uint_contents": [256, 0, 0]}), ("identity_uint16", "UINT16", {"uint_contents": [65_536, 0, 0]}),
    ("identity_int8", "INT8", {"uint_contents": [1, 2, 3]}), ("identity_int64", "INT64", {"int_contents": [1, 2, 3]}), ("identity_fp32", "FP32", {"fp64_contents": [1, 2, 3]}),
    ("identity_fp32", "FP32", {"fp32_contents": [1, 2]}), ("identity_fp32", "FP32", {"fp32_contents": [1, 2, 3, 4]}), ("identity_fp32", "FP32", {}),
    ("identity_fp32", "FP32", {"fp32_contents": [1, 2, 3], "bytes_contents": [b"x"]}), ("identity_fp16", "FP16", {"fp32_contents": [1, 2, 3]}),
    ("identity_bytes", "BYTES", {"bytes_contents": [b"x"]}), ("identity_bool", "BOOL", {"int_contents": [1, 0, 1]}),
])  # fmt: skip
def test_typed_contents_that_do_not_fit_are_refused_and_never_wrapped(channel, model, datatype, contents):
    refused(channel, INFER, typed(model, datatype, [1, 3], **contents))


def test_raw_and_typed_contents_in_one_request_are_refused(channel):
    sent = typed("identity_fp32", "FP32", [1, 3], fp32_contents=[1, 2, 3])
    sent.raw_input_contents.append(bytes(12))
    refused(channel, INFER, sent, piece="must not be specified when using raw_input_contents")


def with_tensors(inputs=("x",), outputs=()):
    made = proto.message("ModelInferRequest")(model_name="linear", raw_input_contents=[bytes(32)] * len(inputs))
    for name in inputs:
        made.inputs.add(name=name, datatype="FP32", shape=[1, 8])
    for name in outputs:
        made.outputs.add(name=name)
    return made


@pytest.mark.parametrize(("sent", "piece"), [
    (with_tensors(["z"]), "missing"), (with_tensors(["x", "x"]), "twice"), (with_tensors(["x", "z"]), "no such input"), (with_tensors([""]), "missing"),
    (with_tensors([str(n) for n in range(10_000)]), "more than"), (with_tensors(["y" * 10**6]), "missing"),
    (with_tensors(outputs=["z"]), "no such output"), (with_tensors(outputs=["y", "y"]), "twice"), (with_tensors(outputs=["y" * 10**6]), "no such output"),
    (with_tensors(outputs=[str(n) for n in range(10_000)]), "more than"), (with_tensors(outputs=["\r\n\x1b"]), "no such output"),
], ids=["unknown", "twice", "extra", "no name", "10,000 inputs", "1 MB name", "unknown output", "output twice", "1 MB output", "10,000 outputs", "control characters"])
def test_other_tensors_than_the_models_are_refused(channel, sent, piece):
    refused(channel, INFER, sent, piece=piece)


@pytest.mark.parametrize("payload", [
    struct.pack("<I", 7) + b"abc", struct.pack("<I", 2**32 - 1) + b"abc", b"\1\0\0", b"", element(b"a"), element(b"a") * 3, element(b"a") + struct.pack("<I", 2), element(b"a") * 2 + b"\0",
], ids=lambda payload: payload[:12].hex())
def test_bytes_whose_lengths_do_not_fill_the_shape_are_refused(channel, payload):
    refused(channel, INFER, infer_message("texts", "x", "BYTES", [2], payload))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\0b", b"\0", b"", bytes(range(256)), b"x" * 100_000], ids=lambda content: content[:8].hex())
def test_bytes_come_back_exactly(channel, content):
    answer = proto.message("ModelInferResponse")
    raw = element(content) + element(b"other")
    got = answer.FromString(channel.unary_unary(INFER)(infer_message("texts", "x", "BYTES", [2], raw).SerializeToString(), timeout=20))
    assert got.raw_output_contents[0] == raw
    got = answer.FromString(channel.unary_unary(INFER)(typed("texts", "BYTES", [2], bytes_contents=[content, b"other"]).SerializeToString(), timeout=20))
    assert got.raw_output_contents[0] == b"".join(struct.pack("<I", len(one)) + one for one in (content, b"other"))


@pytest.mark.parametrize(("model", "wish"), [("zeros", [2**40]), ("zeros", [2**63 - 1]), ("zeros", [-1]), ("plane", [2**40, 2**40]), ("plane", [2**62 + 1, 4])], ids=str)
def test_a_small_request_for_a_huge_result_is_an_error_and_costs_nothing(channel, model, wish):
    raw = np.array(wish, np.int64).tobytes()
    no_memory = grpc.StatusCode.RESOURCE_EXHAUSTED
    refused(channel, INFER, infer_message(model, "n", "INT64", [len(wish)], raw), no_memory if wish == [2**40] else INVALID, piece="ConstantOfShape node")


@pytest.mark.parametrize("method", [
    "/nowhere", "/nowhere/Nothing", "/inference.GRPCInferenceService/Nothing", "/inference.grpcinferenceservice/ModelInfer", "/inference.GRPCInferenceService/ModelInfer/", "/a/b/c",
    "/inference.GRPCInferenceService/modelInfer", "/" + "s" * 20_000 + "/M", "/inference.GRPCInferenceService/../x/ModelInfer", "/%00/%ff", "/tensorflow.serving.PredictionService/Nothing",
], ids=lambda method: method[:40])
def test_an_unknown_method_is_unimplemented(channel, method):
    refused(channel, method, WHOLE, UNIMPLEMENTED)


def rows_of(server, model):
    text = server.get("/metrics")[1].decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("batchmill_rows_total{") and f'model="{model}"' in line)


SLOW = infer_message("slow", "x", "FP32", [1, 256, 256], bytes(256 * 256 * 4)).SerializeToString()


def test_a_deadline_of_100_us_is_exceeded_and_its_place_is_free_again(server, channel):
    for _ in range(20):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(INFER)(SLOW, timeout=0.0001)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    settled(server, 4)


def test_200_cancelled_at_once_are_dropped_before_their_work_has_begun(server, channel):
    before = rows_of(server, "slow")
    calls = [channel.unary_unary(INFER).future(SLOW, timeout=60) for _ in range(200)]
    wait_until(lambda: b'batchmill_queue_rows{model="slow",version="1"} 0\n' not in server.get("/metrics")[1])
    for call in calls:
        call.cancel()
    # Who would have had to wait for over two seconds was refused at once.
    assert {call.code() for call in calls} <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    settled(server, 4)
    wait_until(lambda: b'batchmill_queue_rows{model="slow",version="1"} 0\n' in server.get("/metrics")[1])
    assert rows_of(server, "slow") - before < 100


@pytest.mark.parametrize(("metadata", "codes"), [
    ([(f"x{n}", "y" * 1000) for n in range(40)], "RESOURCE_EXHAUSTED"), ([(f"x{n}", "y" * 1000) for n in range(1000)], "RESOURCE_EXHAUSTED"),
    ([("x", "y" * 10**6)], "RESOURCE_EXHAUSTED UNAVAILABLE"), ([("x-bin", bytes(10**6))], "RESOURCE_EXHAUSTED UNAVAILABLE"),
], ids=["forty of 1 KB", "a thousand of 1 KB", "one of 1 MB", "binary"])  # fmt: skip
def test_too_much_metadata_is_refused(channel, metadata, codes):
    """One value over 64 KiB is more than the HTTP/2 library decodes: it ends the connection, and the client makes another."""
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(INFER)(WHOLE, metadata=metadata, timeout=20)
    assert caught.value.code().name in codes.split()
    assert channel.unary_unary(INFER)(WHOLE, timeout=20, wait_for_ready=True)


def test_a_stream_goes_on_after_a_bad_message(channel):
    bad = [infer_message("linear", "x", "FP32", [1, 7], bytes(28)), infer_message("nobody", "x", "FP32", [1, 8], bytes(32))]
    sent = [WHOLE, bad[0].SerializeToString(), WHOLE, b"\xff" * 9, WHOLE, bad[1].SerializeToString(), WHOLE]
    answers = [proto.message("ModelStreamInferResponse").FromString(one) for one in channel.stream_stream(STREAM)(iter(sent), timeout=20)]
    assert [bool(one.error_message) for one in answers] == [False, True] * 3 + [False]
    assert all(len(one.infer_response.outputs) == 1 for one in answers[::2])
    for one in answers[1::2]:
        assert_harmless(one.error_message)


def test_many_bad_requests_at_once_are_told_as_one_is(channel):
    sent = [infer_message("lookup", "i", "INT64", [1], struct.pack("<q", number % 20)).SerializeToString() for number in range(200)]

    def code_of(one):
        try:
            channel.unary_unary(INFER)(one, timeout=20)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(code_of, sent)) == [grpc.StatusCode.OK if number % 20 < 10 else INVALID for number in range(200)]
    assert time.monotonic() - started < 20
