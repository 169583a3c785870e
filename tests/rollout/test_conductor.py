"""Rollouts carried out on versions that count by themselves: time is passed in, and the registry's thread is this one."""

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from batchmill.errors import InvalidRequest, NotFound
from batchmill.registry.status import ModelStatus, VersionStatus
from batchmill.rollout import conductor as conductors
from batchmill.rollout import plan_schema
from batchmill.rollout.book import Book
from batchmill.rollout.conductor import Conductor
from batchmill.rollout.evidence import Arm, Evidence, Moments
from batchmill.store import Store

PLAN = plan_schema.parsed({"steps": [
    {"share": 10, "min_samples": 200, "min_secs": 10}, {"share": 50, "min_samples": 200, "min_secs": 10, "approval": "manual"},
    {"share": 100, "min_samples": 200, "min_secs": 10}], "keep_warm_secs": 60})


class World:
    """A model with versions 1 and 2, whose counters are what a test says."""

    def __init__(self, monkeypatch, store=None):
        self.now, self.told, self.arms = 1000.0, [], {"1": Arm(), "2": Arm()}
        self.store = store or Store()
        self.model = ModelStatus("m")
        for number in ("1", "2"):
            self.model.add(VersionStatus(number, "READY", served=SimpleNamespace(routed=0, version=number)))
        monkeypatch.setattr(conductors, "evidence_of", lambda model, incumbent, candidate: Evidence(self.arms[incumbent], self.arms[candidate]))
        self.begin()
        self.change(routed({"1": 100.0}))

    def begin(self):
        """As a server that starts."""
        self.book = Book(self.store)
        self.conductor = Conductor(self.store, self.book, self.move, lambda action, model, version, about: self.told.append(action), lambda: self.now)

    def move(self, name, act):
        done = Future()
        act(self.model, {1, 2})
        self.model.naming = self.book.naming("m", self.model.settings)
        done.set_result(None)
        return done

    def change(self, change):
        self.move("m", self.book.changed(change))

    def serve(self, secs, requests, *, errors=0, slower=1.0):
        """Both versions get some requests; those of version 2 go wrong so often, and take so much longer."""
        self.now += secs
        for number, wrong, ratio in (("1", 0, 0.0), ("2", errors, slower - 1)):
            self.arms[number] = self.arms[number].plus(Arm(requests, wrong, Moments(requests, -5.0 + ratio, 0.01)))
        self.conductor.tick({"m": self.model})

    @property
    def weights(self):
        return dict(self.book.routing("m").traffic.weights)

    @property
    def status(self):
        return self.conductor.told("m")["status"]


def routed(weights):
    from batchmill.rollout import routing

    return routing.with_route(weights, ())


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_a_good_version_goes_step_by_step_to_all_of_the_traffic_and_the_old_one_stays_warm_for_a_while(world):
    world.conductor.start(world.model, "2", PLAN).result()
    assert world.weights == {"1": 90, "2": 10}
    world.serve(5, 300)
    assert world.weights == {"1": 90, "2": 10}, "ten seconds are wanted"
    world.serve(6, 100)
    assert world.weights == {"1": 50, "2": 50}
    world.serve(11, 300)
    assert world.conductor.told("m")["decision"]["outcome"] == "await_approval"
    assert world.weights == {"1": 50, "2": 50}
    world.conductor.approve("m")
    world.serve(1, 0)
    assert world.weights == {"2": 100}
    world.serve(11, 300)
    assert world.status == "completed"
    assert world.book.routing("m").before.weights == {"1": 100}, "a rollback goes to the traffic before the rollout"
    world.serve(61, 0)
    assert (world.weights, world.book.routing("m").before) == ({"2": 100}, None)
    assert world.told == ["rollout.started", "rollout.promoted", "rollout.approved", "rollout.promoted", "rollout.completed"]


@pytest.mark.parametrize(("bad", "gate"), [({"errors": 100}, "error_rate"), ({"slower": 2.0}, "latency_ratio")])
def test_a_bad_version_is_taken_out_of_the_traffic_at_once(world, bad, gate):
    before = world.book.routing("m").traffic
    world.conductor.start(world.model, "2", PLAN).result()
    world.serve(1, 500, **bad)
    assert world.status == "rolled_back"
    assert gate in world.conductor.told("m")["reasons"][0]
    assert world.book.routing("m").traffic == before
    assert world.told == ["rollout.started", "rollout.rolled_back"]


def test_a_version_that_fails_or_goes_is_taken_out_of_the_traffic(world):
    world.conductor.start(world.model, "2", PLAN).result()
    world.model.versions["2"].state, world.model.versions["2"].reason = "FAILED", "its file is broken"
    world.serve(1, 0)
    assert (world.status, world.weights) == ("rolled_back", {"1": 100})
    assert world.conductor.told("m")["reasons"] == ["version 2 failed: its file is broken"]


def test_an_abort_goes_back_and_another_rollout_may_begin(world):
    world.conductor.start(world.model, "2", PLAN).result()
    with pytest.raises(InvalidRequest, match="runs already"):
        world.conductor.start(world.model, "2", PLAN)
    world.conductor.abort(world.model).result()
    assert (world.status, world.weights) == ("aborted", {"1": 100})
    with pytest.raises(InvalidRequest, match="no rollout of model m runs"):
        world.conductor.approve("m")
    world.conductor.start(world.model, "2", PLAN).result()
    assert world.status == "running"


def test_what_cannot_be_rolled_out_is_refused_and_nothing_moves(world):
    with pytest.raises(NotFound, match="no version 3"):
        world.conductor.start(world.model, "3", PLAN)
    with pytest.raises(InvalidRequest, match="has the traffic already"):
        world.conductor.start(world.model, "1", PLAN)
    with pytest.raises(NotFound, match="no rollout"):
        world.conductor.told("m")
    world.model.versions["2"].state = "LOADING"
    with pytest.raises(InvalidRequest, match="version 2 is LOADING"):
        world.conductor.start(world.model, "2", PLAN)
    assert world.weights == {"1": 100}


def test_a_rollout_goes_on_after_a_restart_with_what_it_had_counted(world):
    world.conductor.start(world.model, "2", PLAN).result()
    world.serve(5, 150)
    world.serve(11, 0)
    assert world.weights == {"1": 90, "2": 10}
    world.begin()
    world.arms = {"1": Arm(), "2": Arm()}   # a process that starts has counted nothing
    world.model.versions["1"].served, world.model.versions["2"].served = (SimpleNamespace(routed=0, version=number) for number in "12")
    world.serve(1, 0)
    assert world.conductor.told("m")["decision"]["samples"] == 150
    world.serve(1, 60)
    assert world.weights == {"1": 50, "2": 50}


def test_what_is_told_of_answers_is_evidence_and_goes_on_when_the_versions_counters_begin_at_0(monkeypatch):
    told = {"1": Moments(50, 0.9, 0.1), "2": Moments(10, 0.5, 0.2)}
    world = World(monkeypatch)
    world.conductor._quality = lambda model, version: told[version]
    world.conductor.start(world.model, "2", PLAN).result(0)
    told["2"] = told["2"].plus(Moments(7, 1.0, 0.0))
    world.serve(1, 10)

    def counted():
        rollout = world.conductor._rollouts["m"]
        return rollout.progress.evidence(rollout.last).candidate.quality

    assert (counted().count, counted().mean) == (7, pytest.approx(1.0)), "what came before the rollout says nothing of it"
    world.now += 60
    world.conductor._counting["m"] = ("another process", "has counted")
    world.serve(1, 10)
    told["2"] = told["2"].plus(Moments(3, 1.0, 0.0))
    world.serve(1, 10)
    assert (counted().count, counted().mean) == (10, pytest.approx(1.0))


def test_a_process_that_ends_before_the_traffic_is_back_has_not_ended_the_rollout(world):
    world.conductor.start(world.model, "2", PLAN).result(0)
    world.conductor._move = lambda name, act: Future()  # the registry's thread does not come to it
    world.conductor.abort(world.model)
    world.begin()
    assert (world.status, world.weights) == ("running", {"1": 90, "2": 10})
    world.conductor.abort(world.model).result(0)
    world.begin()
    assert (world.status, world.weights) == ("aborted", {"1": 100})
    assert world.told == ["rollout.started", "rollout.aborted"]


def test_a_rollout_whose_traffic_cannot_be_given_back_goes_on_until_it_can(world):
    def refuse(name, act):
        done = Future()
        done.set_exception(NotFound("the registry has no model m"))
        return done

    world.conductor.start(world.model, "2", PLAN).result(0)
    world.conductor._move = refuse
    world.serve(1, 500, errors=100)
    assert (world.status, world.weights) == ("running", {"1": 90, "2": 10})
    world.conductor._move = world.move
    world.serve(1, 0)
    assert (world.status, world.weights) == ("rolled_back", {"1": 100})
    assert world.told == ["rollout.started", "rollout.rolled_back"]


def test_a_rollout_does_not_begin_while_the_one_before_gives_the_traffic_back(world):
    acts = []
    world.conductor.start(world.model, "2", PLAN).result(0)
    world.conductor._move = lambda name, act: acts.append(act) or Future()
    world.conductor.abort(world.model)
    with pytest.raises(InvalidRequest, match="just being given back"):
        world.conductor.start(world.model, "2", PLAN)
    assert len(acts) == 1
