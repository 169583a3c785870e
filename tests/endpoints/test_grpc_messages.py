"""What REST tells and takes goes through the messages of the admin service whole."""

import asyncio
import math
import re
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill import complaints
from batchmill.audit import Audit
from batchmill.chain import Event
from batchmill.endpoints.audited import Trail, wanted
from batchmill.endpoints.grpc_admin import disagreement_of
from batchmill.endpoints.grpc_messages import filled, given_of
from batchmill.endpoints.shadows import GivenShadow
from batchmill.errors import InvalidRequest
from batchmill.proto import admin_pb2 as pb
from batchmill.registry.naming import Naming, Shadow
from batchmill.registry.status import ModelStatus, VersionStatus
from batchmill.rollout import conductor as conductors
from batchmill.rollout import engine, gates, plan_schema
from batchmill.rollout import shadow as shadows
from batchmill.rollout.book import Book
from batchmill.rollout.conductor import Conductor
from batchmill.rollout.evidence import Arm, Evidence, Moments
from batchmill.rollout.split import SLOTS
from batchmill.store import Store
from reference.messages import lost

NULLS = {"gates": {"error_rate": {"at_most": None, "rise": None}, "latency_ratio": None, "quality": {"reward_range": None}}, "alpha": 0.01}


# What is told of rollouts.
class Rolling:
    """A model with versions 1 and 2, whose traffic is 1's; a rollout of 2 has begun."""

    def __init__(self, monkeypatch, plan):
        self.now, self.arms, self.model = 1000.0, {"1": Arm(), "2": Arm()}, ModelStatus("m")
        for number in ("1", "2"):
            self.model.add(VersionStatus(number, "READY", served=SimpleNamespace(routed=0, version=number)))
        monkeypatch.setattr(conductors, "evidence_of", lambda model, incumbent, candidate: Evidence(self.arms[incumbent], self.arms[candidate]))
        self.model.naming = Naming(shares=((SLOTS, "1"),))
        book = Book(Store())
        self.conductor = Conductor(Store(), book, lambda name, act: Future(), lambda *about: None, lambda: self.now)
        self.conductor.start(self.model, "2", plan_schema.parsed(plan))

    def look(self, requests=0, errors=0):
        self.now += 100
        for number, wrong in (("1", 0), ("2", errors)):
            self.arms[number] = self.arms[number].plus(Arm(requests, wrong, Moments(requests, -5.0, 0.01)))
        self.conductor._moving.clear()
        self.conductor.tick({"m": self.model})
        return self.conductor.told("m")


@pytest.mark.parametrize("plan", [{}, {"steps": [{"share": 5, "approval": "manual", "max_secs": 500}, {"share": 100}], **NULLS}], ids=["default", "own"])
def test_all_that_is_told_of_a_rollout_is_in_the_message(monkeypatch, plan):
    rolling = Rolling(monkeypatch, plan)
    for told in (rolling.conductor.told("m"), rolling.look(), rolling.look(5000), rolling.look(1000, 1000)):
        assert lost(told, filled(pb.Rollout(), told)) == []


def test_what_is_told_without_a_field_for_it_is_a_fault_and_never_left_out():
    with pytest.raises(KeyError):
        filled(pb.Rollout(), {"model": "m", "mood": "good"})
    with pytest.raises(KeyError):
        filled(pb.Rollout(), {"status": "dreaming"})
    assert lost({"model": "m", "mood": "good"}, pb.Rollout(model="m")) == ["mood"]
    assert lost({"model": "m"}, pb.Rollout(model="n", approved=True)) == ["model", "approved"]


@pytest.mark.parametrize(("enum", "words"), [
    (pb.Rollout.Status, {conductors.RUNNING, conductors.COMPLETED, conductors.ROLLED_BACK, conductors.ABORTED, conductors.NONE}),
    (pb.Rollout.By, {conductors.CALL, conductors.POLICY}),
    (pb.Decision.Outcome, {engine.PROMOTE, engine.HOLD, engine.AWAIT_APPROVAL, engine.ROLL_BACK, engine.COMPLETE}),
    (pb.GateResult.Verdict, {gates.PASSED, gates.FAILED, gates.UNDECIDED}),
    (pb.Shadow.State, {"waits", "mirrors"}),
    (pb.Shadow.AgreeBy, {*get_args(GivenShadow.model_fields["agree_by"].annotation)}),
])
def test_an_enum_has_the_words_of_rest_and_no_others(enum, words):
    assert {name.lower() for name, number in enum.items() if number} == words


# Plans.
share, ratio, secs, count = st.floats(0, 1), st.floats(0.01, 1000), st.floats(0, 1000), st.integers(0, 10**9)
proof = st.sampled_from(["not_worse", "proven"])


def some(**kinds):
    """Keys that may be left out."""
    return st.fixed_dictionaries({}, optional=kinds)


given_gates = some(
    error_rate=st.none() | some(at_most=st.none() | share, rise=st.none() | share, proof=proof),
    latency_ratio=st.none() | some(mean=st.none() | ratio, quantile=st.floats(0.5, 0.9999), at_quantile=st.none() | ratio, proof=proof),
    agreement=st.none() | some(at_least=share, proof=proof),
    quality=st.none() | some(margin=share, reward_range=st.none() | st.just([-1.0, 5.0]), min_samples=count, proof=proof),
    shadow_errors=st.none() | some(at_most=share, proof=proof),
)
optional = {"min_samples": count, "min_secs": secs, "max_secs": st.none() | st.floats(1000, 2000), "after_max": st.sampled_from(["hold", "rollback"]),
            "approval": st.sampled_from(["auto", "manual"]), "gates": given_gates}
step = st.fixed_dictionaries({"share": st.floats(0.001, 99)}, optional=optional)
steps = st.lists(step, max_size=4, unique_by=lambda one: one["share"]).map(lambda some: [*sorted(some, key=lambda one: one["share"]), {"share": 100}])
shadow_steps = st.just([{"share": 10, "shadow": True}, {"share": 100, "shadow": True, "gates": {"agreement": None}}, {"share": 100.0}])
plans = some(steps=st.none() | steps | shadow_steps, gates=given_gates, alpha=st.floats(1e-6, 0.5), keep_warm_secs=secs)


def sent(message):
    return type(message).FromString(message.SerializeToString())


@given(plans)
def test_a_plan_says_over_grpc_what_it_says_over_rest_with_all_that_is_left_out_or_null(plan):
    message = filled(pb.Plan(), plan)
    assert plan_schema.parsed(given_of(sent(message))) == plan_schema.parsed(plan)
    assert lost({key: value for key, value in plan.items() if (key, value) != ("steps", None)}, message) == []


@given(plans)
def test_a_plan_that_was_told_can_be_given_again(plan):
    told = plan_schema.parsed(plan)
    assert plan_schema.parsed(given_of(sent(filled(pb.Plan(), told.as_dict())))) == told


def keys(descriptor, model, above=""):
    """Paths that differ between the fields of a message and of the pydantic model, words included."""
    names = {name: field for name, field in descriptor.fields_by_name.items() if name not in ("disabled", "model")}
    yield from (f"{above}{name}" for name in names.keys() ^ model.model_fields.keys())
    for name in names.keys() & model.model_fields.keys():
        inside, field = complaints.part_of(model.model_fields[name].annotation), names[name]
        if inside is not None:
            yield from keys(field.message_type, inside, f"{above}{name}.")
        words = {word for word in get_args(model.model_fields[name].annotation) if isinstance(word, str)}
        if words != ({value.name.lower() for value in field.enum_type.values if value.number} if field.enum_type else set()):
            yield f"{above}{name}: {words}"


def test_messages_have_the_keys_and_words_of_rest_and_no_others():
    assert [*keys(pb.Plan.DESCRIPTOR, plan_schema.schema())] == []
    assert [*keys(pb.SetShadowRequest.DESCRIPTOR, GivenShadow)] == []


def commented():
    """(message, field): the text above it in admin.proto; of a field of an enum also the text of the enum's number 0."""
    text = (Path(__file__).resolve().parents[2] / "protos" / "admin.proto").read_text()
    unset = dict(re.findall(r"enum (\w+) \{\s+\w+ = 0;  // (.*)", text))
    for name, body in re.findall(r"^message (\w+) \{\n(.*?)^\}", text, re.M | re.S):
        for comment, kind, field in re.findall(r"((?:^  //.*\n)*)^  (?:optional )?([\w.]+) (\w+) = \d+;", body, re.M):
            yield (name, field), comment + unset.get(kind.split(".")[-1], "")


def defaults(descriptor, model):
    """(message, field): the default, of what is one value."""
    for name, field in model.model_fields.items():
        inside = complaints.part_of(field.annotation)
        if inside is not None:
            yield from defaults(descriptor.fields_by_name[name].message_type, inside)
        elif not field.is_required() and isinstance(field.default, str | float | int) and not isinstance(field.default, bool):
            yield (descriptor.name, name), field.default


def test_the_comments_tell_the_defaults():
    texts = dict(commented())
    wanted = [*defaults(pb.Plan.DESCRIPTOR, plan_schema.schema()), *defaults(pb.SetShadowRequest.DESCRIPTOR, GivenShadow)]
    assert len(wanted) > 20
    for place, default in wanted:
        told = re.search(r"default:? (?:is )?([A-Z_]+|[0-9.]*[0-9])", texts[place].replace("Default", "default"))
        assert told, place
        assert (told[1].lower() if isinstance(default, str) else float(told[1])) == default, place


@pytest.mark.parametrize(("plan", "text"), [
    (pb.Plan(steps=[pb.Step()]), "steps.0.share: missing"),
    (pb.Plan(steps=[pb.Step(share=5), pb.Step(share=100, min_secs=-1)]), "steps.1.min_secs: -1.0 given, a number from 0.0 to "),
    (pb.Plan(steps=[pb.Step(share=math.nan)]), "steps.0.share: nan given, "),
    (pb.Plan(steps=[pb.Step(share=100, approval=7)]), "steps.0.approval: 7 given, 'auto' or 'manual' wanted"),
    (pb.Plan(steps=[pb.Step(share=100)] * 33), "steps: "),
    (pb.Plan(alpha=math.inf), "alpha: None given, "),
    (pb.Plan(gates=pb.Gates(quality=pb.QualityGate(reward_range=pb.Interval(low=1)))), "gates.quality.reward_range: [1.0, None] given, null, or "),
    (pb.Plan(gates=pb.Gates(quality=pb.QualityGate(disabled=True, margin=1))), "gates.quality.margin: given, and the gate is disabled"),
    (pb.Plan(steps=[pb.Step(share=100, gates=pb.Gates(agreement=pb.AgreementGate(disabled=True, proof="PROVEN")))]), "steps.0.gates.agreement.proof: given, and"),
])
def test_a_mistake_in_a_plan_is_told_with_its_key(plan, text):
    with pytest.raises(InvalidRequest) as refused:
        plan_schema.parsed(given_of(plan))
    assert str(refused.value).startswith(text)


# Shadows.
NUMBERS = {"count": 400, "mean": 0.25, "variance": 0.04}
FEW, NONE = {"count": 1, "mean": 0.5, "variance": 0.0}, {"count": 0, "mean": 0.0, "variance": 0.0}
FIGURES = {"epoch": 3, "active": True, **{key: number for number, key in enumerate(shadows.COUNTS, 1)}, "cpu_ns": 1_500_000_000, "last_error": "broken"}
OUTPUT = {"compared": 5, "agreeing": 4, "equal": 3, "shapes_differ": 2, "not_finite": 1, "max_abs": 0.5, "max_rel": math.inf}
WORST = [{"id": "7", "output": "y", "unix_ms": 1_700_000_000_123, "excess": None, "max_abs": 0.5, "max_rel": 0.25, "cosine": 0.75, "shapes_differ": True,
          "inputs": [("x", "FP32", [1, 2], bytes(8))], "answered": [("y", "FP32", [], b"")], "candidate": [("y", "FP32", [2], None)]}]


@pytest.mark.parametrize("numbers", [NUMBERS, FEW, NONE])
@pytest.mark.parametrize("epoch", [3, 4], ids=["figures", "none yet"])
def test_all_that_is_told_of_a_shadow_is_in_the_message(monkeypatch, numbers, epoch):
    output = {**OUTPUT, **dict.fromkeys(("abs", "rel", "cosine", "argmax", "top"), numbers)}
    found = {**FIGURES, "log_latency_ratio": numbers, "outputs": {"y": output, "z": output}}
    monkeypatch.setattr(shadows, "shadow_figures", SimpleNamespace(stats_of=lambda version: found))
    model = ModelStatus("m")
    model.add(VersionStatus("2", "READY", served=object()))
    told = {"model": "m", "shadows": [shadows.told(model, Shadow("2", 0.5, agree_by="argmax", epoch=epoch)), shadows.told(model, Shadow("3"))]}
    assert (told["shadows"][0]["figures"] is None) == (epoch == 4)
    assert lost(told, filled(pb.Shadows(), told)) == []


def test_all_that_is_told_of_a_disagreement_is_in_the_message_and_no_bytes_are_not_empty_bytes(monkeypatch):
    monkeypatch.setattr(shadows, "shadow_figures", SimpleNamespace(worst_of=lambda version: WORST))
    model = ModelStatus("m")
    model.add(VersionStatus("2", "READY", served=object()))
    (told,) = shadows.worst(model, Shadow("2"))
    message = sent(disagreement_of("2", told))
    assert lost({"version": "2", **told}, message) == []
    assert [side[0].HasField("raw") for side in (message.inputs, message.answered, message.candidate)] == [True, True, False]


# The audit trail.
def test_all_that_is_told_of_the_trail_is_in_the_messages():
    audit = Audit(Store())
    deep = {"weights": {"1": 90, "2": 0.5}, "rules": [{"header": "x", "on": None}, True], "none": {}}
    for event in (Event("a", "m", "1", before=deep, after={}, files={"1/model.onnx": "f" * 64}), Event("b", after=[1, "x"]),
                  Event("c", key=True, actor="ipv4:1.2.3.4:5", outcome="refused", reason="é")):
        audit.record(event)
    trail = Trail(lambda: audit)
    page = asyncio.run(trail.page(wanted("", "", "", 0, 100, 0.0)))
    assert len(page["entries"]) == 3
    assert lost(page, filled(pb.ListAuditResponse(), page)) == []
    head = asyncio.run(trail.head())
    assert lost(head, filled(pb.AuditHead(), head)) == []
    audit._memory._entries[1]["model"] = "other"
    told = asyncio.run(trail.verify(""))
    assert told["broken"] == 2
    assert lost(told, filled(pb.VerifyAuditResponse(), told)) == []
