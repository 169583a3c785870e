"""Requests to models that have all a route may have: weights, rules, shadows, fallbacks, breakers, feedback tokens; by sockets, to a data plane.

python -m fuzz.routed SEED FIRST_RUN SECONDS PROGRESS_FILE. Run n of a seed always sends the same; threads do as they like.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import mmap
import random
import socket
import struct
import sys
import tempfile
import time
from pathlib import Path

import hpack
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from batchmill.app import make_server
from batchmill.backends import Tuning
from batchmill.config import ServerConfig
from batchmill.core import feedback_token, ort, shadow_figures
from batchmill.core.route_table import RouteEntry
from batchmill.core.router import Version
from e2e import models
from fuzz import inputs
from reference import proto

pb = proto.Messages()
WAIT_SECS = 20
SETTINGS = {"max_pending_bytes": 1 << 20, "max_cpu": 0.0, "rtol": 1e-3, "atol": 1e-5, "by_argmax": False, "keep": 4, "redact": False, "paired": True}
ALWAYS = ("unavailable", "error", "invalid")
CONSTANT = ((b"y", b"FP32", (1, 1), struct.pack("<f", -1)),)
NAMES, VALUES = ("x-tenant", "X-Region", "x-route-key"), ("gold", "lead", "", "é", "g" * 256, "g" * 300)
TEXTS = ("tenant", "route_key", "label", "fallback", "feedback_token", "x" * 300)
SHAPES, WIDE_SHAPES = ([1], [1], [3], [70], [0], [1 << 40, 0], [2, 1], [-1]), ([1, 2], [2, 1], [1 << 40, 0], [0, 1 << 40], [3, 0])


class Plane:
    """A started server. count/1 looks up 100 numbers, count/2 two, so that others fail there; so does wide, whose rows may have no elements."""

    def __init__(self, folder: Path) -> None:
        ort.initialise()
        feedback_token.set_key(bytes(range(16)))
        self.server = make_server(ServerConfig(io_threads=1, executor_threads=1, max_pending_mib=8))
        self.versions = [
            *(version_of("count", number, models.table(folder, "count", number, size)) for number, size in (("1", 100), ("2", 2), ("3", 100))),
            version_of("other", "7", models.table(folder, "other", "7", 100)),
            version_of("wide", "2", models.table(folder, "wide", "2", 2, ["n", "k"])),
        ]
        self.port = self.server.listen("127.0.0.1", 0)
        self.epoch = 0
        self.server.start()

    def publish(self, rng: random.Random) -> None:
        """Another route; now and then its candidate begins anew, or versions are gone."""
        self.epoch += rng.random() < 0.2
        *count, other, wide = self.versions
        ready = count if rng.random() < 0.8 else count[:1]
        steps = [(ALWAYS, "1", "", (), "version 1"), (ALWAYS, "", "other", (), "model other"), (ALWAYS, "", "", CONSTANT, "constant")]
        rules = [(True, "x-tenant", "gold", "1"), (True, "x-region", "g" * 256, "2"), (False, "tenant", "gold", "1"), (False, "tenant", "lead", "9")]
        shares = rng.choice(((), ((5000, "1"), (10_000, "2")))) if ready is count else ()
        fallbacks = rng.sample(steps, rng.randrange(4))
        shadows = [(number, share, self.epoch, SETTINGS) for number, share in (("3", 10_000), ("1", 5000))]
        self.server.publish([
            RouteEntry("count", ready, rng.choice((*ready, None)), {"stable": "1"}, shares=shares, rules=rng.sample(rules, rng.randrange(5)),
                       shadows=shadows[:rng.randrange(3)], generation=rng.randrange(1 << 32), fallbacks=fallbacks),
            RouteEntry("other", [other], other), RouteEntry("wide", [wide], wide, fallbacks=steps[2:]),
        ])

    def wait(self, done) -> None:
        end = time.monotonic() + WAIT_SECS
        while not done():
            assert time.monotonic() < end, (self.server.stats(), [(version.name, version.version, version.leases) for version in self.versions])
            time.sleep(0.0005)

    def is_at_rest(self) -> bool:
        """Whether nothing of what was asked is left anywhere."""
        figures = [shadow_figures.stats_of(version) for version in self.versions]
        return (self.server.idle() and not self.server.stats()["pending_bytes"] and not any(version.leases for version in self.versions)
                and not any(figure and figure["pending"] for figure in figures))


def version_of(name: str, number: str, path: Path) -> Version:
    version = Version(name, number, ort.Model(str(path)), batched=True, fast_ok=name == "count")
    tuning = Tuning(max_batch_size=8, instances=2, feedback=True, breaker_failures=0.9 if number == "2" else 0.0, breaker_min_requests=8,
                    breaker_open_s=0.05, breaker_invalid=True)
    version.tune(**dataclasses.asdict(tuning))
    return version


# What callers send.
def tensor(rng: random.Random, model: str) -> tuple[str, str, list[int], np.ndarray]:
    shape = rng.choice(WIDE_SHAPES if model == "wide" else SHAPES)
    return "i", "INT64", shape, np.array([rng.choice((0, 1, 50, 50, 500)) for _ in range(abs(int(np.prod(shape))))], np.int64)


def texts(rng: random.Random) -> dict[str, str]:
    return {rng.choice(TEXTS): rng.choice(VALUES) for _ in range(rng.choice((0, 0, 1, 3)))}


def headers(rng: random.Random) -> list[tuple[str, str]]:
    return [(rng.choice(NAMES), rng.choice(VALUES)) for _ in range(rng.choice((0, 1, 2)))] + rng.choice(([], [], [("x-request-timeout-ms", "1")]))


def grpc_message(rng: random.Random, model: str) -> bytes:
    name, datatype, shape, values = tensor(rng, model)
    message = pb.ModelInferRequest(model_name=rng.choice((model, model, "count@stable")), model_version=rng.choice(("", "", "", "2", "9")),
                                   id=rng.choice(("", "a")), raw_input_contents=[values.tobytes()],
                                   inputs=[{"name": name, "datatype": datatype, "shape": shape}])
    for key, text in texts(rng).items():
        message.parameters[key].string_param = text
    message.parameters["binary_data_output"].bool_param = rng.random() < 0.8
    return inputs.message(message.SerializeToString())


def rest_body(rng: random.Random, model: str) -> bytes:
    name, datatype, shape, values = tensor(rng, model)
    given = {"name": name, "datatype": datatype, "shape": shape, "data": values.tolist()}
    return json.dumps({"id": "a", "parameters": texts(rng), "inputs": [given]}).encode()


def http1(rng: random.Random) -> bytes:
    model, data = rng.choice(("count", "count", "wide")), b""
    for _ in range(rng.randrange(1, 5)):
        body = rest_body(rng, model)
        path = f"/v2/models/{model}{rng.choice(('', '', '', '/versions/2', '/labels/stable'))}/infer"
        lines = [("Host", "x"), ("Content-Length", len(body)), *headers(rng)]
        data += f"POST {path} HTTP/1.1\r\n".encode() + "".join(f"{key}: {value}\r\n" for key, value in lines).encode() + b"\r\n" + body
    return data


def http2(rng: random.Random) -> bytes:
    encoder, frames = hpack.Encoder(), [(inputs.SETTINGS, 0, 0, b"")]
    for stream in range(1, 2 * rng.randrange(1, 6), 2):
        model = rng.choice(("count", "count", "wide"))
        path, kind, body = rng.choice((
            (inputs.INFER_PATH, "application/grpc", grpc_message(rng, model)),
            (inputs.STREAM_PATH, "application/grpc", b"".join(grpc_message(rng, model) for _ in range(3))),
            (f"/v2/models/{model}/infer", "application/json", rest_body(rng, model))))
        block = encoder.encode([(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "x"), ("content-type", kind),
                                *((key.lower(), value) for key, value in headers(rng))])
        frames += [(inputs.HEADERS, inputs.END_HEADERS, stream, block), (inputs.DATA, inputs.END_STREAM, stream, body)]
        if rng.random() < 0.1:
            frames.append((inputs.RST_STREAM, 0, stream, struct.pack(">I", 8)))
    return inputs.PREFACE + b"".join(inputs.packed(*frame) for frame in frames)


def sent(rng: random.Random) -> bytes:
    data = http2(rng) if rng.random() < 0.5 else http1(rng)
    return data if rng.random() < 0.7 else inputs.mutated(rng, data, inputs.HTTP1_WORDS, rng.randrange(1, 4))


def play(plane: Plane, seed: int, run: int) -> bytes:
    """One connection. What it was answered."""
    rng, got = random.Random(f"{seed}/{run}"), b""
    if run % 25 == 0:
        plane.publish(rng)
    data, stays = sent(rng), rng.random() < 0.8
    answered = sum(plane.server.stats()["requests"].values())
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", plane.port)) as connection:
        connection.settimeout(0.002)
        connection.sendall(data)
        while stays:        # until nothing comes any more
            try:
                part = connection.recv(1 << 16)
            except TimeoutError:
                if plane.server.idle():
                    break
                continue
            got += part
            stays = part != b""
    plane.wait(plane.server.idle)
    assert sum(plane.server.stats()["requests"].values()) >= answered
    return got


def main(seed: int, first: int, seconds: float, path: str) -> None:
    end, run, answers = time.monotonic() + seconds, first, b""
    with tempfile.TemporaryDirectory() as folder, open(path, "r+b") as file, mmap.mmap(file.fileno(), 8) as progress:
        plane = Plane(Path(folder))
        plane.publish(random.Random(f"{seed}/route"))
        while run == first or time.monotonic() < end:
            progress[:] = struct.pack("<q", run)
            answers = answers[-1 << 20:] + play(plane, seed, run)
            if run % 50 == 0:
                plane.wait(plane.is_at_rest)
            run += 1
        plane.wait(plane.is_at_rest)
        plane.server.stop()
    reached = {name: name.encode() in answers for name in ("constant", "version 1", "model other", "feedback_token")}
    print(f"{run - first} runs of seed {seed}, none failed; answers named {reached}")
    assert run - first < 500 or all(reached.values()), "routes were not reached"


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
