"""An HTTP/2 connection: gRPC and REST calls on many streams, any answer at any time, however it is cut.

The first four bytes of an input seed what else happens to the connection (fuzz.drive); frames follow. The preface is put before them, but
where the first byte is 0.
"""

import gzip
import random
import struct

import hpack

from fuzz import drive, inputs

WORDS = (*(path.encode() for path, _ in inputs.CALLS), b"application/grpc", b"application/json", b"grpc-encoding", b"gzip", b"grpc-timeout",
         b"content-encoding",
         b"1S", b"1n", b"99999999H", b"content-length", b"te", b"trailers", b":method", b":path", b"\x83\x86", b"\x82\x86\x84", b"\x41\x01x",
         b"\x3f\xe1\x1f",
         struct.pack(">HI", 4, 0), struct.pack(">HI", 4, 2**31 - 1), struct.pack(">HI", 1, 0), struct.pack(">HI", 5, 1 << 14),
         b"\x00\x00\x00\x00\x05hello")
SETTINGS = (inputs.SETTINGS, 0, 0, b"")


def whole(plan, frames):
    return plan + b"".join(inputs.packed(*frame) for frame in frames)


def request(stream, path, content_type, body, *more):
    headers = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "x"), ("content-type", content_type), *more]
    return [(inputs.HEADERS, inputs.END_HEADERS, stream, hpack.Encoder().encode(headers)), (inputs.DATA, inputs.END_STREAM, stream, body)]


def seeds():
    """Every call with every body's kind; packed bodies; streams that are reset, starved, or left open."""
    for number, (path, content_type) in enumerate(inputs.CALLS):
        yield whole(b"abc%d" % (number % 10), [SETTINGS, *request(1, path, content_type, inputs.BODIES[number % len(inputs.BODIES)])])
    for number, header in enumerate(inputs.EXTRA_HEADERS):
        yield whole(b"def%d" % (number % 10), [SETTINGS, *request(1, inputs.INFER_PATH, "application/grpc", inputs.message(b"hello"), header)])
    packed = gzip.compress(b"0" * 50_000, mtime=0)
    yield whole(b"gzip", [SETTINGS, *request(1, inputs.INFER_PATH, "application/grpc", inputs.message(packed, 1), ("grpc-encoding", "gzip"))])
    yield whole(b"gzip", [SETTINGS, *request(1, "/v2/models/m/infer", "application/json", packed, ("content-encoding", "gzip"))])
    several = [frame for stream in (1, 3, 5) for frame in request(stream, inputs.STREAM_PATH, "application/grpc", inputs.message(b"a") * 3)]
    yield whole(b"many", [SETTINGS, *several, (inputs.RST_STREAM, 0, 3, struct.pack(">I", 8)), (inputs.PING, 0, 0, bytes(8))])
    yield whole(b"slow", [(inputs.SETTINGS, 0, 0, struct.pack(">HI", 4, 0)), *several, (inputs.WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)),
                          (inputs.GOAWAY, 0, 0, bytes(8))])
    for seed in range(20):
        rng = random.Random(seed)
        frames = [frame for stream in range(1, 7, 2) for frame in inputs.call(rng, hpack.Encoder(), stream)]
        yield whole(b"rnd%d" % (seed % 10), [SETTINGS, *frames])


def split(data):
    """The frames of a stream; the last one may be cut."""
    frames = []
    while len(data) >= 9:
        size = int.from_bytes(data[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", data[3:9])
        frames.append((kind, flags, stream, data[9:9 + size]))
        data = data[9 + size:]
    return frames


def mutate(data, max_size, seed, mutate_bytes):
    """Mutates frame by frame, so that lengths stay right and heads can be read."""
    rng = random.Random(seed)
    frames = split(data[4:])
    if not frames or rng.random() < 0.2:
        return mutate_bytes(data, max_size)
    at = rng.randrange(len(frames))
    kind, flags, stream, payload = frames[at]
    match rng.randrange(6):
        case 0:
            inputs.break_frame(rng, frames)
        case 1:
            frames[at:at] = inputs.call(rng, hpack.Encoder(), rng.choice((1, stream, stream + 2, 3, 5)) & 0x7FFFFFFF)
        case 2 if len(payload) > 1:     # in two frames
            cut = rng.randrange(len(payload))
            after = inputs.CONTINUATION if kind in (inputs.HEADERS, inputs.CONTINUATION) else kind
            open_ = flags & ~inputs.END_HEADERS & ~inputs.END_STREAM
            frames[at:at + 1] = [(kind, open_, stream, payload[:cut]), (after, flags, stream, payload[cut:])]
        case 3:
            frames[at] = kind, flags ^ 1 << rng.randrange(8), stream, payload
        case _:
            frames[at] = kind, flags, stream, bytes(mutate_bytes(payload, len(payload) + 64)) if payload else rng.randbytes(rng.randrange(20))
    plan = bytes(mutate_bytes(data[:4], 4)) if rng.random() < 0.1 else data[:4]
    return whole(plan.ljust(4, b"a"), frames)[:max_size]


def check(data):
    """One connection, from its first byte until nothing of it is left."""
    plan = data[:4]
    stream = data[4:] if plan[:1] == b"\0" else inputs.PREFACE + data[4:]
    drive.play(inputs.Case(True, stream, random.Random(plan)))
    drive.check_pieces(inputs.Case(True, stream, random.Random(plan)))
