"""The config of a load call: Triton's JSON or the keys of model.yaml, and what of them the reader of a registry makes."""

import json

import pytest
from endpoints.statuses import MODELS

from batchmill.endpoints.catalog import Catalog
from batchmill.errors import InvalidUpload
from batchmill.registry import model_config
from batchmill.registry.policy import VersionPolicy
from batchmill.registry.settings import ModelSettings
from batchmill.registry.upload_config import settings_file
from reference.proto import private_model_config


@pytest.fixture(scope="module", autouse=True)
def messages():
    with private_model_config():
        yield


def read(folder, config):
    name, text = settings_file(json.dumps(config), "m")
    (folder / name).write_text(text)
    return name, model_config.read_folder(folder, "m")


TRITON = {
    "name": "m", "platform": "onnxruntime_onnx", "backend": "onnxruntime", "max_batch_size": 8,
    "input": [{"name": "x \"'\\\n\u00e9", "data_type": "TYPE_FP32", "dims": ["8", -1], "reshape": {"shape": []}, "optional": False}],
    "output": [{"name": "y", "data_type": 11, "dims": [4]}],
    "version_policy": {"specific": {"versions": ["1", 3]}},
    "instance_group": [{"count": 3, "kind": "KIND_CPU", "gpus": []}],
    "dynamic_batching": {"max_queue_delay_microseconds": "100", "default_queue_policy": {"max_queue_size": 7, "timeout_action": "REJECT"},
                         "priority_queue_policy": {"1": {"max_queue_size": 2}}},
    "parameters": {"intra_op_thread_count": {"string_value": "2"}},
    "optimization": {"priority": "PRIORITY_DEFAULT", "graph": {"level": -1}}, "model_warmup": [], "default_model_filename": None,
}


def test_tritons_json_becomes_a_config_pbtxt_that_says_the_same(tmp_path):
    name, found = read(tmp_path, TRITON)
    assert name == "config.pbtxt"
    assert (found.tuning.max_batch_size, found.versions, found.tuning.instances, found.tuning.max_queue_delay_us, found.tuning.max_queue_rows,
            found.intra_op_threads) == (
        8, VersionPolicy("specific", numbers=(1, 3)), 3, 100, 7, 2)
    assert [(one.name, one.datatype, one.dims) for one in found.declared] == [("x \"'\\\n\u00e9", "FP32", None), ("y", "FP32", (4,))]


def test_a_max_batch_size_of_0_says_that_there_is_no_batch_axis_and_one_that_is_not_given_says_nothing(tmp_path):
    assert read(tmp_path, {"max_batch_size": 0})[1].batching == "off"
    assert read(tmp_path, {"backend": "onnxruntime"})[1] == ModelSettings(file="config.pbtxt")


def test_what_the_server_tells_as_a_models_config_it_takes_as_one(tmp_path):
    _, found = read(tmp_path, Catalog(lambda: MODELS).config("m"))
    assert found.tuning.max_batch_size == 64


def test_an_empty_version_policy_of_all_is_told(tmp_path):
    assert read(tmp_path, {"version_policy": {"all": {}}})[1].versions.kind == "all"


def test_keys_of_model_yaml_become_one(tmp_path):
    config = {"versions": {"policy": "all"}, "labels": {"stabil \u00e9": 1}, "batching": {"mode": "off"}, "golden": {"rtol": 1e-5}, "parameters": {"a": [1, {"b": None}]}}
    name, found = read(tmp_path, config)
    assert (name, found.versions.kind, found.labels, found.batching, found.golden_rtol) == ("model.yaml", "all", {"stabil \u00e9": "1"}, "off", 1e-5)


def test_an_empty_config_has_nothing_to_say():
    assert settings_file(" { } ", "m") is None


@pytest.mark.parametrize(("config", "wanted"), [
    ("", "no JSON"), ("{", "no JSON"), ("null", "a JSON object wanted"), ("[]", "a JSON object wanted"), ('"x"', "a JSON object wanted"), ("{} x", "no JSON"),
    ('{"a": NaN}', "NaN is no JSON number"), ('{"max_batch_size": 1, "max_batch_size": 2}', "given twice"), ("[" * 100_000, "no JSON"),
    ('{"a":' * 100_000 + "1" + "}" * 100_000, "no JSON|characters given"), ('{"a":' * 40 + "1" + "}" * 40, "nested deeper than 32"),
    ('{"parameters": {"a": ' + "[" * 40 + "]" * 40 + "}}", "nested deeper than 32"), ("9" * 5000, "no JSON"), (" " * 300_000 + "{}", "characters given"),
    ('{"max_batch_siz": 1}', "max_batch_siz: unknown key; did you mean 'max_batch_size'"), ('{"batchin": {}}', "did you mean 'batching'"),
    ('{"input": [{"nam": "x"}]}', "input.nam: unknown key; did you mean 'name'"), ('{"input": {"name": "x"}}', "input: .* a list wanted"),
    ('{"input": ["x"]}', "input: 'x' given, an object wanted"), ('{"parameters": []}', r"parameters: \[\] given, an object wanted"),
    ('{"max_batch_size": 1.5}', "1.5 given, a whole number wanted"), ('{"max_batch_size": true}', "True given, a whole number wanted"),
    ('{"name": 7}', "name: 7 given, a text wanted"), ('{"instance_group": [{"kind": "kind cpu\\n"}]}', "one of its names wanted"),
    ('{"input": [{"optional": 1}]}', "true or false wanted"), ('{"dynamic_batching": 1}', "an object wanted"),
])
def test_a_config_that_is_none_is_refused_with_its_key(config, wanted):
    with pytest.raises(InvalidUpload, match=wanted) as caught:
        settings_file(config, "m")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", ['a"\nbackend: "python', "a\\", "\x00", "# x", "\u2028", "'"])
def test_no_text_of_a_config_is_more_than_a_text_in_the_file(tmp_path, value):
    _, found = read(tmp_path, {"input": [{"name": value}]})
    assert [one.name for one in found.declared] == [value]
    name, text = settings_file(json.dumps({"labels": {value: 1}}), "m")
    (tmp_path / name).write_text(text)
    assert model_config.read_folder(tmp_path, "m").labels == {value: "1"}
