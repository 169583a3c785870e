"""A model whose model.yaml says `rollout:`, and people who move its traffic beside that."""

import pytest
from policy_mill import SHADOW, TRAFFIC

from batchmill.registry.naming import Shadow
from batchmill.rollout import routing as routings


@pytest.mark.parametrize(("change", "answers"), [
    (routings.promoted("1"), "1"), (routings.promoted("2"), "2"), (routings.with_route({"1": 50.0, "2": 50.0}, ()), "12"),
    (routings.rolled_back, "1"),
], ids=["promote the old", "promote the new", "route", "rollback"])
@pytest.mark.parametrize("settings", [TRAFFIC, SHADOW], ids=["traffic", "shadow"])
def test_a_call_that_says_who_gets_the_traffic_ends_the_rollout_and_stands(mill, settings, change, answers):
    m = mill(settings)
    m.go()
    m.write(2)
    m.go()
    m.call(change)
    m.go(4)
    assert (m.status, m.answers, m.started) == ("aborted", answers, ["2"])
    assert m.conductor.told("m")["reasons"] == ["a call has moved the traffic"]
    assert not m.model.naming.shadows
    m.write(3)
    m.go()
    assert m.started == ["2", "3"], "it was about those that were there"


def test_a_version_that_was_there_when_a_call_moved_the_traffic_does_not_begin_by_itself(mill):
    m = mill()
    m.go()
    m.write(2)
    m.turn()
    m.call(routings.promoted("1"))
    m.go(3)
    assert (m.started, m.answers) == ([], "1")
    m.write(3)
    m.go()
    assert m.started == ["3"]


def test_a_version_that_a_call_has_given_a_share_before_it_was_loaded_does_not_begin_by_itself(mill):
    m = mill(TRAFFIC + "versions: {policy: [1]}\n", 1, 2)
    m.go()
    m.call(routings.with_route({"1": 90.0, "2": 10.0}, ()))
    m.go(3)
    assert (m.started, m.answers, m.waits) == ([], "12", {})


def test_a_cleared_route_ends_it_too_and_leaves_the_traffic_with_the_version_in_service(mill):
    m = mill()
    m.go()
    m.write(2)
    m.go()
    m.call(routings.cleared)
    m.go(3)
    assert (m.status, m.answers, m.started) == ("aborted", "1", ["2"])


@pytest.mark.parametrize("change", [routings.labelled("canary", "2"), routings.labelled("stable", "1"), routings.shadowed(Shadow("2", 0.5))])
def test_labels_and_shadows_do_not_disturb_it(mill, change):
    m = mill(SHADOW)
    m.go()
    m.write(2)
    m.go()
    m.call(change)
    m.go(5)
    assert (m.status, m.answers) == ("completed", "2")


def test_a_shadow_that_was_stopped_is_set_again_as_long_as_its_step_runs(mill):
    m = mill(SHADOW)
    m.go()
    m.write(2)
    m.go()
    m.call(routings.unshadowed())
    m.turn()
    m.conductor.tick(m.models)
    m.turn()
    assert [one.version for one in m.model.naming.shadows] == ["2"]
