"""model.yaml: every mistake is told with file, line, key, what was given and what is wanted."""

import time

import pytest

from batchmill.backends import Tuning
from batchmill.errors import ConfigError
from batchmill.registry import model_config
from batchmill.registry.policy import VersionPolicy
from batchmill.registry.settings import DeclaredPadding, PaddedInput
from batchmill.rollout.plan import Plan, Step


@pytest.mark.parametrize(("text", "wanted"), [
    ("batchin: {mode: on}", ":1:1: batchin: unknown key; did you mean 'batching'?"),
    ("queue:\n  max_row: 3", ":2:3: queue.max_row: unknown key; did you mean 'max_rows'?"),
    ("queue: {max_rows: many}", ":1:9: queue.max_rows: 'many' given, a whole number from 1 to 1000000000 wanted"),
    ("queue: {max_rows: 0}", ":1:9: queue.max_rows: 0 given, a whole number from 1 to "),
    ("queue: {max_wait_ms: -1}", ":1:9: queue.max_wait_ms: -1 given, a whole number from 0 to 3600000 wanted"),
    ("queue: {default_timeout_us: 9999999999999999999}", ":1:9: queue.default_timeout_us: 9999999999999999999 given, a whole"),
    ("queue: {timeout_action: wait}", ":1:9: queue.timeout_action: 'wait' given, 'reject' or 'delay' wanted"),
    ("batching:\n  mode: auto\n  max_batch_size: 0", ":3:3: batching.max_batch_size: 0 given, a whole number from 1 to 65536 wanted"),
    ("batching: {max_batch_size: 65537}", ":1:12: batching.max_batch_size: 65537 given, "),
    ("batching: {max_batch_size: 6.5}", ":1:12: batching.max_batch_size: 6.5 given, "),
    ("batching: {max_batch_size: true}", ":1:12: batching.max_batch_size: True given, "),
    ("batching: {mode: sometimes}", ":1:12: batching.mode: 'sometimes' given, 'auto', 'on' or 'off' wanted"),
    ("batching:\n  preferred_batch_sizes:\n  - 4\n  - 0", ":4:5: batching.preferred_batch_sizes.1: 0 given, "),
    ("batching: {preferred_batch_sizes: 4}", ":1:12: batching.preferred_batch_sizes: 4 given, a list of at most 8 batch sizes wanted"),
    ("batching: {preferred_batch_sizes: [1, 2, 3, 4, 5, 6, 7, 8, 9]}", ":1:12: batching.preferred_batch_sizes: "),
    ("batching: {padding: {edges: [16]}}", ":1:12: batching.padding.inputs: missing"),
    ("batching: {padding: {inputs: {}}}", ":1:22: batching.padding.inputs: {} given, names of inputs wanted"),
    ("batching:\n  padding:\n    inputs:\n      ids: {axis: 0}", ":4:13: batching.padding.inputs.ids.axis: 0 given, a whole number from 1 to 15 wanted"),
    ("batching: {padding: {inputs: {ids: {axis: -1}}}}", ":1:37: batching.padding.inputs.ids.axis: -1 given, "),
    ("batching: {padding: {inputs: {ids: {value: zero}}}}", ":1:37: batching.padding.inputs.ids.value: 'zero' given, a number, or true or false, wanted"),
    ("batching: {padding: {inputs: {ids: {axes: 1}}}}", ":1:37: batching.padding.inputs.ids.axes: unknown key; did you mean 'axis'?"),
    ("batching: {padding: {inputs: {ids: {}}, edge: [1]}}", ":1:41: batching.padding.edge: unknown key; did you mean 'edges'?"),
    ("batching: {padding: {inputs: {ids: {}}, edges: [16, 8]}}", ":1:41: batching.padding.edges: [16, 8] given, at most 32 ascending whole numbers from 1 to 65536 wanted"),
    ("batching: {padding: {inputs: {ids: {}}, edges: []}}", ":1:41: batching.padding.edges: [] given, "),
    ("batching: {padding: {inputs: {ids: {}}, edges: [0, 8]}}", ":1:41: batching.padding.edges: [0, 8] given, "),
    ("batching: {padding: {inputs: {ids: {}}, outputs: {y: 0}}}", ":1:51: batching.padding.outputs.y: 0 given, a whole number from 1 to 15 wanted"),
    ("instances: {weight: 0}", ":1:13: instances.weight: 0 given, "),
    ("instances: {count: 0}", ":1:13: instances.count: 0 given, a whole number from 1 to 1024, or auto, wanted"),
    ("instances: {intra_op_threads: 1025}", ":1:13: instances.intra_op_threads: 1025 given, "),
    ("instances: {count: some}", ":1:13: instances.count: 'some' given, "),
    ("versions: {policy: newest}", ":1:12: versions.policy: 'newest' given, latest, all or a list of version numbers wanted"),
    ("versions: {policy: [1, 0]}", ":1:12: versions.policy: [1, 0] given, "),
    ("versions: {policy: []}", ":1:12: versions.policy: [] given, "),
    ("versions: {count: 0}", ":1:12: versions.count: 0 given, "),
    ("labels:\n  stable: 1\n  canary: 0", ":3:3: labels.canary: 0 given, a whole number from 1 to "),
    ("labels: {stable: latest}", ":1:10: labels.stable: 'latest' given, "),
    ("run_timeout_ms: -5", ":1:1: run_timeout_ms: -5 given, a whole number from 0 to 86400000 wanted"),
    ("warmup: {runs: 1001}", ":1:10: warmup.runs: 1001 given, a whole number from 0 to 1000 wanted"),
    ("slo: {latency_ms: 0}", ":1:7: slo.latency_ms: 0 given, a number from 0.001 to "),
    ("slo: {target: 0.9}", ":1:1: slo.latency_ms: missing"),
    ("golden: {rtol: .nan}", ":1:10: golden.rtol: nan given, a number from 0.0 to "),
    ("golden: {p99_ms: fast}", ":1:10: golden.p99_ms: 'fast' given, a number from 0.001 to "),
    ("execution_providers: CPUExecutionProvider", ":1:1: execution_providers: 'CPUExecutionProvider' given, a valid list wanted"),
    ("parameters: [1]", ":1:1: parameters: [1] given, a valid dictionary wanted"),
    ("parameters: {1: 2}", ":1:14: parameters.1: 1 given, a valid string wanted"),
    ("max_batch_size: 3", ":1:1: max_batch_size: unknown key; did you mean 'batching.max_batch_size'?"),
    ("batching: {slo: {latency_ms: 3}}", ":1:12: batching.slo: unknown key; did you mean 'slo'?"),
    ("slo: {latency_ms: 3, targe: 0.9}", ":1:22: slo.targe: unknown key; did you mean 'target'?"),
    ("golden:\n    rtoll: 1", ":2:5: golden.rtoll: unknown key; did you mean 'rtol'?"),
    ("queue: {max_rows: 1}\nwarmup:\n  runs: 1\n  runs: 2", ":4:3: runs: given twice"),
    ("queue: {max_rows: 1}\nqueue: {max_rows: 2}", ":2:1: queue: given twice"),
    ("rollout: sometimes", ":1:1: rollout: 'sometimes' given, auto, or keys of a plan such as {steps: ...} wanted"),
    ("rollout:\n  step: []", ":2:3: rollout.step: unknown key; did you mean 'steps'?"),
    ("rollout:\n  min_samples: 5", ":2:3: rollout.min_samples: unknown key; did you mean 'rollout.steps.min_samples'?"),
    ("rollout:\n  steps:\n  - share: 1\n    min_sample: 5\n  - share: 100", ":4:5: rollout.steps.0.min_sample: unknown key; did you mean 'min_samples'?"),
    ("rollout:\n  steps:\n  - share: 5\n  - share: 5\n  - share: 100", ":4:5: rollout.steps.1.share: 5 given, more than the 5 of the step before wanted"),
    ("rollout: {gates: {agreement: {at_least: 2}}}", ":1:31: rollout.gates.agreement.at_least: 2 given, a number from 0.0 to 1.0 wanted"),
    ("queue: [", ":1:"),
    ("a: &x 1\nb: *x", ": anchors and aliases are not allowed"),
    ("- 1", ":1:1: [1] given, keys such as {backend: ...} wanted"),
])
def test_a_mistake_is_told_with_its_place_what_was_given_and_what_is_wanted(tmp_path, text, wanted):
    path = tmp_path / "model.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        model_config.read(path)
    assert str(caught.value).startswith(f"{path}{wanted}")


@pytest.mark.parametrize(("text", "wanted"), [
    ("[" * 200_000, ":1:65: nested deeper than 64"), ("{a: " * 50_000, ":1:257: nested deeper than 64"), ("- " * 100_000, ":1:129: nested deeper than 64"),
    ("a: b\n" * 60_000, ": larger than 256 KiB"), ("!!python/object/apply:os.system [id]", ":1:1: could not determine a constructor"),
    ("queue: {max_rows: " + "9" * 5000 + "}", ": not readable as YAML"),
])
def test_a_bomb_is_refused_before_it_costs_anything(tmp_path, text, wanted):
    path = tmp_path / "model.yaml"
    path.write_text(text)
    before = time.process_time()
    with pytest.raises(ConfigError) as caught:
        model_config.read(path)
    assert str(caught.value).startswith(f"{path}{wanted}")
    assert time.process_time() - before < 2


def test_what_is_given_is_echoed_in_part(tmp_path):
    (tmp_path / "model.yaml").write_text(f"batching: {{mode: {'x' * 100_000}}}")
    with pytest.raises(ConfigError) as caught:
        model_config.read(tmp_path / "model.yaml")
    assert len(str(caught.value)) < 400


def read(tmp_path, text):
    (tmp_path / "model.yaml").write_text(text)
    return model_config.read(tmp_path / "model.yaml")


def test_a_file_is_read(tmp_path):
    got = read(tmp_path, "versions: {policy: [1, 3]}\nlabels: {stable: 1}\nbatching: {mode: off}\nqueue: {max_rows: 5}\ninstances: {count: auto}\n")
    assert (got.versions, got.labels, got.batching) == (VersionPolicy("specific", numbers=(1, 3)), {"stable": "1"}, "off")
    assert (got.tuning.max_queue_rows, got.tuning.instances) == (5, 0)


def test_how_a_model_is_batched_and_queued_is_read(tmp_path):
    got = read(tmp_path, "batching: {max_batch_size: 32, preferred_batch_sizes: [64, 8, 16, 8], max_queue_delay_us: 7}\n"
                         "queue: {max_wait_ms: 50, timeout_action: delay}\ninstances: {run_on: io, weight: 2.5}\nslo: {latency_ms: 20}\n")
    assert got.tuning == Tuning(max_batch_size=32, preferred_batch_sizes=(8, 16), max_queue_delay_us=7, max_wait_ms=50, timeout_action="delay",
                                run_on="io", weight=2.5, latency_ms=20)


def test_padding_is_read(tmp_path):
    got = read(tmp_path, "batching:\n  padding:\n    inputs:\n      ids: {axis: 2, value: -1}\n      mask: {value: false}\n      x: {value: -.inf}\n"
                         "    edges: [16, 32]\n    outputs: {y: 1}\n")
    inputs = (PaddedInput("ids", 2, -1), PaddedInput("mask", 1, False), PaddedInput("x", 1, float("-inf")))
    assert got.padding == DeclaredPadding(inputs, (("y", 1),), (16, 32))
    assert got.for_loading() != read(tmp_path, "").for_loading()
    assert read(tmp_path, "batching: {padding: {inputs: {ids: {}}}}").padding == DeclaredPadding((PaddedInput("ids"),))


@pytest.mark.parametrize(("text", "without_effect"), [
    ("slo: {latency_ms: 20, target: 0.9}\nbatching: {preferred_batch_sizes: [4]}\nqueue: {max_rows: 5}", ()),
    ("parameters: {team: vision}", ("parameters",)),
    ("lineage: {note: first}", ()),
    ("warmup: {runs: 1}", ()),
])
def test_keys_without_effect_are_told(tmp_path, text, without_effect):
    assert read(tmp_path, text).without_effect == without_effect


@pytest.mark.parametrize(("text", "plan"), [
    ("", None), ("rollout:", None), ("rollout: false", None), ("rollout: true", Plan()), ("rollout: auto", Plan()), ("rollout: {}", Plan()),
    ("rollout: {steps: [{share: 100, approval: manual}], alpha: 0.01}", Plan((Step(100.0, approval="manual"),), 0.01)),
])
def test_a_rollout_policy_is_a_plan_and_needs_no_loading(tmp_path, text, plan):
    got = read(tmp_path, text)
    assert got.rollout == plan
    assert got.for_loading() == read(tmp_path, "").for_loading()


def test_lineage_is_what_the_file_says_of_it_and_needs_no_loading(tmp_path):
    got = read(tmp_path, "lineage: {git_commit: 4f2a, note: 'after the fix'}")
    assert got.lineage == {"git_commit": "4f2a", "note": "after the fix"}
    assert got.for_loading() == read(tmp_path, "").for_loading()
