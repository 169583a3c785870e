"""The v2 statistics, read by Triton's clients over both protocols: what they count, and that both tell the same."""

from __future__ import annotations

import time

import numpy as np
import pytest

from . import models
from .server import ServerProcess
from .test_clients import triton_input, tritongrpc, tritonhttp

SIZES = [1, 2, 3, 1, 2, 1]     # rows of the requests that go well
STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


def ask(module, client, tops, bottoms):
    inputs = [triton_input(module, name, np.array(values, np.int32).reshape(-1, 1), "INT32") for name, values in (("a", tops), ("b", bottoms)) if values]
    return client.infer("divide", inputs).as_numpy("q").ravel().tolist()


@pytest.fixture(scope="module")
def used(tmp_path_factory):
    """(statistics over gRPC, over REST, when the first request began and the last had ended in ms) after good and bad requests over both."""
    registry = tmp_path_factory.mktemp("statistics") / "registry"
    (models.divide(registry).parents[1] / "model.yaml").write_text("batching: {mode: 'on'}\n")
    with (ServerProcess(registry) as server, tritongrpc.InferenceServerClient(server.address) as grpc_client,
          tritonhttp.InferenceServerClient(server.address) as http_client):
        began = time.time_ns() // 1_000_000
        for module, client in ((tritongrpc, grpc_client), (tritonhttp, http_client)):
            for size in SIZES:
                assert ask(module, client, [6] * size, [3] * size) == [2] * size
            for tops, bottoms in (([1], [0]), ([1], None)):    # one fails as it runs, one before
                with pytest.raises(Exception, match="ivi(des an integer|sion by zero)|missing|inputs"):
                    ask(module, client, tops, bottoms)
        ask(tritongrpc, grpc_client, [1], [1])
        ended = time.time_ns() // 1_000_000
        over_grpc = grpc_client.get_inference_statistics("divide", as_json=True)["model_stats"][0]
        over_rest = http_client.get_inference_statistics("divide")["model_stats"][0]
        everything = http_client.get_inference_statistics()["model_stats"]
        assert [one["name"] for one in everything] == ["divide"]
    return over_grpc, over_rest, began, ended


def flat(statistics):
    """Numbers by their path; protobuf's JSON leaves out zeros and writes 64 bits as text."""
    if isinstance(statistics, dict):
        return {(key, *path): value for key, part in statistics.items() for path, value in flat(part).items()}
    if isinstance(statistics, list):
        return {(str(at), *path): value for at, part in enumerate(statistics) for path, value in flat(part).items()}
    return {(): int(statistics) if str(statistics).isdigit() else statistics}


def test_both_protocols_tell_the_same(used):
    over_grpc, over_rest, *_ = map(flat, used)
    assert over_rest["batch_closes", "idle", "count"] > 0       # the protocol has no field for these
    over_rest = {path: value for path, value in over_rest.items() if path[0] != "batch_closes"}
    assert {path: value for path, value in over_grpc.items() if value} == {path: value for path, value in over_rest.items() if value}


def test_requests_are_counted_once_and_what_failed_has_no_stages(used):
    _, found, *_ = used
    good = 2 * len(SIZES) + 1
    stats = found["inference_stats"]
    assert (stats["success"]["count"], stats["fail"]["count"]) == (good, 4)
    assert [stats[stage]["count"] for stage in STAGES] == [good] * 4
    assert stats["success"]["ns"] >= sum(stats[stage]["ns"] for stage in STAGES) > 0
    assert stats["fail"]["ns"] > 0
    assert stats["cache_hit"] == stats["cache_miss"] == {"count": 0, "ns": 0}


def test_rows_and_runs_are_counted_by_the_size_of_the_batch(used):
    _, found, *_ = used
    sizes = [*SIZES, *SIZES, 1]
    assert found["inference_count"] == sum(sizes)
    assert found["execution_count"] == len(sizes)      # one after the other: each ran alone
    assert {one["batch_size"]: one["compute_infer"]["count"] for one in found["batch_stats"]} == {size: sizes.count(size) for size in set(sizes)}
    for stage in STAGES[1:]:
        assert sum(one[stage]["ns"] for one in found["batch_stats"]) == found["inference_stats"][stage]["ns"]


def test_the_last_inference_is_told_in_milliseconds_of_the_clock(used):
    _, found, began, ended = used
    assert began <= found["last_inference"] <= ended + 1
    assert found["memory_usage"][0]["byte_size"] > 0
