"""What is told of the models, and that the messages of gRPC take it as it is."""

import pytest
from google.protobuf import json_format

from batchmill.endpoints.catalog import Catalog, config_type
from batchmill.errors import NotFound, NotReady
from e2e.models import DATATYPES
from reference.proto import message

from .statuses import MODELS

CATALOG = Catalog(lambda: MODELS)


def test_metadata_is_that_of_the_version_in_service():
    assert CATALOG.metadata("m") == {
        "name": "m", "versions": ["1", "2"], "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 8]}, {"name": "t", "datatype": "BYTES", "shape": [-1, 1]}],
        "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
        "properties": {"batching": "proved"},
    }


def test_the_server_goes_by_the_name_it_was_given():
    assert (CATALOG.server()["name"], Catalog(lambda: MODELS, name="triton").server()["name"]) == ("batchmill", "triton")


@pytest.mark.parametrize(("name", "max_batch_size", "dims"), [("m", 64, [8]), ("alone", 0, [-1, 8])])
def test_config_leaves_the_batch_axis_out_of_what_is_batched(name, max_batch_size, dims):
    config = CATALOG.config(name)
    assert (config["max_batch_size"], config["input"][0]["dims"]) == (max_batch_size, dims)
    assert [one["data_type"] for one in config["input"]] == ["TYPE_FP32", "TYPE_STRING"]
    assert ("dynamic_batching" in config) == bool(max_batch_size)


@pytest.mark.parametrize(("name", "number", "wanted"), [
    ("nobody", "", "Request for unknown model 'nobody'"), ("m", "3", "no version '3' that is ready"), ("m", "9", "no version '9'"),
    ("x" * 100_000, "", "Request for unknown model 'xxx"), ("m", "9" * 100_000, "no version '999"),
])
def test_what_is_not_there_is_told_in_few_words(name, number, wanted):
    with pytest.raises(NotFound, match=wanted) as caught:
        CATALOG.metadata(name, number)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("name", "number"), [("nobody", ""), ("nobody", "1"), ("m", "3"), ("m", "9"), ("wrong", "")])
def test_what_may_yet_come_is_not_ready_as_an_inference_is_told(name, number):
    loading = Catalog(lambda: MODELS, is_complete=lambda: False)
    with pytest.raises(NotReady, match="the server is still loading its models"):
        loading.metadata(name, number)
    assert loading.metadata("m", "1")


def test_a_model_without_a_ready_version_is_not_ready():
    with pytest.raises(NotReady, match="no version of model 'wrong' is ready"):
        CATALOG.metadata("wrong")


@pytest.mark.parametrize(("ready_only", "wanted"), [
    (False, [("alone", "1", "READY", ""), ("m", "1", "READY", ""), ("m", "2", "READY", ""), ("m", "3", "UNAVAILABLE", "truncated"),
             ("wrong", "", "UNAVAILABLE", "model.yaml:1: unknown key")]),
    (True, [("alone", "1", "READY", ""), ("m", "1", "READY", ""), ("m", "2", "READY", "")]),
])
def test_the_index_says_what_failed_and_why(ready_only, wanted):
    assert [tuple(row.values()) for row in CATALOG.index(ready_only)] == wanted


@pytest.mark.parametrize(("asked", "wanted"), [(("m",), ["1", "2"]), (("m", "2"), ["2"]), ((), ["1", "2", "1"])])
def test_statistics_are_of_the_versions_asked_for(asked, wanted):
    found = CATALOG.statistics(*asked)
    assert [one["version"] for one in found] == wanted
    assert found[0]["inference_stats"]["success"] == {"count": 2, "ns": 120_000}
    assert found[0]["inference_stats"]["fail"] == {"count": 1, "ns": 7}
    assert found[0]["inference_stats"]["queue"] == {"count": 2, "ns": 90_000}
    assert found[0]["memory_usage"] == [{"type": "CPU", "id": 0, "byte_size": 1 << 20}]
    assert [(one["batch_size"], one["compute_infer"]) for one in found[0]["batch_stats"]] == [(2, {"count": 1, "ns": 6}), (3, {"count": 1, "ns": 8})]


def filled(name, content):
    return json_format.ParseDict(content, message(name)())


def test_metadata_fits_its_message():
    answer = message("ModelMetadataResponse")(**CATALOG.metadata("m"))
    assert (list(answer.versions), list(answer.inputs[0].shape), answer.outputs[0].datatype) == (["1", "2"], [-1, 8], "INT64")
    assert answer.properties["batching"] == "proved"


def test_config_fits_its_message():
    config = filled("ModelConfigResponse", {"config": CATALOG.config("m")}).config
    assert (config.max_batch_size, list(config.input[0].dims)) == (64, [8])


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_has_a_config_type(datatype):
    assert filled("ModelInput", {"data_type": config_type(datatype)}).data_type


def test_statistics_and_index_fit_their_messages():
    (told,) = CATALOG.statistics("m", "2")
    assert told.pop("batch_closes") == {"full": {"count": 1, "rows": 3, "wait_ns": 500}, "idle": {"count": 1, "rows": 2, "wait_ns": 40}}
    (stats,) = filled("ModelStatisticsResponse", {"model_stats": [told]}).model_stats     # the protocol has no field for that one
    assert (stats.inference_count, stats.execution_count, stats.inference_stats.success.ns) == (5, 2, 120_000)
    assert len(filled("RepositoryIndexResponse", {"models": CATALOG.index(True)}).models) == 3
