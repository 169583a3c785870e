"""Which versions are loaded, which get default traffic, and what is known of their run times."""

from types import SimpleNamespace

import pytest

from batchmill.core import ort
from batchmill.registry.loader import has_static_runs, warm_up
from e2e import models
from reference.registry import first_pass


@pytest.fixture(scope="module", autouse=True)
def runtime():
    ort.initialise()


def loaded(tmp_path, text, versions=("1", "2", "3"), broken=()):
    for version in versions:
        path = models.linear(tmp_path, "m", version)
        if version in broken:
            path.write_bytes(b"broken")
    (tmp_path / "m" / "model.yaml").write_text(text)
    return first_pass(tmp_path)["m"]


@pytest.mark.parametrize(("text", "versions", "standard"), [
    ("labels: {stable: 1}", ["1", "3"], "3"),
    ("labels: {stable: 3}", ["3"], "3"),
    ("versions: {policy: [2]}\nlabels: {canary: 3}", ["2", "3"], "2"),
    ("versions: {policy: all}\nlabels: {stable: 1}", ["1", "2", "3"], "3"),
])
def test_a_label_pins_its_version_without_default_traffic(tmp_path, text, versions, standard):
    status = loaded(tmp_path, text)
    _, served, default, labels = status.route()
    assert (list(status.versions), [version.version for version in served], default.version) == (versions, versions, standard)
    assert set(labels.values()) <= set(versions)
    assert status.pick(versions[0]).number == versions[0]


@pytest.mark.parametrize(("versions", "standard"), [(("1", "2", "3"), "2"), (("1", "3"), "1"), (("3",), None)])
def test_when_the_newest_is_broken_the_one_before_it_serves(tmp_path, versions, standard):
    status = loaded(tmp_path, "labels: {stable: 1}" if "1" in versions else "", versions, broken=("3",))
    assert (status.pick().number if standard else status.pick()) == standard
    assert status.versions["3"].state == "FAILED"


def notes(caplog):
    return [(record.fields["name"], record.fields["note"]) for record in caplog.records if record.getMessage() == "model_note"]


def test_a_label_on_a_version_that_is_not_there_is_told_with_the_models_name(tmp_path, caplog):
    assert loaded(tmp_path, "labels: {stable: 9}").pick().number == "3"
    assert notes(caplog) == [("m", "model.yaml: label 'stable' names version 9, which is not there")]


def test_a_policy_that_wants_nothing_of_what_is_there_says_so(tmp_path):
    assert "none of the versions that are there: 1, 2" in loaded(tmp_path, "versions: {policy: [7]}", ("1", "2")).reason


RUNS = [
    ((True, [-1, 3]), True), ((True, [-1, -1]), False), ((False, [2, 3]), True), ((False, []), True), ((False, [-1, 3]), False),
]


def model_of(shape):
    model = SimpleNamespace(inputs=[("x", "FP32", shape, [])], fed=[])
    model.run = model.fed.append
    return model


@pytest.mark.parametrize(("given", "static"), RUNS)
def test_a_run_time_follows_from_rows_only_when_all_other_axes_are_static(given, static):
    assert has_static_runs(model_of(given[1]), given[0]) == static


@pytest.mark.parametrize(("given", "warmed"), [*RUNS[:1], ((True, [-1, -1]), True), *RUNS[2:]])
def test_models_are_warmed_up_where_their_shape_is_known(given, warmed):
    batched, shape = given
    model = model_of(shape)
    warm_up(model, 2, batched)
    assert [fed["x"][1] for fed in model.fed] == [[1 if size < 0 else size for size in shape]] * (2 if warmed else 0)


@pytest.mark.parametrize(("took", "alone"), [([], 0), ([70], 70), ([9, 40], 40), ([90, 50, 80], 50), ([90, 80, 50], 50)])
def test_a_run_takes_what_the_least_disturbed_one_took_after_the_first(took, alone):
    times = iter([at for one in took for at in (1000, 1000 + one)])
    assert warm_up(model_of([-1, 3]), len(took), True, lambda: next(times)) == alone


@pytest.mark.parametrize("given", ["[NoSuchExecutionProvider]", "[NoSuchExecutionProvider, CPUExecutionProvider]", "[cpu]"])
def test_a_provider_that_this_runtime_lacks_is_told_with_those_it_has(tmp_path, given):
    (version,) = loaded(tmp_path, f"execution_providers: {given}", ("1",)).versions.values()
    provider = given.strip("[]").split(",")[0]
    assert version.reason == f"this ONNX Runtime has no execution provider {provider!r}; it has {', '.join(ort.available_providers())}"


@pytest.mark.parametrize("given", ["[CPUExecutionProvider]", "[]"])
def test_the_cpu_serves_by_its_name_and_by_default(tmp_path, given):
    assert loaded(tmp_path, f"execution_providers: {given}", ("1",)).pick()
