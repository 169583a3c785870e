"""config.pbtxt: what of it has a meaning here is taken over; everything else is told with its place, and nothing is dropped in silence."""

from unittest.mock import ANY

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchmill.backends import Tuning
from batchmill.core import ort
from batchmill.errors import ConfigError
from batchmill.registry import config_pbtxt, model_config
from batchmill.registry.pbtxt_scan import scan
from batchmill.registry.policy import VersionPolicy
from batchmill.registry.settings import ModelSettings
from e2e import models
from reference.proto import private_model_config
from reference.registry import first_pass


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ort.initialise()
    with private_model_config():
        yield


def read(tmp_path, text):
    (tmp_path / "config.pbtxt").write_text(text, encoding="utf-8")
    return model_config.read_folder(tmp_path, "m")


WHOLE = """
# a comment with { and "
name: "m"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 8 ] } ]
output [ { name: "y", data_type: TYPE_FP32, dims: 4 } ]
version_policy { specific { versions: 1 versions: 3 } }
instance_group [ { count: 2 kind: KIND_CPU }, { kind: KIND_CPU } ]
dynamic_batching {
  max_queue_delay_microseconds: 100
  default_queue_policy < default_timeout_microseconds: 5000 max_queue_size: 77 >
}
parameters { key: "intra_op_thread_count" value { string_value: "3" } }
"""


def test_what_has_a_meaning_is_taken_over(tmp_path):
    got = read(tmp_path, WHOLE)
    assert (got.versions, got.batching, got.tuning.max_batch_size) == (VersionPolicy("specific", numbers=(1, 3)), "auto", 8)
    assert (got.tuning.max_queue_delay_us, got.tuning.default_timeout_us, got.tuning.max_queue_rows) == (100, 5000, 77)
    assert (got.tuning.instances, got.intra_op_threads, got.notes) == (3, 3, ())
    assert [(one.kind, one.name, one.datatype, one.dims, one.batch) for one in got.declared] == [
        ("input", "x", "FP32", (8,), "with"), ("output", "y", "FP32", (4,), "with")]


@pytest.mark.parametrize(("text", "changed"), [
    ("", {}), ("max_batch_size: 0", {"batching": "off"}), ("max_batch_size: 3", {"tuning": Tuning(max_batch_size=3)}), ('backend: "onnxruntime"', {}),
    ("version_policy: { all {} }", {"versions": VersionPolicy("all")}), ("version_policy { latest { } }", {"versions": VersionPolicy()}),
    ("version_policy { latest { num_versions: 2 } }", {"versions": VersionPolicy("latest", 2)}), ("instance_group { }", {}),
    ("dynamic_batching { priority_levels: 3 default_priority_level: 3 }", {"tuning": Tuning(priority_levels=3, default_priority_level=3)}),
    ("dynamic_batching { priority_levels: 5 }", {"tuning": Tuning(priority_levels=5, default_priority_level=3)}),
    ("dynamic_batching { default_queue_policy { max_queue_size: 0 } }", {"tuning": Tuning(max_queue_rows=10**9)}), ("dynamic_batching { }", {}),
    ("dynamic_batching { preferred_batch_size: [ 8, 4 ] }", {"tuning": Tuning(preferred_batch_sizes=(4, 8))}),
    ("dynamic_batching { default_queue_policy { timeout_action: DELAY } }", {"tuning": Tuning(timeout_action="delay")}),
    ('parameters { key: "intra_op_thread_count" value { string_value: "0" } }', {}),
])
def test_what_is_not_given_is_as_without_a_file(tmp_path, text, changed):
    assert read(tmp_path, text) == ModelSettings(file="config.pbtxt", given=ANY, **changed)


@pytest.mark.parametrize(("text", "notes"), [
    ("\n  max_batch_siz: 8", ["2:3: max_batch_siz: unknown field; did you mean 'max_batch_size'?"]),
    ("zzz { a: 1 b { c: 2 } }", ["1:1: zzz: unknown field"]),
    ("optimisation { }", ["1:1: optimisation: unknown field; did you mean 'optimization'?"]),
    ("model_warmup [ { name: \"}\" batch_size: 1 } ]\nresponse_cache { enable: true }",
     ["1:1: model_warmup has no effect in this release", "2:1: response_cache has no effect in this release"]),
    ("dynamic_batching {\n preferred_batch_size: [ 4, 8 ]\n max_queue_delay_microsecond: 3 }",
     ["3:2: dynamic_batching.max_queue_delay_microsecond: unknown field; did you mean 'max_queue_delay_microseconds'?"]),
    ("dynamic_batching { preserve_ordering: true default_queue_policy { timeout_action: DELAY } }",
     ["1:20: dynamic_batching.preserve_ordering true has no effect in this release"]),
    ("dynamic_batching { preserve_ordering: false }", []),
    ("instance_group { count: 2 kind: KIND_GPU host_policy: \"a\" }",
     ["1:42: instance_group.host_policy has no effect in this release", "1:27: instance_group.kind KIND_GPU has no effect in this release"]),
    ("parameters { key: \"a\" value { string_value: \"b\" } }", ["1:14: parameter \"a\" has no effect in this release"]),
    ("default_model_filename: \"net.onnx\"", ["1:1: default_model_filename \"net.onnx\" has no effect in this release"]),
    ("default_model_filename: \"model.onnx\"", []),
])
def test_what_has_no_effect_is_told_with_its_place_and_the_rest_counts(tmp_path, text, notes):
    got = read(tmp_path, text + "\nversion_policy { all {} }")
    assert [note.removeprefix("config.pbtxt:") for note in got.notes] == notes
    assert got.versions == VersionPolicy("all")


@pytest.mark.parametrize(("text", "reason"), [
    ('name: "other"', ":1:1: name: 'other' given, 'm' wanted"),
    ('\n platform: "tensorrt_plan"', ":2:2: platform: 'tensorrt_plan' given, 'onnxruntime_onnx' wanted"),
    ('backend: "python"', ":1:1: backend: 'python' given, 'onnxruntime' wanted"),
    ("max_batch_size: -1", ":1:1: max_batch_size: -1 given, a whole number from 1 to 65536 wanted"),
    ("max_batch_size: many", ":1:17: "),
    ("max_batch_size: 1\nmax_batch_size: 2", ":2:17: "),
    ("input {\n  data_type: TYPE_FLOAT }", ':2:14: '),
    ("version_policy { specific { } }", ":1:1: version_policy: [] given, latest, all or a list of version numbers wanted"),
    ("dynamic_batching {\n  max_queue_delay_microseconds: 18446744073709551615 }", ":2:3: dynamic_batching.max_queue_delay_microseconds: 18446744073709551615 given, "),
    ("instance_group { count: 2000 }", ":1:18: instance_group.count: 2000 given, a whole number from 1 to 1024"),
    ("dynamic_batching {", ":1:18: "),
    ("name: \"m", ":1:7: "),
    ("{}", ":1:1: "),
    ("a { " * 1000, ":1:"),
])
def test_what_is_wrong_is_told_with_its_place(tmp_path, text, reason):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'config.pbtxt'}{reason}"), caught.value


def test_a_model_yaml_beside_it_counts_alone(tmp_path):
    (tmp_path / "model.yaml").write_text("batching: {max_batch_size: 3}")
    assert read(tmp_path, "max_batch_size: 5").tuning.max_batch_size == 3


def test_one_file_causes_so_many_lines_and_no_more(tmp_path):
    notes = read(tmp_path, "\n".join(f"zzz{n}: 1" for n in range(500))).notes
    assert (len(notes), notes[-1]) == (101, "config.pbtxt: 400 more")


WORDS = ["name", "max_batch_size", "input", "zz", "{", "}", "<", ">", "[", "]", ":", ",", ";", '"a"', "'b", "1", "-", "# c\n", "\n", "dims", "parameters", "key", "é", "\x00"]


@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join))
@example("input { zz { } ")
def test_any_text_is_read_or_refused_in_one_line(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "config.pbtxt"
    path.write_text(text, encoding="utf-8")
    try:
        config_pbtxt.read(path, "m")
    except ConfigError as error:
        assert "\n" not in str(error)


FIELD = st.recursive(
    st.tuples(st.sampled_from(["a", "b_1"]), st.sampled_from([": 1", ': "x{" "y"', ": -3.5", ": [1, 2]", ': "\\""', ": []"])),
    lambda inner: st.tuples(st.sampled_from(["c", "d"]), st.sampled_from(["{%s}", ": {%s}", "<%s>", "[{%s}, {%s}]"]), st.lists(inner, max_size=3)),
)


def written(field, path=()):
    """The text of a field, and the paths in it in order."""
    name, form, *inside = field
    if not inside:
        return f"{name}{form}", [(*path, name)]
    texts = [written(one, (*path, name)) for one in inside[0]]
    body = " # ]}\n".join(text for text, _ in texts) + "\n"
    times = form.count("%s")
    return f"{name} {form % ((body,) * times)}", [(*path, name), *([one for _, paths in texts for one in paths] * times)]


@given(st.lists(FIELD, max_size=4))
def test_a_scan_finds_every_field_where_it_stands(fields):
    texts = [written(one) for one in fields]
    text = "\n".join(one for one, _ in texts)
    found = scan(text)
    assert [one.path for one in found] == [path for _, paths in texts for path in paths]
    lines = text.split("\n")
    for one in found:
        line, column = map(int, one.place.split(":"))
        assert lines[line - 1][column - 1 :].startswith(one.name)
        assert text[one.start :].startswith(one.name)


def served(tmp_path, text):
    models.linear(tmp_path, "m")
    (tmp_path / "m" / "config.pbtxt").write_text(text)
    return first_pass(tmp_path)["m"]


@pytest.mark.parametrize("text", [
    WHOLE.replace("versions: 3", ""), 'max_batch_size: 0 input { name: "x" dims: [-1, 8] }', 'input { name: "x" dims: [-1, 8] }',
    'input { name: "x" dims: 8 }', 'output { name: "y" dims: [2, 2] reshape { shape: 4 } }', 'input { name: "x" }',
])
def test_a_model_that_is_as_declared_serves(tmp_path, text):
    assert served(tmp_path, text).pick()


@pytest.mark.parametrize(("text", "reason"), [
    ('input {\n  name: "xx" }', "config.pbtxt:2:3: input \"xx\": the model has no such input; did you mean 'x'?"),
    ('output { name: "y" data_type: TYPE_INT64 }', 'config.pbtxt:1:10: output "y": INT64 given, FP32 in the model'),
    ('input { name: "x" data_type: TYPE_STRING }', 'config.pbtxt:1:9: input "x": BYTES given, FP32 in the model'),
    ('max_batch_size: 4 input { name: "x" dims: [-1, 8] }',
     'config.pbtxt:1:27: input "x": dims [-1, 8] given, shape [-1, 8] in the model; max_batch_size > 0, so that dims leave out the batch axis'),
    ('max_batch_size: 0 input { name: "x" dims: 8 }',
     'config.pbtxt:1:27: input "x": dims [8] given, shape [-1, 8] in the model; max_batch_size is 0, so that dims hold all axes'),
    ('input { name: "x" dims: 9 }', 'config.pbtxt:1:9: input "x": dims [9] given, shape [-1, 8] in the model'),
])
def test_a_model_that_is_not_as_declared_is_failed_with_the_place(tmp_path, text, reason):
    assert served(tmp_path, text).versions["1"].reason == reason


def test_a_config_that_is_wrong_fails_its_model_alone(tmp_path):
    models.linear(tmp_path, "other")
    assert "name: 'n' given, 'm' wanted" in served(tmp_path, 'name: "n"').reason
    assert first_pass(tmp_path)["other"].pick()
