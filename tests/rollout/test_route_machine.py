"""Whatever happens to folders, calls and the process, and whenever: who gets a request, held against routes written down key by key.

Folders, registry, routes, rollouts, state file, audit trail and route table are the real ones. The clock is turned by hand, loads end when they
are told to, a "model" is a line of text (the longer, the younger), and what a rollout has counted is what a rule says.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from batchmill import recorder
from batchmill.app import make_server
from batchmill.chain import Event
from batchmill.config import ServerConfig
from batchmill.core import ort
from batchmill.ledger import Wanted
from batchmill.registry import settle, watch
from batchmill.registry.naming import Rule, Shadow
from batchmill.rollout import conductor, evidence, plan_schema
from batchmill.rollout import routing as routings
from batchmill.rollout.evidence import Arm, Evidence
from e2e import models
from reference.routes import Routes
from reference.served import PEER
from reference.watched import Move, Watched

NUMBERS = (1, 2, 3, 4)
version = st.sampled_from("1234")
number = st.sampled_from(NUMBERS)
label = st.sampled_from(["stable", "canary"])
WEIGHTS = st.dictionaries(version, st.sampled_from([0.0, 1.0, 10.0, 33.0, 50.0, 90.0]), max_size=3)
RULES = st.lists(st.builds(Rule, st.just("header"), st.just("x-tenant"), st.sampled_from(["acme", "umbrella"]), version)
                 | st.builds(Rule, st.just("parameter"), st.just("tier"), st.just("gold"), version), max_size=2).map(tuple)  # fmt: skip
THEN = st.sampled_from(["", "seen", "seen", "killed"])
STEPS = st.lists(st.sampled_from([0.06, 0.5, 6.0]), min_size=1, max_size=4)  # seconds
FILES = {"": {}, "labels: {stable: 1}": {"stable": "1"}, "labels: {stable: 2, old: 1}\nversions: {count: 2}": {"stable": "2", "old": "1"},
         "versions: {policy: [1, 2]}": {}, "versions: {policy: all}": {}}  # the labels of each  # fmt: skip
GATES = {"error_rate": {"rise": None}, "latency_ratio": None, "quality": None}
STEP = {"min_samples": 200, "min_secs": 1}
PLANS = [plan_schema.parsed({"steps": steps, "gates": GATES, "keep_warm_secs": 5}) for steps in (
    [{"share": 100, **STEP}],
    [{"share": 10, "approval": "manual", **STEP}, {"share": 50, **STEP}, {"share": 100, **STEP}],
    [{"share": 100, "shadow": True, **STEP}, {"share": 25, **STEP}, {"share": 100, **STEP}],
    [{"share": 1, "max_secs": 5, "after_max": "rollback", **STEP}, {"share": 100, **STEP}])]  # fmt: skip
COUNTED = {"good": Arm(400), "bad": Arm(400, 200), "little": Arm(5)}
SHADOWED = {"good": evidence.Shadow(400, 400), "bad": evidence.Shadow(400, 100, 50), "little": evidence.Shadow(5, 5)}


class Machine(Watched):
    def __init__(self) -> None:
        super().__init__()
        self.root, self.model = self.served.root, self.served.root / "m"
        self.generations = 0
        self.text = ""                      # of model.yaml
        self.is_held: bool | None = False   # unloaded by a call; None: perhaps

    @initialize(routed=st.sampled_from([True, True, False]))
    def start(self, routed=False):
        for name in ("m", "other"):  # a registry without any model is one that has vanished
            (self.root / name / "1").mkdir(parents=True)
        (self.root / "other" / "1" / "model.onnx").write_text(".")
        self.put(1)
        self.put(2)
        self.served.begin()
        self.settle()
        if routed:  # by which both are served
            self.promote("1", seen=True)
            self.settle()

    # Folders.
    def put(self, number: int, broken: bool = False) -> None:
        self.generations += 1
        folder = self.model / str(number)
        folder.mkdir(exist_ok=True)
        (folder / ".part").write_text(("broken" if broken else "").ljust(self.generations + 6, "."))
        (folder / ".part").rename(folder / "model.onnx")
        self.disk[number] = None if broken else self.generations + 6
        self.touch()

    def touch(self, *ended: int) -> None:
        """After a change of its folder."""
        self.is_held = None if self.is_held else self.is_held
        for one in self.served.alive:
            if one.name == "m" and one.number in ended:
                one.may_end = True

    @property
    def is_there(self) -> bool:
        return self.model.exists()

    @precondition(lambda self: self.is_there)
    @rule(number=number, broken=st.booleans(), seen=st.booleans())
    def write(self, number, broken, seen):
        self.put(number, broken)
        if seen:
            self.served.turn(0.5, 0.5, 0.5)

    @precondition(lambda self: self.is_there)
    @rule(number=number)
    def remove_version(self, number):
        if self.disk.pop(number, self) is not self:
            shutil.rmtree(self.model / str(number))
            self.touch(*[] if str(number) in self.routes.answering else [number])

    @rule(what=st.sampled_from(["model", "registry", "registry", "unload"]), unmounted=st.booleans(), steps=STEPS)
    def lose(self, what, unmounted, steps):
        """One rule, so that it is not the most of what happens."""
        if what == "unload":
            self.call_unload()
        elif what == "registry":
            self.vanish(unmounted, steps)
        elif self.is_there:
            self.model.rename(self.served.home / "m-away")
            self.touch(*NUMBERS)
            if unmounted:  # the registry's thread knows, and nobody else yet
                self.served.keeper.wake()
                self.served.turn(0.0)

    @precondition(lambda self: not self.is_there)
    @rule()
    def return_model(self):
        (self.served.home / "m-away").rename(self.model)
        self.touch()

    def vanish(self, unmounted, steps):
        """The registry, for some time."""
        away = self.served.home / "away"
        self.root.rename(away)
        if unmounted:
            self.root.mkdir()
        self.served.turn(*steps)
        if unmounted:
            self.root.rmdir()
        away.rename(self.root)

    @precondition(lambda self: self.is_there)
    @rule(text=st.sampled_from(sorted(FILES)))
    def edit_settings(self, text):
        self.text = text
        (self.model / ".yaml").write_text(text)
        (self.model / ".yaml").rename(self.model / "model.yaml")
        self.generations += 1
        os.utime(self.model / "model.yaml", (self.generations, self.generations))
        self.touch()

    # Calls.
    @rule(seen=st.booleans())
    def call_load(self, seen):
        self.served.ask("model.load", self.served.repository.load("m", {}, PEER, {}))
        self.is_held = None if self.is_held else False
        if seen:
            self.served.turn(0.06, 0.06)
            self.is_held = False if self.is_there else self.is_held

    def call_unload(self):
        """A change that is seen after the call takes it back: the folder is looked at before."""
        self.served.keeper.wake()
        self.served.turn(0.06)
        self.served.ask("model.unload", self.served.repository.unload("m", PEER, {}))
        self.served.turn(0.06)
        for one in self.served.alive:
            one.may_end |= one.name == "m"
        self.is_held = True

    def change(self, action, change, becomes, seen):
        async def make():
            return change

        self.op = Move(becomes)
        asked = self.served.ask(action, self.served.switchboard.changed("m", action, PEER, {}, make))
        self.op = None
        if seen:
            self.served.turn(0.06, 0.06)
            self.served.answers(asked)
            if asked.went_well:
                self.equals_answer(asked.task.result())

    @rule(weights=WEIGHTS.filter(lambda weights: not weights or any(weights.values())), rules=RULES, seen=st.booleans())
    def set_route(self, weights, rules, seen):
        plain = tuple((one.kind, one.name, one.equals, one.version) for one in rules)
        change = routings.with_route(weights, rules)
        self.change("route.set", change, lambda routes, standard: replace(routes.moved(weights, standard), rules=plain), seen)

    @rule(what=st.sampled_from(["promote", "promote", "roll_back", "roll_back", "clear_route"]), version=version, seen=st.booleans())
    def move_traffic(self, what, version, seen):
        self.promote(version, seen) if what == "promote" else getattr(self, what)(seen)

    def clear_route(self, seen):
        self.change("route.cleared", routings.cleared, lambda routes, _: routes.cleared(), seen)

    def promote(self, version, seen):
        self.change("traffic.promoted", routings.promoted(version), lambda routes, standard: routes.moved({version: 100.0}, standard), seen)

    def roll_back(self, seen):
        self.change("traffic.rolled_back", routings.rolled_back, Routes.rolled_back, seen)

    @rule(label=label, version=version | st.none(), seen=st.booleans())
    def set_label(self, label, version, seen):
        action = "label.set" if version else "label.removed"
        self.change(action, routings.labelled(label, version), lambda routes, _: routes.labelled(label, version), seen)

    @rule(version=version, share=st.sampled_from([1.0, 0.1, None]), seen=st.booleans())
    def set_shadow(self, version, share, seen):
        """None: it ends."""
        if share is None:
            return self.change("shadow.stopped", routings.unshadowed(version), lambda routes, _: routes.unshadowed(version), seen)
        return self.change("shadow.set", routings.shadowed(Shadow(version, share)), lambda routes, standard: routes.shadowed(version, standard), seen)

    # Rollouts.
    def call_conductor(self, action, act, stages):
        async def work():
            done = act()
            if done is not None:
                await asyncio.wrap_future(done)

        self.conduct(lambda: self.served.ask(action, self.served.recorder.call(Event(action, "m", actor=PEER), work())), stages)

    def go_to(self, then):
        if then == "seen":
            self.served.turn(0.06, 0.06)
        elif then == "killed":  # before the registry's thread has come to it
            self.begin_again(True)

    @precondition(lambda self: "m" in self.served.models)
    @rule(version=st.none() | version, plan=st.sampled_from(range(len(PLANS))), then=THEN)
    def start_rollout(self, version, plan, then):
        """None: of the newest that could. Another one is aborted for it."""
        if self.is_running:
            return self.decide(False, then)
        version = version or next((one.number for one in reversed(self.served.models["m"].ready()) if one.number != self.standard), "1")
        self.call_conductor("rollout.start", lambda: self.served.conductor.start(self.served.models["m"], version, PLANS[plan]), ["running"])
        return self.go_to(then)

    @property
    def is_running(self):
        return self.stage is not None and self.stage.status == "running"

    @precondition(lambda self: "m" in self.served.models and self.is_running)
    @rule(approves=st.booleans(), then=THEN)
    def decide(self, approves, then):
        if approves:
            self.call_conductor("rollout.approve", lambda: self.served.conductor.approve("m"), ["running"])
        else:
            self.call_conductor("rollout.abort", lambda: self.served.conductor.abort(self.served.models["m"]), ["aborted"])
        self.go_to(then)

    @precondition(lambda self: self.stage)
    @rule(counted=st.sampled_from(["good", "good", "good", "bad", "little"]), secs=st.sampled_from([2.0, 6.0, 0.0]), then=THEN)
    def tick(self, counted, secs, then):
        model = self.served.models.get("m")
        candidate, incumbent = (model.pick(one) if model else None for one in (self.stage.candidate, self.stage.incumbent))
        self.served.now += secs
        if candidate and incumbent:
            incumbent.served.arm = getattr(incumbent.served, "arm", Arm()).plus(COUNTED["good"])
            candidate.served.arm = getattr(candidate.served, "arm", Arm()).plus(COUNTED[counted])
            for epoch in epochs_of(model, candidate.number):
                shadows = candidate.served.__dict__.setdefault("shadows", {})
                shadows[epoch] = shadows.get(epoch, evidence.Shadow()).plus(SHADOWED[counted])
        models = self.served.models if self.served.complete else {}
        self.conduct(lambda: self.served.conductor.tick(models), ["running", "completed", "rolled_back", "aborted"])
        self.go_to(then)

    @precondition(lambda self: self.is_running)
    @rule(counted=st.sampled_from(["good", "good", "good", "bad"]), looks=st.integers(1, 4))
    def go_on(self, counted, looks):
        """Some looks, each with all it could ask for."""
        for _ in range(looks):
            if self.is_running:  # its start may be refused yet
                self.tick(counted, 2.0, "seen")

    # Time and processes.
    @rule(steps=STEPS, loads=st.booleans())
    def turn(self, steps, loads):
        for secs in steps:
            self.served.turn(secs)
            if loads:
                self.served.end_loads()

    @precondition(lambda self: self.served.loads.tasks)
    @rule(which=st.integers(0, 100))
    def end_load(self, which):
        self.served.loads.tasks.pop(which % len(self.served.loads.tasks))()

    @rule(how=st.sampled_from(["kill", "kill", "stop", "", ""]))
    def restart(self, how):
        if how:
            if how == "stop":
                self.settle()
            self.begin_again(how == "kill")

    def begin_again(self, kill):
        self.note_answers()
        self.served.end(kill)
        self.moves.clear()
        self.steady, self.answering, self.led, self.is_held = set(), set(), {}, False
        self.served.begin()
        self.equals_book()
        self.stage = self.told()
        assert self.stage == self.kept
        audit = self.served.recorder.audit
        entries = audit.entries(Wanted("m", newest=10_000))
        assert self.acknowledged <= Counter(one["action"] for one in entries if (one["actor"], one["outcome"]) == (PEER, "ok"))
        assert audit.verify().broken is None

    def note_answers(self) -> None:
        self.acknowledged += Counter(one.action for one in self.served.asked if one.went_well)

    @rule()
    def settle(self):
        """Until nothing more can change: then what serves follows from what lies there and from what is named."""
        for _ in range(12):
            self.served.turn(1.0)
            self.served.end_loads()
        self.served.turn(0.06)
        self.served.answers()
        assert not self.moves
        self.is_carried_out()
        if self.is_there and self.is_held is False:
            table = {one.number: one for one in self.served.table if one.name == "m"}
            assert self.file == FILES[self.text]
            for one in map(int, self.named()):
                if self.disk.get(one):
                    assert table[one].generation == self.disk[one], "what is named is served as it lies there"
            assert all(one in self.disk or str(one) in self.routes.answering for one in table)
            assert table or "[" in self.text or not any(self.disk.values())

    def teardown(self):
        self.served.close()


def epochs_of(model, number):
    return [one.epoch for one in model.naming.shadows if one.version == number]


def counted(model, incumbent, candidate):
    arms = [getattr(one and one.served, "arm", Arm()) for one in (model.versions.get(incumbent), model.versions.get(candidate))]
    found = model.versions.get(candidate)
    shadows = getattr(found and found.served, "shadows", {})
    return Evidence(*arms, next((shadows[epoch] for epoch in epochs_of(model, candidate) if epoch in shadows), evidence.Shadow()))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Hints would come when they like, and how old a file is says another clock."""
    ort.initialise()
    monkeypatch.setattr(watch, "start", lambda *_: None)
    monkeypatch.setattr(settle, "is_old", lambda _: False)
    monkeypatch.setattr(recorder, "VERIFY_PAUSE_SECS", 0.0)
    monkeypatch.setattr(conductor, "evidence_of", counted)
    return type("Machine", (Machine,), {"native": ort.Model(str(models.linear(tmp_path))), "server": make_server(ServerConfig())})


def run(machine, examples, steps):
    some = settings(max_examples=examples, stateful_step_count=steps, suppress_health_check=[*HealthCheck])
    run_state_machine_as_test(machine, settings=some)


def test_requests_go_where_the_routes_say_whatever_happens(machine):
    run(machine, 30, 30)


def test_a_version_whose_folder_has_come_back_serves_on_when_a_call_comes_before_a_look(machine):
    state = machine()
    try:
        state.start(routed=True)
        state.remove_version(number=1)
        state.settle()
        state.write(broken=False, number=1, seen=False)
        state.set_route(rules=(), seen=True, weights={})
    finally:
        state.teardown()


@pytest.mark.long
def test_requests_go_where_the_routes_say_whatever_happens_for_long(machine):
    run(machine, int(os.environ.get("BATCHMILL_MACHINE_EXAMPLES", "1000")), 60)
