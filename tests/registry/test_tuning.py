"""What calls set of how a model is served: which keys, before what the file says, kept, and nothing of it when it is wrong."""

import shutil

import pytest

from batchmill import complaints
from batchmill.backends import Tuning
from batchmill.core import ort
from batchmill.errors import InvalidRequest, NotFound
from batchmill.registry import model_config, tuning
from batchmill.registry.model_schema import schema
from batchmill.registry.settings import TUNABLE, ModelSettings
from batchmill.store import TUNING, Store
from e2e import models
from reference.registry import WAIT_SECS, Kept


@pytest.mark.parametrize(("before", "body", "after"), [
    ({}, {}, {}),
    ({}, {"batching": {"max_batch_size": 4, "preferred_batch_sizes": [2]}, "run_timeout_ms": 5},
     {"batching.max_batch_size": 4, "batching.preferred_batch_sizes": [2], "run_timeout_ms": 5}),
    ({}, {"slo.latency_ms": 20}, {"slo.latency_ms": 20}),
    ({"queue.max_rows": 5}, {"queue": {"max_rows": 6}}, {"queue.max_rows": 6}),
    ({"queue.max_rows": 5, "queue.max_wait_ms": 6}, {"queue": {"max_rows": None}}, {"queue.max_wait_ms": 6}),
    ({"queue.max_rows": 5, "run_timeout_ms": 6}, {"queue": None}, {"run_timeout_ms": 6}),
    ({"run_timeout_ms": 6}, {"run_timeout_ms": None, "queue.max_rows": None}, {}),
])
def test_a_call_adds_to_those_before_and_null_takes_back(before, body, after):
    given = dict(before)
    assert tuning.changed(before, body) == after
    assert before == given


@pytest.mark.parametrize(("body", "text"), [
    ({"batching": {"max_batch_sise": 4}}, "batching.max_batch_sise: unknown key; did you mean 'batching.max_batch_size'?"),
    ({"batching": {"max_batch_sise": None}}, "batching.max_batch_sise: unknown key; did you mean 'batching.max_batch_size'?"),
    ({"batchin": {}}, "batchin: unknown key; did you mean 'batching'?"),
    ({"max_batch_size": 4}, "max_batch_size: unknown key; did you mean 'batching.max_batch_size'?"),
    ({"batching": {"mode": "off"}}, "batching.mode: takes effect when the versions are loaded, so no call can set it"),
    ({"instances": {"intra_op_threads": 2}}, "instances.intra_op_threads: takes effect when the versions are loaded"),
    ({"labels": {"a": 1}}, "labels.a: unknown key"),
    ({"versions": None}, "versions: takes effect"),
    ({"batching": 5}, "batching: keys and values wanted, or null"),
    ({"batching": {"max_batch_size": {"a": {"b": 1}}}}, "batching.max_batch_size: {'a': {'b': 1}} given, a whole number from 1 to 65536 wanted"),
    ({"batching": {"max_batch_size": 0}}, "batching.max_batch_size: 0 given, a whole number from 1 to 65536 wanted"),
    ({"batching": {"max_batch_size": "4"}}, "batching.max_batch_size: '4' given"),
    ({"slo": {"target": 0.9}}, "slo.latency_ms: missing"),
    ({"x" * 10_000: 1}, "x" * 100 + ": unknown key"),
])
def test_what_is_wrong_is_told_with_its_key(body, text):
    with pytest.raises(InvalidRequest) as told:
        tuning.in_force(ModelSettings(), tuning.changed({}, body))
    assert str(told.value).startswith(text)
    assert len(str(told.value)) < 300


def test_the_keys_that_a_call_may_set_are_those_that_make_the_tuning():
    """Each of them is one of model.yaml, and what is loaded anew is none of them."""
    for key in TUNABLE:
        *above, name = key.split(".")
        assert name in complaints.known_keys(above, schema())
        file = ModelSettings(file="model.yaml", given={key: 1})
        assert file.for_loading() == ModelSettings().for_loading()
    assert len(TUNABLE) == len(Tuning.__dataclass_fields__)


def test_a_call_goes_before_the_file_and_the_file_before_the_default(tmp_path):
    (tmp_path / "model.yaml").write_text("batching: {max_batch_size: 8, mode: on}\nqueue: {max_rows: 9}\n")
    file = model_config.read(tmp_path / "model.yaml")
    settings = tuning.in_force(file, {"batching.max_batch_size": 4, "slo.latency_ms": 20})
    assert (settings.tuning.max_batch_size, settings.tuning.max_queue_rows, settings.tuning.latency_ms, settings.batching) == (4, 9, 20, "on")
    told = tuning.told(settings)
    assert [*told] == [*TUNABLE]
    assert told["batching.max_batch_size"] == {"value": 4, "from": "call"}
    assert told["queue.max_rows"] == {"value": 9, "from": "model.yaml"}
    assert told["queue.max_wait_ms"] == {"value": 2000, "from": "default"}
    assert told["slo.target"] == {"value": 0.99, "from": "default"}
    assert tuning.told(ModelSettings())["slo.latency_ms"] == {"value": None, "from": "default"}


# In a registry.
@pytest.fixture(scope="module", autouse=True)
def runtime():
    ort.initialise()


@pytest.fixture
def root(tmp_path):
    models.linear(tmp_path / "registry", "m")
    return tmp_path / "registry"


def tune(kept, body, name="m"):
    kept.keeper.tune(name, lambda called: tuning.changed(called, body)).result(WAIT_SECS)


def size(kept):
    """As it is published."""
    (version,) = kept.models["m"].ready()
    return version.max_batch_size


def started(root, store, **options):
    kept = Kept(root, store=store, **options)
    kept.wait(lambda _: kept.complete)
    return kept


def test_what_is_set_is_in_force_told_and_kept(root, caplog):
    store = Store()
    caplog.set_level("INFO")
    with started(root, store) as kept:
        tune(kept, {"batching": {"max_batch_size": 4}, "run_timeout_ms": 5})
        assert size(kept) == 4
        assert kept.models["m"].settings.called == store.get(TUNING, "m") == {"batching.max_batch_size": 4, "run_timeout_ms": 5}
        tune(kept, {"run_timeout_ms": None})
    with started(root, store) as kept:
        assert size(kept) == 4
        kept.keeper.tune("m", tuning.nothing).result(WAIT_SECS)
        assert size(kept) == 64
    assert store.all(TUNING) == {}
    told = [record.fields for record in caplog.records if record.getMessage() == "model_tuned"]
    assert [(one["name"], one["keys"]) for one in told] == [
        ("m", "batching.max_batch_size=4 run_timeout_ms=5"), ("m", "run_timeout_ms=taken back"), ("m", "batching.max_batch_size=taken back")]
    assert [record.getMessage() for record in caplog.records].count("version_ready") == 2


def test_a_wrong_call_changes_nothing(root):
    store = Store()
    with started(root, store) as kept:
        for name, body, error in (("m", {"batching": {"max_batch_size": 4, "mode": "off"}}, InvalidRequest), ("n", {"run_timeout_ms": 5}, NotFound)):
            with pytest.raises(error):
                tune(kept, body, name)
        assert size(kept) == 64
    assert store.all(TUNING) == {}


def test_an_edit_of_the_file_changes_what_no_call_has_set(root):
    with started(root, Store()) as kept:
        tune(kept, {"batching": {"max_batch_size": 4}})
        (root / "m" / "model.yaml").write_text("batching: {max_batch_size: 8, max_queue_delay_us: 7}\n")
        kept.wait(lambda now: now["m"].settings.tuning.max_queue_delay_us == 7)
        assert size(kept) == 4
        tune(kept, {"batching": None})
        assert size(kept) == 8


def test_a_model_that_was_gone_comes_back_as_it_was_set(root, tmp_path):
    models.linear(root, "other")
    with started(root, Store()) as kept:
        tune(kept, {"batching": {"max_batch_size": 4}})
        shutil.move(root / "m", tmp_path / "away")
        kept.wait(lambda now: "m" not in now)
        shutil.move(tmp_path / "away", root / "m")
        kept.wait(lambda now: "m" in now and now["m"].ready())
        assert size(kept) == 4


def test_what_does_not_fit_a_file_any_more_is_told_and_left_out(root, caplog):
    (root / "m" / "model.yaml").write_text("slo: {latency_ms: 20}\n")
    with started(root, Store()) as kept:
        tune(kept, {"slo": {"target": 0.9}, "batching": {"max_batch_size": 4}})
        (root / "m" / "model.yaml").write_text("queue: {max_rows: 9}\n")
        kept.wait(lambda now: now["m"].settings.tuning.max_queue_rows == 9)
        assert size(kept) == 64
        tune(kept, {"slo": None})
        assert size(kept) == 4
    assert [record.fields["reason"] for record in caplog.records if record.getMessage() == "tuning_ignored"] == ["slo.latency_ms: missing"]


def test_a_model_out_of_service_can_be_tuned_before_it_is_loaded(root):
    (root / "m" / "model.yaml").write_text("slo: {latency_ms: 20}\n")
    with started(root, Store(), watched=False, only=()) as kept:
        tune(kept, {"slo": {"target": 0.9}, "batching": {"max_batch_size": 4}})
        assert kept.models["m"].settings.tuning.latency_ms == 20
        assert kept.models["m"].held
        kept.keeper.load("m").result(WAIT_SECS)
        assert size(kept) == 4


def test_a_version_whose_rows_share_no_batches_runs_them_alone_whatever_is_set(root):
    (root / "m" / "model.yaml").write_text("batching: {mode: off}\n")
    with started(root, Store()) as kept:
        tune(kept, {"batching": {"max_batch_size": 4}})
        assert size(kept) == 0
