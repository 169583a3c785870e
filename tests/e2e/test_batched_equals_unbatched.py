"""Whatever shares a run with whatever, an answer is what the model gives for these rows alone; and who leaves early leaves nothing behind."""

from __future__ import annotations

import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import onnxruntime
import pytest
from onnx import helper

from reference import proto
from reference.processes import Held, wait_until

from . import models
from .faults import INFER, OWN
from .server import ServerProcess
from .test_batching import counter

CALLERS, AT_ONCE, SECONDS, BATCH = 16, 6, 5, 16
MODELS = ("together", "alone")
KEPT_MOST_KB = 4 << 10      # after a thousand cancels, beside what the thousand before them left
OK, CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED
LATE = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}      # too late, or known to become so


def rowwise(registry, name, rounds=1000):
    """t = x + softmax(t), again and again: FP32 [n, k] -> [n, k]. Each row depends on all of it and on no other; a run takes long enough to queue."""
    nodes = []
    for at in range(rounds):
        nodes.append(helper.make_node("Softmax", [f"t{at}" if at else "x"], [f"s{at}"], axis=1))
        nodes.append(helper.make_node("Add", ["x", f"s{at}"], [f"t{at + 1}" if at < rounds - 1 else "y"]))
    return models.write(registry, name, nodes, [models.value("x", "FP32", ["n", "k"])], [models.value("y", "FP32", ["n", "k"])])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    registry = tmp_path_factory.mktemp("equals") / "registry"
    for name in MODELS:
        rowwise(registry, name)
        batching = f"{{max_batch_size: {BATCH}}}" if name == "together" else "{mode: 'off'}"
        (registry / name / "model.yaml").write_text(f"batching: {batching}\nqueue: {{priority_levels: 3, max_wait_ms: 0}}\ninstances: {{count: 1}}\n")
    with ServerProcess(registry) as running:
        yield running


def questions(server, chance):
    """(rows, what the model says of them in this process)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = onnxruntime.InferenceSession(server.log_path.parent / "registry" / "alone" / "1" / "model.onnx", options)
    shapes = [(rows, width) for rows in (0, 1, 1, 1, 2, 3, 5, 40) for width in (1, 7, 16, 16, 64)]
    asked = [chance.normal(size=shape).astype(np.float32) for shape in shapes * 5]
    return [(rows, model.run(None, {"x": rows})[0] if rows.size else rows) for rows in asked]


def nothing_is_left(server):
    text = server.get("/metrics")[1].decode()
    return all(f"\n{line}\n" in text for line in [
        "batchmill_in_flight_requests 0.0", "batchmill_pending_bytes 0.0",
        *(f'batchmill_{what}{{model="{name}",version="1"}} 0' for name in MODELS for what in ("queue_rows", "queue_requests", "version_in_flight_requests")),
    ])  # fmt: skip


class Caller:
    """Asks several things at once, again and again, and sometimes leaves before the answer."""

    def __init__(self, address, questions, seed):
        self.address, self.questions, self.mind = address, questions, np.random.default_rng(seed)
        self.codes, self.wrong = Counter(), []
        self.runs = 0       # there would have been so many of "together", had nobody shared one

    def run(self, until):
        with grpc.insecure_channel(self.address, OWN) as channel:
            call = channel.unary_unary(INFER)
            while time.monotonic() < until:
                asked = [self.ask(call) for _ in range(AT_ONCE)]
                for future, may_fail, _, _ in asked:
                    if CANCELLED in may_fail:
                        future.cancel()
                for one in asked:
                    self.judge(*one)

    def ask(self, call):
        name, (rows, wanted) = MODELS[self.mind.integers(2)], self.questions[self.mind.integers(len(self.questions))]
        asked = proto.message("ModelInferRequest")(model_name=name, inputs=[{"name": "x", "datatype": "FP32", "shape": rows.shape}])
        asked.raw_input_contents.append(rows.tobytes())
        asked.parameters["priority"].int64_param = int(self.mind.integers(4))
        hurried, leaves = self.mind.random(2) < 0.2
        future = call.future(asked.SerializeToString(), timeout=self.mind.uniform(0.0005, 0.02) if hurried else 30)
        return future, (LATE if hurried else set()) | ({CANCELLED} if leaves else set()), (name, rows.shape), wanted

    def judge(self, future, may_fail, asked, wanted):
        code = future.code()    # once it is there
        self.codes[code] += 1
        if code != OK:
            self.wrong += [] if code in may_fail else [(asked, code, future.details())]
            return
        name, (rows, _) = asked
        self.runs += max(1, -(-rows // BATCH)) if name == "together" else 0
        answer = proto.message("ModelInferResponse").FromString(future.result())
        got = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(answer.outputs[0].shape)
        if got.shape != wanted.shape or not np.allclose(got, wanted, rtol=1e-5, atol=1e-6):
            self.wrong.append((asked, got, wanted))


def test_every_answer_of_a_mixed_crowd_is_that_of_its_rows_alone(server):
    seed = random.randrange(10**6)
    print("seed", seed)
    asked = questions(server, np.random.default_rng(seed))
    callers = [Caller(server.address, asked, seed + number) for number in range(CALLERS)]
    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(CALLERS) as pool:
        for done in [pool.submit(caller.run, until) for caller in callers]:
            done.result()
    codes = sum((caller.codes for caller in callers), Counter())
    print(codes)
    assert [one for caller in callers for one in caller.wrong] == []
    assert min(codes[OK], codes[CANCELLED], sum(codes[code] for code in LATE)) > 20
    wait_until(lambda: nothing_is_left(server))
    assert 0 < counter(server, "batches", "together") < 0.8 * sum(caller.runs for caller in callers)


def test_a_thousand_cancels_at_once_leave_nothing_behind(server):
    asked = proto.message("ModelInferRequest")(model_name="together", inputs=[{"name": "x", "datatype": "FP32", "shape": [8, 256]}])
    asked.raw_input_contents.append(bytes(8 * 256 * 4))
    body, kept_kb = asked.SerializeToString(), []
    for _ in range(4):
        with grpc.insecure_channel(server.address, OWN) as channel:
            calls = [channel.unary_unary(INFER).future(body, timeout=60) for _ in range(1000)]
            for call in calls:
                call.cancel()
            assert {call.code() for call in calls} <= {CANCELLED, OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        wait_until(lambda: nothing_is_left(server))
        kept_kb.append(Held.by(server.process.pid).rss_kb)
    print(kept_kb)
    assert kept_kb[-1] - kept_kb[1] < KEPT_MOST_KB
