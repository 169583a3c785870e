"""Requests of different lengths share batches where model.yaml says how to pad them; nobody's answer shows it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import onnxruntime
import pytest

from reference.proto import message

from . import models
from .server import ServerProcess
from .test_batching import counter
from .test_behaviour import post, tensor

DECLARED = """
batching:
  max_queue_delay_us: 50000
  padding:
    inputs: {ids: {axis: 1, value: 0}, attention_mask: {}}
    outputs: {tokens: 1}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    registry = tmp_path_factory.mktemp("padding") / "registry"
    for name, more in (("texts", ""), ("edged", "    edges: [4, 12, 16]\n")):
        models.texts(registry, name)
        (registry / name / "model.yaml").write_text(DECLARED + more)
    with ServerProcess(registry) as running:
        yield running


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return onnxruntime.InferenceSession(models.texts(tmp_path_factory.mktemp("alone")))


def rows(length, count=1):
    ids = (np.arange(count * length, dtype=np.int64).reshape(count, length) * 7 + length) % 100
    return {"ids": ids, "attention_mask": np.ones_like(ids)}


def over_rest(server, model, given):
    inputs = [tensor(name, "INT64", list(array.shape), array.tolist()) for name, array in given.items()]
    status, answer = post(server, model, inputs)
    assert status == 200, answer
    return {one["name"]: np.array(one["data"], np.float32).reshape(one["shape"]) for one in answer["outputs"]}


def over_grpc(server, model, given):
    inputs = [{"name": name, "datatype": "INT64", "shape": array.shape} for name, array in given.items()]
    asked = message("ModelInferRequest")(model_name=model, inputs=inputs, raw_input_contents=[array.tobytes() for array in given.values()])
    with grpc.insecure_channel(server.address) as channel:
        raw = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(asked.SerializeToString(), timeout=20)
    answer = message("ModelInferResponse").FromString(raw)
    return {one.name: np.frombuffer(data, np.float32).reshape(one.shape) for one, data in zip(answer.outputs, answer.raw_output_contents, strict=True)}


def assert_as_alone(alone, given, answer):
    for name, expected in zip(("mean", "tokens"), alone.run(None, given), strict=True):
        np.testing.assert_allclose(answer[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ask", [over_rest, over_grpc])
@pytest.mark.parametrize(("model", "lengths"), [("texts", [9, 10, 11, 12, 13, 14, 15, 16]), ("edged", [1, 2, 3, 4, 5, 8, 11, 12, 17])])
def test_mixed_lengths_share_batches_and_every_answer_is_that_of_a_lone_run(server, alone, model, lengths, ask):
    before = counter(server, "batches", model), counter(server, "padding_bytes", model)
    asked = [rows(length, 1 + length % 2) for length in lengths * 2]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda given: ask(server, model, given), asked))
    for given, answer in zip(asked, answers, strict=True):
        assert_as_alone(alone, given, answer)
    assert counter(server, "batches", model) - before[0] < len(asked) / 2
    assert counter(server, "padding_bytes", model) > before[1]


def test_a_lone_request_is_padded_to_its_edge_and_not_at_all_without_edges(server, alone):
    for model, padded in (("texts", 0), ("edged", 2 * 8 * 7)):
        before = counter(server, "padding_bytes", model)
        assert_as_alone(alone, rows(5), over_rest(server, model, rows(5)))
        assert counter(server, "padding_bytes", model) - before == padded


@pytest.mark.parametrize("model", ["texts", "edged"])
def test_a_request_of_more_rows_than_a_batch_is_padded_part_by_part(server, alone, model):
    before = counter(server, "padding_bytes", model)
    for length in (5, 17):
        assert_as_alone(alone, rows(length, 150), over_grpc(server, model, rows(length, 150)))
    assert counter(server, "padding_bytes", model) - before == (150 * 2 * 8 * 7 if model == "edged" else 0)


def test_only_the_request_that_makes_a_padded_run_fail_fails(server, alone):
    def ask(length):
        given = rows(length)
        if length == 12:
            given["ids"][0, 3] = 100  # there are a hundred words
            return post(server, "texts", [tensor(name, "INT64", [1, length], array.tolist()) for name, array in given.items()])[0]
        assert_as_alone(alone, given, over_rest(server, "texts", given))
        return 200

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(9, 17))) == [200, 200, 200, 400, 200, 200, 200, 200]


def test_inputs_of_one_request_must_have_one_length(server):
    status, answer = post(server, "texts", [tensor("ids", "INT64", [1, 3], [1] * 3), tensor("attention_mask", "INT64", [1, 2], [1] * 2)])
    assert (status, answer["error"]) == (400, 'input "attention_mask" of texts/1: length 2 along axis 1 given, 3 wanted, as of "ids"')
