"""A rollout's plan: what is left out is the default's, and what is wrong is told with its key."""

import ast
import inspect
import itertools
import json
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import rollouts
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batchmill import complaints
from batchmill.errors import ConfigError, InvalidRequest
from batchmill.rollout import plan, plan_schema
from batchmill.rollout.plan import DEFAULT_STEPS, Agreement, ErrorRate, Gates, LatencyRatio, Plan, Quality, ShadowErrors, Step

FULL = {"share": 100}


@pytest.mark.parametrize(("given_", "text"), [
    ([], "[] given, keys such as {steps: ...} wanted"),
    ({"step": []}, "step: unknown key; did you mean 'steps'?"),
    ({"min_samples": 5}, "min_samples: unknown key; did you mean 'steps.min_samples'?"),
    ({"at_least": 0.9}, "at_least: unknown key; did you mean 'gates.agreement.at_least'?"),
    ({"steps": []}, "steps: [] given, a list of 1 to 32 steps wanted"),
    ({"steps": [3]}, "steps.0: 3 given, keys such as {share: ...} wanted"),
    ({"steps": [{}]}, "steps.0.share: missing"),
    ({"steps": [{"share": 1, "min_sample": 5}, FULL]}, "steps.0.min_sample: unknown key; did you mean 'min_samples'?"),
    ({"steps": [{"share": 0}, FULL]}, "steps.0.share: 0 given, a number from 0.001 to 100.0 wanted"),
    ({"steps": [{"share": float("nan")}, FULL]}, "steps.0.share: nan given, a number from 0.001 to 100.0 wanted"),
    ({"steps": [{"share": True}, FULL]}, "steps.0.share: True given, "),
    ({"steps": [{**FULL, "shadow": "yes"}, FULL]}, "steps.0.shadow: 'yes' given, a valid boolean wanted"),
    ({"steps": [{**FULL, "min_samples": 1.5}]}, "steps.0.min_samples: 1.5 given, a whole number from 0 to 1000000000 wanted"),
    ({"steps": [{**FULL, "approval": "ask"}]}, "steps.0.approval: 'ask' given, 'auto' or 'manual' wanted"),
    ({"steps": [{**FULL, "after_max": "stop"}]}, "steps.0.after_max: 'stop' given, 'hold' or 'rollback' wanted"),
    ({"steps": [{**FULL, "gates": {"agreement": {"at_leats": 1}}}]}, "steps.0.gates.agreement.at_leats: unknown key; did you mean 'at_least'?"),
    ({"gates": {"agrement": {}}}, "gates.agrement: unknown key; did you mean 'agreement'?"),
    ({"gates": {"agreement": 0.9}}, "gates.agreement: 0.9 given, keys such as {at_least: ...} wanted"),
    ({"gates": {"agreement": {"proof": "sure"}}}, "gates.agreement.proof: 'sure' given, 'not_worse' or 'proven' wanted"),
    ({"gates": {"error_rate": {"at_most": 5}}}, "gates.error_rate.at_most: 5 given, a number from 0.0 to 1.0 wanted"),
    ({"gates": {"latency_ratio": {"mean": 0}}}, "gates.latency_ratio.mean: 0 given, a number from 0.01 to 1000.0 wanted"),
    ({"gates": {"quality": {"reward_range": [1, 0]}}}, "gates.quality.reward_range: [1, 0] given, null, or the least reward and the greatest wanted"),
    ({"alpha": 0}, "alpha: 0 given, a number from 1e-06 to 0.5 wanted"),
    ({"keep_warm_secs": -1}, "keep_warm_secs: -1 given, "),
    ({"x" * 10_000: 1}, "x" * 100 + ": unknown key"),
    ({1: 2}, "1: 1 given, "),
    ({"steps": [{"share": 1}]}, "steps.0.share: the last step has 100 percent of the traffic"),
    ({"steps": [{**FULL, "shadow": True}]}, "steps.0.share: the last step has 100 percent of the traffic"),
    ({"steps": [{"share": 5}, {"share": 5}, FULL]}, "steps.1.share: 5 given, more than the 5 of the step before wanted"),
    ({"steps": [{"share": 5}, {"share": 50, "shadow": True}, FULL]}, "steps.1.shadow: shadow steps come before those with traffic"),
    ({"steps": [{**FULL, "max_secs": 59}]}, "steps.0.max_secs: 59 given, at least min_secs, 60, wanted"),
])
def test_a_mistake_is_told_with_its_key_what_was_given_and_what_is_wanted(given_, text):
    with pytest.raises(InvalidRequest) as told:
        plan_schema.parsed(given_)
    assert str(told.value).startswith(text)
    assert len(str(told.value)) < 300


@pytest.mark.parametrize(("text", "wanted"), [
    ("steps:\n- share: 1\n  min_sample: 5\n- share: 100", ":3:3: steps.0.min_sample: unknown key; did you mean 'min_samples'?"),
    ("gates:\n  agreement: {at_least: 2}", ":2:15: gates.agreement.at_least: 2 given, "),
    ("steps:\n- share: 5\n- share: 5\n- share: 100", ":3:3: steps.1.share: 5 given, more than the 5 "),
    ("alpha: 0.1\nalpha: 0.2", ":2:1: alpha: given twice"),
    ("steps: [", ":1:"),
    ("- share: 1", ":1:1: [{'share': 1}] given, keys such as {steps: ...} wanted"),
])
def test_a_mistake_in_a_file_is_told_with_its_place(tmp_path, text, wanted):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as told:
        plan_schema.read(path)
    assert str(told.value).startswith(f"{path}{wanted}")


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        plan_schema.read(tmp_path / "plan.yaml")


def test_a_plan_of_nothing_is_the_default(tmp_path):
    (tmp_path / "plan.yaml").write_text("")
    assert plan_schema.parsed({}) == plan_schema.read(tmp_path / "plan.yaml") == Plan()
    assert plan.problem_of(Plan()) == ""


def test_a_file_is_read(tmp_path):
    (tmp_path / "plan.yaml").write_text("steps:\n- {share: 10, approval: manual, max_secs: 600, after_max: rollback}\n"
                                        "- {share: 100, min_secs: 0}\nalpha: 0.01\n")
    got = plan_schema.read(tmp_path / "plan.yaml")
    assert got == Plan((Step(10.0, approval="manual", max_secs=600.0, after_max="rollback"), Step(100.0, min_secs=0.0)), alpha=0.01)


def test_a_json_file_is_read(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps(Plan().as_dict(), indent=1))
    assert plan_schema.read(tmp_path / "plan.json") == Plan()


def test_the_gates_of_a_plan_are_those_of_all_steps_and_a_step_may_have_its_own():
    got = plan_schema.parsed({
        "steps": [{"share": 1, "gates": {"quality": None, "error_rate": {"rise": 0.01}}}, FULL],
        "gates": {"agreement": {"at_least": 0.99}, "latency_ratio": None, "error_rate": {"at_most": 0.5}},
    })
    assert got.steps[1].gates == Gates(ErrorRate(at_most=0.5), None, Agreement(0.99))
    assert got.steps[0].gates == replace(got.steps[1].gates, quality=None, error_rate=ErrorRate(rise=0.01))


@pytest.mark.parametrize(("step", "names"), [
    (Step(100.0, shadow=True), ["agreement", "shadow_errors", "latency_ratio.mean"]),
    (Step(1.0), ["error_rate.at_most", "error_rate.rise", "latency_ratio.mean", "latency_ratio.at_quantile", "quality"]),
    (Step(100.0), ["error_rate.at_most"]),
    (Step(1.0, gates=Gates(None, None, None, None, None)), []),
    (Step(1.0, gates=Gates(ErrorRate(at_most=None), LatencyRatio(at_quantile=None), quality=None)), ["error_rate.rise", "latency_ratio.mean"]),
    (Step(100.0, shadow=True, gates=Gates(latency_ratio=None, shadow_errors=None)), ["agreement"]),
])
def test_a_step_asks_what_can_be_seen_in_it(step, names):
    assert [test.name for test in plan.tests_of(step)] == names


def test_all_tests_of_all_steps_together_have_the_plans_alpha():
    tests = sum(len(plan.tests_of(step)) for step in DEFAULT_STEPS)
    assert tests == 3 + 3 * 5 + 1
    assert Plan().alpha_each * tests == pytest.approx(0.05)
    assert Plan((Step(100.0, gates=Gates(None)),)).alpha_each == 0.05     # nothing is asked, and nothing divided by


shares = st.floats(0, 1)
ratios = st.none() | st.floats(0.01, 1000)
proofs = st.sampled_from(["not_worse", "proven"])
gates = st.builds(
    Gates,
    st.none() | st.builds(ErrorRate, st.none() | shares, st.none() | shares, proofs),
    st.none() | st.builds(LatencyRatio, ratios, st.floats(0.5, 0.9999), ratios, proofs),
    st.none() | st.builds(Agreement, shares, proofs),
    st.none() | st.builds(Quality, st.floats(0, 10), st.none() | st.just((0.0, 5.0)), st.integers(0, 1000), proofs),
    st.none() | st.builds(ShadowErrors, shares, proofs),
)
steps = st.lists(st.builds(Step, st.floats(0.001, 99), min_samples=st.integers(0, 10**9), min_secs=st.floats(0, 1000),
                           after_max=st.sampled_from(["hold", "rollback"]), approval=st.sampled_from(["auto", "manual"]), gates=gates), max_size=5, unique_by=lambda step: step.share)


@given(steps, gates, st.floats(1e-6, 0.5), st.floats(0, 1000))
def test_a_plan_survives_json(some, last, alpha, keep_warm_secs):
    made = Plan((*sorted(some, key=lambda step: step.share), Step(100.0, gates=last)), alpha, keep_warm_secs)
    assert plan_schema.parsed(json.loads(json.dumps(made.as_dict()))) == made


# docs/rollouts.md
DOCS = Path(__file__).resolve().parents[2] / "docs" / "rollouts.md"


def keys(model, above=""):
    """Each key with its default as the page has it, and its text."""
    texts = documented()
    for name, field in model.model_fields.items():
        inside = complaints.part_of(field.annotation)
        if (inside is not None and name in ("error_rate", "latency_ratio", "agreement", "quality", "shadow_errors")) or (name == "gates" and not above):
            yield from keys(inside, f"{above}{name}.")
            continue
        default = "" if field.is_required() else "the plan's" if inside is not None else shown(field.default)
        if name != "steps":
            yield f"| `{above}{name}` | {default} | {texts[model.__name__, name]} |"
        elif inside is not None:
            yield f"| `steps` | above | {texts[model.__name__, name]} |"
            yield from keys(inside, "steps.")


def shown(default):
    if isinstance(default, float):
        return f"{default:g}"
    return default if isinstance(default, str) else json.dumps([round(one) for one in default] if isinstance(default, tuple) else default)


def documented():
    """The texts that stand below the fields of the schema, by class and field."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(plan_schema.schema)))
    return {(one.name, ast.unparse(field.target)): text.value.value for one in ast.walk(tree) if isinstance(one, ast.ClassDef)
            for field, text in itertools.pairwise(one.body) if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)}


def test_the_page_has_every_key_with_its_default_and_every_default_step():
    page = DOCS.read_text()
    wanted = ["| key | default | |\n|---|---|---|\n" + "\n".join(keys(plan_schema.schema()))]
    wanted += [f"| {step.name} | {step.min_samples:,} | {step.min_secs:g} |" for step in DEFAULT_STEPS]
    assert [text for text in wanted if text not in page] == []


def test_the_pages_plan_is_the_one_that_was_tried():
    text = DOCS.read_text().split("```yaml\n")[1].split("```")[0]
    assert plan_schema.parsed(yaml.safe_load(text)) == plan_schema.parsed(rollouts.EXAMPLE)
