"""What clients may send to a connection: the requests of the tests, joined and mutated. Run n of a seed is always the same."""

import random
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import hpack

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "core"))
from test_http1 import CHUNKED, COLD, HEALTH, INFER
from test_http2 import INFER as INFER_PATH
from test_http2 import STREAM as STREAM_PATH
from test_http2 import frame as message

HTTP1_REQUESTS = (
    INFER, CHUNKED, COLD, HEALTH,
    INFER.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\nInference-Header-Content-Length: 3\r\n\r\n"),
    INFER.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n"),
    COLD.replace(b"GET", b"HEAD"), COLD.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 2\r\n\r\nab"),
    b"GET /v2/models/%6d/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
)
HTTP1_WORDS = (
    b"\r\n", b"\r", b"\n", b"\r\n\r\n", b" ", b"\t", b":", b"\x00", b"0\r\n\r\n", b"ffffffffffffffff", b"-1", b"99999999999999999999", b"%00", b"%zz",
    b"HTTP/1.0", b"Host: y\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Content-Encoding: gzip\r\n",
    b"Expect: 100-continue\r\n", b"X-Request-Timeout-Ms: 5\r\n", b"X-Route-Key: k\r\n", b"X-Tenant: gold\r\n", b"X-Region:\r\n",
    b"Inference-Header-Content-Length: 9\r\n",
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4
CALLS = (
    (INFER_PATH, "application/grpc"), (STREAM_PATH, "application/grpc+proto"), ("/inference.GRPCInferenceService/ModelReady", "application/grpc"),
    ("/grpc.health.v1.Health/Check", "application/grpc"), ("/some.Service/Method", "application/grpc"), (INFER_PATH, "text/plain"),
    ("/v2/models/m/infer", "application/json"), ("/v2/models/nobody/ready", ""), ("/v2/health/live", ""), ("/v2?x=1", ""), ("/v2/models/%zz/infer", ""),
)
EXTRA_HEADERS = (
    ("grpc-timeout", "5S"), ("grpc-timeout", "x"), ("grpc-encoding", "gzip"), ("x-request-timeout-ms", "9"), ("x-request-timeout-ms", "-"),
    ("x-route-key", "k"), ("x-tenant", "gold"), ("x-region", "y" * 300),
    ("inference-header-content-length", "3"), ("inference-header-content-length", "x"), ("content-length", "7"),
    ("te", "trailers"), ("x", "y" * 1500), ("x-bin", "\x00\xff"), ("", ""), (":path", "/twice"), ("connection", "close"),
)
BODIES = (
    b"", message(b"hello"), message(b""), message(b"a") + message(b"b"), message(b"\n\x01m\x12\x011"), message(b"x", 1), b"\x00\xff\xff\xff\xff",
    b"\x00\x00", b'{"inputs":[]}', b"z" * 3000,
)


@dataclass
class Case:
    http2: bool
    data: bytes
    rng: random.Random  # decides what else happens to the connection


def case(seed, run):
    rng = random.Random(f"{seed}/{run}")
    http2 = rng.random() < 0.5
    return Case(http2, session(rng) if http2 else requests(rng), rng)


def requests(rng):
    return mutated(rng, b"".join(rng.choices(HTTP1_REQUESTS, k=rng.randrange(1, 6))), HTTP1_WORDS, rng.randrange(5))


def session(rng):
    """The preface and the frames of some calls, a few of them broken."""
    frames = [(SETTINGS, 0, 0, rng.choice((b"", struct.pack(">HI", 4, rng.choice((0, 10, 1 << 20))))))]
    encoder = hpack.Encoder()
    for stream in range(1, 2 * rng.randrange(1, 8), 2):
        frames += call(rng, encoder, stream)
    for _ in range(rng.choice((0, 0, 0, 0, 1, 3))):
        break_frame(rng, frames)
    data = b"".join(packed(*frame) for frame in frames)
    if rng.random() < 0.15:
        data = mutated(rng, data, (), rng.randrange(1, 4))
    return (PREFACE if rng.random() < 0.99 else mutated(rng, PREFACE, (), 1)) + data


def call(rng, encoder, stream):
    path, content_type = rng.choice(CALLS if rng.random() < 0.6 else CALLS[:2])
    headers = [(":method", rng.choice(("POST", "POST", "GET", "HEAD"))), (":path", path), (":scheme", "http"), (":authority", "x"),
               *([("content-type", content_type)] if content_type else []), *rng.sample(EXTRA_HEADERS, rng.choice((0, 0, 0, 0, 0, 0, 1, 3)))]
    block, body = encoder.encode(headers), rng.choice(BODIES)
    end = END_STREAM if not body and rng.random() < 0.8 else 0
    if rng.random() < 0.1:
        frames = [(HEADERS, end, stream, block[:5]), (CONTINUATION, END_HEADERS, stream, block[5:])]
    else:
        frames = [(HEADERS, end | END_HEADERS, stream, block)]
    cut = rng.randrange(len(body) + 1)
    if not end:
        frames += [(DATA, 0, stream, body[:cut]), (DATA, END_STREAM if rng.random() < 0.9 else 0, stream, body[cut:])]
    if rng.random() < 0.1:
        frames.append(rng.choice((
            (RST_STREAM, 0, stream, struct.pack(">I", 8)), (WINDOW_UPDATE, 0, rng.choice((0, stream)), struct.pack(">I", rng.choice((1, 1, 1 << 16, 0, 2**31 - 1)))),
            (PING, 0, 0, bytes(8)), (GOAWAY, 0, 0, bytes(8)), (HEADERS, END_HEADERS | END_STREAM, stream, encoder.encode([("t", "r")])),
        )))
    return frames


def break_frame(rng, frames):
    at = rng.randrange(len(frames))
    kind, flags, stream, payload = frames[at]
    match rng.randrange(7):
        case 0:
            del frames[at:at + (len(frames) > 1)]
        case 1:
            frames.insert(rng.randrange(len(frames) + 1), frames[at])
        case 2:
            other = rng.randrange(len(frames))
            frames[at], frames[other] = frames[other], frames[at]
        case 3:
            frames[at] = rng.randrange(12), flags, stream, payload
        case 4:
            frames[at] = kind, rng.randrange(256), stream, payload
        case 5:
            frames[at] = kind, flags, rng.choice((0, 1, 2, stream + 2, 2**31 - 1)), payload
        case _:
            frames[at] = kind, flags, stream, mutated(rng, payload, (), 1)


def packed(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def mutated(rng, data, words, times):
    data = bytearray(data)
    for _ in range(times):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0 if at < len(data):
                data[at] = rng.randrange(256)
            case 1:
                del data[at:at + rng.randrange(1, 9)]
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 3:
                data[at:at] = data[at:at + rng.randrange(1, 60)]
            case 4 if words:
                data[at:at] = rng.choice(words)
            case 5 if rng.random() < 0.2:
                del data[at:]
    return bytes(data)
