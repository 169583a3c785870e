"""Whatever happens to the folders, and whenever: the keeper, the route table and the leases on versions, driven step by step.

Folders, keeper and route table are the real ones. The clock is turned by hand, loads end when they are told to, and a "model" is a line of
text that says which generation of its version it is.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import weakref
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from batchmill.app import make_server
from batchmill.config import ServerConfig
from batchmill.core import ort
from batchmill.core.probe import Lease
from batchmill.core.reactor import Server
from batchmill.core.route_table import RouteEntry
from batchmill.registry import settle, watch
from batchmill.registry.keeper import Keeper
from batchmill.registry.status import VersionStatus
from e2e import models
from reference.registry import Generation, Held

MODELS, NUMBERS = ("a", "b"), (1, 2, 3)
LABELLED = "b"          # has label "stable" on version 1
model = st.sampled_from(MODELS)
number = st.sampled_from(NUMBERS)
any_one = st.integers(0, 100)
STEPS = st.lists(st.sampled_from([0.06, 0.5]), min_size=1, max_size=4)      # seconds


class Machine(RuleBasedStateMachine):
    native: ort.Model
    server: Server

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="batchmill-machine-"))
        self.root, self.away = self.home / "registry", self.home / "away"
        self.now, self.generations = 1000.0, 0
        self.disk: dict[str, dict[int, int | None]] = {}        # generation by model and version; None: broken
        self.unloaded: dict[str, dict[int, int | None]] = {}    # by call, and what lay there then
        self.touched: set[str] = set()                          # since then
        self.alive: weakref.WeakSet[Generation] = weakref.WeakSet()
        self.standard: dict[str, Generation] = {}               # of the table
        self.table: set[Generation] = set()
        self.gap: dict[str, bool] = {}                          # since it served last, it had no whole version, or was unloaded
        self.overwrites = False                                 # each load's file while it is read
        self.leases: list[Lease] = []
        self.retired: list[VersionStatus] = []
        self.calls = []
        self.loads = Held()
        self.keeper = Keeper(self.root, self.load, self.publish, self.retired.append, adjust=lambda *_: None,
                             poll_secs=1, clock=lambda: self.now, loaders=self.loads)

    @initialize()
    def start(self):
        for name in MODELS:
            self.disk[name] = {}
            self.put(name, 1, broken=False)
        self.keeper.first_look()
        self.settle()

    # What the keeper is given.
    def load(self, name, number, path, settings):
        text = path.read_text() if path.exists() else ""
        if not text.startswith("."):
            return VersionStatus(str(number), "FAILED", "broken or gone")
        if self.overwrites:
            self.put(name, number, broken=False)
        made = Generation(name, number, self.native, len(text), half=self.overwrites)
        self.alive.add(made)
        return VersionStatus(str(number), "READY", served=made, model=self.native)

    def publish(self, published, complete):
        table = [one.route() for one in published.values()]
        self.server.publish([RouteEntry(*one) for one in table])
        before, self.standard = self.standard, {name: standard for name, _, standard, _ in table if standard}
        self.table = {version for _, versions, _, _ in table for version in versions}
        assert self.table >= {*self.standard.values()}
        assert not any(version.half for version in self.table)
        for name, old in before.items():
            new = self.standard.get(name)
            if new is None:
                could_go_on = not old.may_end or not self.gap[name]
                assert not could_go_on, f"{name} served, and now nothing does"
            elif not old.may_end:
                assert new.number > old.number or (new.number == old.number and new.generation >= old.generation), "it went back"
        for name in self.standard:
            self.gap[name] = not any(self.disk.get(name, {}).values())

    # What happens to the folders.
    def put(self, name, number, broken):
        """A new file in the place of the one before: each is longer than all before it, whatever the clock of the file system says."""
        self.generations += 1
        folder = self.root / name / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        if name == LABELLED and not (folder.parent / "model.yaml").exists():
            (folder.parent / "model.yaml").write_text("labels: {stable: 1}\n")
        (folder / ".part").write_text(("broken" if broken else "").ljust(self.generations + 6, "."))
        (folder / ".part").rename(folder / "model.onnx")
        self.disk[name][number] = None if broken else self.generations + 6
        self.let_end(name, ())

    def let_end(self, name, numbers, unloaded=False):
        """After a change of its folder, or a call."""
        self.touched.add(name)
        self.gap[name] = self.gap.get(name, False) or unloaded or not any(self.disk.get(name, {}).values())
        for version in self.alive:
            if version.name == name and version.number in numbers:
                version.may_end = True

    @rule(name=model, number=number, broken=st.booleans(), seen=st.booleans())
    def write(self, name, number, broken, seen):
        self.disk.setdefault(name, {})
        self.put(name, number, broken)
        if seen:
            self.turn([0.5, 0.5, 0.5])

    @rule(name=model, number=number)
    def remove_version(self, name, number):
        if self.disk.get(name, {}).pop(number, self) is not self:
            shutil.rmtree(self.root / name / str(number))
            self.let_end(name, [number])

    @rule(name=model)
    def remove_model(self, name):
        if self.disk.pop(name, None) is not None:
            shutil.rmtree(self.root / name)
            self.let_end(name, NUMBERS)

    @rule(unmounted=st.booleans(), steps=STEPS, called=st.none() | model)
    def vanish(self, unmounted, steps, called):
        """The registry, for some time; a load call may come meanwhile."""
        self.root.rename(self.away)
        if unmounted:
            self.root.mkdir()
        if called:
            self.call_load(called)
        self.turn(steps)
        if self.loads.tasks:
            self.end_load(0, False)
        self.turn(steps)
        self.away.rename(self.root)

    # What is asked of the server.
    @rule(name=model)
    def call_unload(self, name):
        """A change that is seen after the call takes it back: the folder is looked at before, and nothing changes until it has been heard."""
        self.keeper.wake()
        self.turn([0.06])
        self.calls.append(self.keeper.unload(name))
        self.turn([0.06])
        self.let_end(name, NUMBERS, unloaded=True)
        self.unloaded[name] = dict(self.disk.get(name, {}))
        self.touched.discard(name)

    @rule(name=model)
    def call_load(self, name):
        self.unloaded.pop(name, None)
        there = dict(self.disk.get(name, {}))
        self.calls.append(self.keeper.load(name))
        self.calls[-1].add_done_callback(lambda done: self.loaded_by_call(done, name, there))

    def loaded_by_call(self, done, name, there):
        if not done.exception() and not self.away.exists() and self.disk.get(name, {}) == there:
            self.follows(name, there)

    @rule(name=model, asked=st.sampled_from([b"", b"1", b"2", b"3", b"stable"]))
    def ask(self, name, asked):
        keyword = {"label": asked} if asked == b"stable" else {"version": asked}
        try:
            self.leases.append(Lease(self.server, name.encode(), **keyword))
        except LookupError:
            assert asked or name not in self.standard
        else:
            assert asked or self.leases[-1].is_on(self.standard[name])

    @precondition(lambda self: self.leases)
    @rule(which=any_one)
    def answer(self, which):
        self.leases.pop(which % len(self.leases)).end()

    # Time goes on.
    @rule(steps=STEPS)
    def turn(self, steps):
        for secs in steps:
            self.now += secs
            self.keeper.turn(0)

    @precondition(lambda self: self.loads.tasks)
    @rule(which=any_one, overwrites=st.booleans())
    def end_load(self, which, overwrites):
        self.overwrites = overwrites
        self.loads.tasks.pop(which % len(self.loads.tasks))()

    @rule()
    def reap(self):
        """As the reaper does."""
        for version in [one for one in self.retired if self.server.release(one.served)]:
            assert version.served not in self.standard.values()
            self.retired.remove(version)

    @invariant()
    def a_leased_version_is_not_destroyed(self):
        for lease in self.leases:
            assert sum(lease.is_on(version) for version in self.alive) == 1

    @rule()
    def settle(self):
        """Until nothing more can change: then what serves follows from what lies there, and nothing else is left in memory."""
        for _ in range(30):
            self.turn([1.0])
            while self.loads.tasks:
                self.end_load(0, False)
        assert all(call.done() for call in self.calls)
        self.reap()
        if self.needless():
            gc.collect()
        assert not self.needless()
        if self.disk:
            for name in MODELS:
                self.follows(name, self.disk.get(name, {}))

    def needless(self):
        return [version for version in self.alive if version not in self.table and not any(lease.is_on(version) for lease in self.leases)]

    def follows(self, name, there):
        standard, loaded = self.standard.get(name), self.unloaded.get(name) != there
        whole = [number for number, generation in there.items() if generation]
        if not there or not (loaded or name in self.touched):
            assert standard is None
        if whole and loaded:    # what was changed and changed back after an unload call may have been seen
            assert standard is not None
            assert standard.number >= max(whole)
        if standard is not None:
            assert there.get(standard.number, self) in (standard.generation, None), "what serves is what lies there, or that is broken"
        if name == LABELLED and there.get(1) and loaded:
            lease = Lease(self.server, name.encode(), label=b"stable")
            assert any(lease.is_on(version) and version.generation == there[1] for version in self.alive)

    def teardown(self):
        self.keeper.stop()
        self.leases.clear()
        self.server.publish([])
        shutil.rmtree(self.home)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Hints would come when they like, and how old a file is says another clock."""
    ort.initialise()
    monkeypatch.setattr(watch, "start", lambda *_: None)
    monkeypatch.setattr(settle, "is_old", lambda _: False)
    return type("Machine", (Machine,), {"native": ort.Model(str(models.linear(tmp_path))), "server": make_server(ServerConfig())})


def test_leased_versions_live_ready_ones_serve_on_and_swaps_are_whole(machine):
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[*HealthCheck]))


# What it found: these steps again, which end in settle()'s claims.
def test_a_load_call_is_answered_when_a_newer_version_comes_before_the_older_stands_still(machine):
    found = machine()
    found.start()
    found.write("a", 1, broken=False, seen=False)
    found.call_load("a")
    found.turn([0.0])
    found.write("a", 2, broken=False, seen=False)
    found.settle()
    found.teardown()


def test_a_load_call_is_answered_when_the_model_is_unloaded_before_it_stands_still(machine):
    found = machine()
    found.start()
    found.call_unload("a")
    found.call_load("a")
    found.turn([0.0])
    found.call_unload("a")
    found.settle()
    found.teardown()


def test_a_version_that_was_loaded_in_vain_is_let_go(machine):
    found = machine()
    found.start()
    found.write("a", 2, broken=False, seen=True)
    found.call_unload("a")
    found.end_load(0, overwrites=False)
    found.settle()
    found.teardown()
