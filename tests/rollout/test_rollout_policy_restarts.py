"""A model whose model.yaml says `rollout:`, after a server has ended: on what was kept, or on nothing."""

from types import SimpleNamespace

import pytest
from policy_mill import SHADOW, TRAFFIC


@pytest.mark.parametrize("settings", [TRAFFIC, SHADOW], ids=["traffic", "shadow"])
def test_a_rollout_goes_on_after_a_restart_and_no_other_begins(mill, settings):
    m = mill(settings)
    m.go()
    m.write(2)
    m.go()
    before = m.answers
    m.begin()
    m.go(1)
    assert (m.status, m.tables[0], m.started) == ("running", {*before}, ["2"])
    m.go(5)
    assert (m.status, m.answers, m.started) == ("completed", "2", ["2"])


def test_a_server_that_ends_before_the_rollout_has_begun_leaves_the_traffic_where_it_was(mill):
    m = mill()
    m.go()
    m.write(2)
    m.begin()
    assert {*map(frozenset, m.tables)} == {frozenset("1")}, "from its first table on, though the policy wants version 2 alone"
    m.go()
    assert (m.started, m.answers) == (["2"], "12")


def test_a_step_whose_route_was_lost_with_the_process_is_put_in_force_again(mill):
    m = mill()
    m.go()
    m.write(2)
    m.turn()
    m.conductor._move = lambda *_: SimpleNamespace(done=lambda: True, exception=lambda: None)     # it ended just there
    m.go()
    assert (m.status, m.answers) == ("running", "1")
    m.begin()
    m.go()
    assert m.answers == "12"
    m.go(3)
    assert (m.status, m.started) == ("completed", ["2"])


def test_without_anything_kept_the_newest_has_the_traffic_as_without_a_policy(mill):
    m = mill(TRAFFIC, 1, 2, 3)
    m.go(3)
    assert (m.answers, m.started, m.waits) == ("3", [], {})


@pytest.mark.parametrize("rolled_out", [False, True])
def test_where_nothing_is_left_to_compare_with_the_newest_has_the_traffic(mill, rolled_out):
    m = mill(TRAFFIC, 1)
    m.go()
    if rolled_out:
        m.write(2)
        m.go(5)
        assert m.answers == "2", "by a route that names it"
    for folder in (m.root / "m").iterdir():
        if folder.is_dir():
            (folder / "model.onnx").unlink()
    m.write(5)
    m.begin()
    m.go(2)
    assert (m.answers, m.started) == ("5", ["2"] * rolled_out)
    m.bad = {"6"}
    m.write(6)
    m.go()
    assert (m.answers, m.started[-1]) == ("56", "6")
    m.go(2)
    assert (m.answers, m.status, m.book.routing("m").traffic.weights) == ("5", "rolled_back", {"5": 100}), "to that, not to the route before it"
