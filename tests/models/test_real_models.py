"""Models of other people, out of their wheels, served from one registry: each answers as ONNX Runtime does in process (make models-test brings them)."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import wheels

from e2e.matrix import Case
from e2e.test_matrix import ENCODINGS, Grpc, Rest, equal

pytestmark = pytest.mark.long
ROUNDS, CLIENTS = 2, 8   # of each encoding two


def wrong_ones(client, asked, fits):
    """What the client is told wrongly, a line each."""
    wrong = []
    for case, feed, wanted in asked:
        got = client.ask(case, feed)
        if len(got) != len(wanted) or not all(fits(case, *pair) for pair in zip(got, wanted, strict=True)):
            wrong.append(f"{case.name} {[array.shape for array in feed.values()]}")
    return wrong


def exactly(case, got, wanted):
    return equal(got, wanted)


def as_promised(case, got, wanted):
    """Bit for bit, but that a batched row may differ by what the proof of batching lets pass."""
    batched, _ = wheels.CHECKED[case.name]
    return equal(got, wanted) or (batched and got.shape == wanted.shape and np.allclose(got, wanted, rtol=1e-4, atol=1e-5))


def test_check_says_which_are_batched_and_why_not_the_rest(registry):
    done = subprocess.run([sys.executable, "-m", "batchmill", "check", str(registry), "--json"], capture_output=True, text=True, check=True)
    lines = {line["model"]: line for line in json.loads(done.stdout)}
    assert {line["state"] for line in lines.values()} == {"ready"}
    said = {name: line["text"].split(": ", 1) for name, line in lines.items()}
    assert {name: (size != "not batched", reason) for name, (size, reason) in said.items()} == wheels.CHECKED


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_client_alone_gets_every_bit(server, asked, encoding):
    assert wrong_ones(ENCODINGS[encoding](server), asked, exactly) == []


def test_clients_of_all_encodings_at_once_get_what_onnx_runtime_answers(server, asked):
    together = threading.Barrier(CLIENTS)

    def work(number):
        client = ENCODINGS[list(ENCODINGS)[number % len(ENCODINGS)]](server)
        order = asked * ROUNDS
        random.Random(number).shuffle(order)
        together.wait()
        return wrong_ones(client, order, as_promised)

    with ThreadPoolExecutor(CLIENTS) as clients:
        assert [*clients.map(work, range(CLIENTS))] == [[]] * CLIENTS


def test_rows_of_several_clients_run_together(server, asked):
    together = threading.Barrier(CLIENTS)
    files = [one for one in asked if one[0].name == "file_type"] * 5
    before = counts(server)

    def work(number):
        client = (Grpc if number % 2 else Rest)(server, bool(number & 2))
        together.wait()
        return wrong_ones(client, files, as_promised)

    with ThreadPoolExecutor(CLIENTS) as clients:
        assert [*clients.map(work, range(CLIENTS))] == [[]] * CLIENTS
    requests, runs = (after - earlier for after, earlier in zip(counts(server), before, strict=True))
    assert requests == CLIENTS * len(files)
    assert runs < requests / 2


def counts(server):
    """Requests and runs of the model that is told files by."""
    (told,) = json.loads(server.get("/v2/models/file_type/stats")[1])["model_stats"]
    return np.array([told["inference_stats"]["success"]["count"], told["execution_count"]])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_state_that_goes_back_and_forth_is_that_of_a_run_in_process(server, sessions, encoding):
    """A voice detector hears 20 windows, and is given its state of the window before, with the sample rate as a scalar."""
    client, sound = ENCODINGS[encoding](server), np.random.default_rng(2).standard_normal((20, 1, wheels.WINDOW)).astype(np.float32)
    context = np.zeros((1, wheels.CONTEXT), np.float32)
    served = alone = np.zeros((2, 1, 128), np.float32)
    for window in sound:
        feed = {"input": np.concatenate([context, window], axis=1), "state": served, "sr": np.array(16000, np.int64)}
        heard, served = client.ask(Case("speech", "", tuple(feed.values()), ()), feed)
        wanted, alone = sessions["speech"].run(None, feed | {"state": alone})
        assert equal(heard, wanted)
        assert equal(served, alone)
        context = window[:, -wheels.CONTEXT:]


def test_a_python_file_is_told_to_be_one(server):
    """End to end: the first and the last 1,024 bytes of this file, as that model wants them, and its own names of the classes."""
    with open(__file__, "rb") as file:
        content = file.read().strip()
    assert len(content) > 1024
    given = np.frombuffer(content[:1024] + content[-1024:], np.uint8).astype(np.int32)[None]
    (scores,) = Grpc(server, False).ask(Case("file_type", "", (given,), ()), {"bytes": given})
    assert wheels.file_types()[int(scores.argmax())] == "python"
