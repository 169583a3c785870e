"""What starts by itself and when, of a model whose model.yaml says `rollout:`."""

from dataclasses import replace

import pytest
from policy_mill import SHADOW, TRAFFIC

from batchmill.registry.naming import Shadow
from batchmill.registry.status import ModelStatus, VersionStatus
from batchmill.rollout import candidates, plan_schema
from batchmill.rollout import routing as routings


def test_the_first_version_has_the_traffic_at_once_and_nothing_starts(mill):
    m = mill()
    m.go(3)
    assert (m.answers, m.status, m.waits, m.started) == ("1", "none", {}, [])


def test_a_new_version_gets_nothing_before_its_first_step_then_goes_through_all_and_the_old_one_ends(mill):
    m = mill()
    m.go()
    m.write(2)
    m.turn()
    assert m.models["m"].pick("2"), "it is ready"
    assert {*map(frozenset, m.tables)} == {frozenset("1")}, "and in no table that was published it had a share"
    m.go()
    assert (m.answers, m.conductor.told("m")["by"]) == ("12", "policy")
    m.go(3)
    assert (m.answers, m.status) == ("2", "completed")
    m.go(8)
    assert [*m.model.versions] == ["2"], "the one before is kept warm for a while"
    assert m.events[0] == ("rollout.started", "2", "by the model's own policy (rollout in model.yaml)")
    m.write(3)
    m.go(4)
    assert (m.answers, m.started) == ("3", ["2", "3"])


def test_the_version_in_service_stays_loaded_while_the_candidate_is_on_trial_whatever_the_policy_wants(mill):
    m = mill(TRAFFIC + "versions: {policy: [1]}\n", 1, 2)
    m.go()
    m.settings(TRAFFIC + "versions: {policy: [2]}\n")
    m.turn()
    assert (m.answers, [one.number for one in m.model.ready()]) == ("1", ["1", "2"])
    m.go(4)
    assert m.answers == "2"


def test_versions_that_come_meanwhile_wait_and_the_newest_of_them_is_next(mill):
    m = mill(TRAFFIC + "versions: {policy: all}\n")
    m.go()
    m.write(2)
    m.go()
    m.write(3)
    m.write(4)
    m.go()
    assert m.started == ["2"]
    m.conductor.tick(m.models)
    assert m.waits == {"4": "the rollout of version 2 comes first", "3": "version 4 is newer"}
    m.go(10)
    assert (m.started, m.answers, m.status, m.waits) == (["2", "4"], "4", "completed", {})


@pytest.mark.parametrize("settings", [TRAFFIC, SHADOW], ids=["traffic", "shadow"])
def test_a_version_that_was_rolled_back_is_not_tried_again_until_its_files_change(mill, settings):
    m = mill(settings)
    m.go()
    m.bad = {"2"}
    m.write(2)
    m.go(2)
    assert (m.status, m.answers, m.started) == ("rolled_back", "1", ["2"])
    m.go(3)
    assert "rollout start m 2" in m.waits["2"]
    m.begin()
    m.go(3)
    assert (m.started, {*map(frozenset, m.tables)}) == (["2"], {frozenset("1")}), "not over a restart, either"
    m.write(2)
    m.bad = set()
    m.go(5)
    assert (m.started, m.answers) == (["2", "2"], "2")


def test_a_version_that_was_rolled_back_is_tried_again_by_a_call(mill):
    m = mill()
    m.go()
    m.bad = {"2"}
    m.write(2)
    m.go(2)
    m.bad = set()
    m.conductor.start(m.model, "2", plan_schema.parsed({"steps": [{"share": 100, "min_samples": 100, "min_secs": 1}]}))
    m.go(3)
    assert (m.status, m.answers, m.conductor.told("m")["by"]) == ("completed", "2", "call")


def test_those_before_one_that_was_rolled_back_stay_passed_over_and_a_newer_one_is_tried(mill):
    m = mill(TRAFFIC + "versions: {policy: all}\n")
    m.go()
    m.bad = {"3"}
    m.write(2)
    m.write(3)
    m.go(5)
    assert (m.started, m.status, m.answers) == (["3"], "rolled_back", "1")
    m.write(4)
    m.go(5)
    assert (m.started, m.answers) == (["3", "4"], "4")


def test_a_version_older_than_the_one_in_service_does_not_start(mill):
    m = mill(TRAFFIC + "versions: {policy: all}\n", 3)
    m.go()
    m.write(2)
    m.go(3)
    assert (m.started, m.answers, m.waits) == ([], "3", {})
    assert m.model.pick("2")


def test_a_key_that_is_added_holds_for_the_versions_from_then_on(mill):
    m = mill("", 1)
    m.go()
    m.write(2)
    m.go()
    assert m.answers == "2"
    m.settings(TRAFFIC)
    m.go(2)
    assert (m.answers, m.status) == ("2", "none")
    m.write(3)
    m.go()
    assert m.answers == "23"


def test_a_key_that_is_added_begins_with_what_waits_beside_a_route(mill):
    m = mill("", 1)
    m.call(routings.promoted("1"))
    m.write(2)
    m.go()
    assert (m.answers, m.model.pick("2") is not None) == ("1", True)
    m.settings(TRAFFIC)
    m.go()
    assert (m.answers, m.started) == ("12", ["2"])


def test_a_key_that_is_removed_lets_the_rollout_that_runs_end_and_begins_no_other(mill):
    m = mill()
    m.go()
    m.write(2)
    m.go()
    m.settings("")
    m.go(5)
    assert (m.status, m.answers) == ("completed", "2")
    m.write(3)
    m.go(3)
    assert (m.started, m.answers) == (["2"], "2"), "its route stands"


def test_a_key_that_is_removed_before_a_rollout_has_begun_gives_the_newest_the_traffic(mill):
    m = mill()
    m.go()
    m.write(2)
    m.turn()
    assert m.answers == "1"
    m.settings("")
    m.go(2)
    assert (m.answers, m.started) == ("2", [])
    m.settings(TRAFFIC)
    m.begin()
    m.go(2)
    assert (m.answers, m.started) == ("2", []), "what had the traffic before that does not come back"


def test_a_candidate_on_signature_hold_is_told_and_nothing_starts_until_the_owner_allows_it(mill):
    m = mill()
    m.go()
    m.write(2, "xx")
    m.go(3)
    assert (m.started, m.answers) == ([], "1")
    assert m.waits["2"].startswith("on hold beside version 1")
    m.settings(TRAFFIC + "signature_change: allow\n")
    m.go()
    assert (m.started, m.answers) == (["2"], "12")


def test_a_version_that_fails_is_told_and_nothing_starts(mill):
    m = mill()
    m.go()
    m.write(2, "broken")
    m.go(3)
    assert (m.started, m.answers, m.waits) == ([], "1", {"2": "it failed: golden: output y differs"})
    m.write(2)
    m.go()
    assert m.started == ["2"]


def test_files_that_change_while_it_runs_begin_another_rollout(mill):
    m = mill()
    m.go()
    m.write(2)
    m.go()
    m.write(2)
    m.turn()
    m.conductor.tick(m.models)
    assert m.status == "running", "until the traffic is where it was"
    m.turn()
    assert (m.status, "have changed" in m.conductor.told("m")["reasons"][0]) == ("aborted", True)
    m.go(5)
    assert (m.status, m.started, m.answers) == ("completed", ["2", "2"], "2")


def test_a_step_that_cannot_be_put_in_force_ends_the_rollout_once(mill):
    m = mill(SHADOW + "versions: {policy: all}\nlabels: {a: 1, b: 2, c: 3, d: 4, e: 5}\n", 5)
    for number in range(1, 5):
        m.write(number)
    m.go()
    for number in range(1, 5):
        m.call(routings.shadowed(Shadow(str(number))))
    m.write(6)
    m.go(4)
    assert (m.started, m.status, m.answers) == (["6"], "aborted", "5")
    assert "could not begin: a model has at most 4 shadows" in m.conductor.told("m")["reasons"][0]


def test_a_load_call_brings_the_candidate_where_models_are_loaded_by_call_alone(mill):
    m = mill()
    m.begin(watched=False, only=("m",))
    m.write(2)
    m.go(2)
    assert (m.answers, [*m.model.versions]) == ("1", ["1"])
    done = m.keeper.load("m")
    m.turn()
    done.result(0)
    assert m.answers == "1"
    m.go()
    assert (m.answers, m.started) == ("12", ["2"])


def test_an_unloaded_model_comes_back_with_the_version_that_had_the_traffic(mill):
    m = mill()
    m.go()
    m.bad = {"2"}
    m.write(2)
    m.go(2)
    m.call(routings.cleared)
    m.keeper.unload("m")
    m.turn()
    m.tables.clear()
    m.keeper.load("m")
    m.turn()
    m.go(2)
    assert ({*map(frozenset, m.tables)}, m.started) == ({frozenset("1")}, ["2"])


def version(number, state="READY", **about):
    return VersionStatus(number, state, **about)


@pytest.mark.parametrize(("versions", "seen", "running", "candidate", "waiting"), [
    ([version("1")], "", "", "", {}),
    ([version("1"), version("2")], "", "", "2", {}),
    ([version("1"), version("2"), version("3")], "", "", "3", {"2": "version 3 is newer"}),
    ([version("1"), version("2"), version("3", "LOADING")], "", "", "", {"2": "version 3 is newer", "3": "it is loading"}),
    ([version("1"), version("2"), version("3", "FAILED", reason="broken")], "", "", "2", {"3": "it failed: broken"}),
    ([version("1"), version("2"), version("3", hold="differs")], "", "", "2", {"3": "differs"}),
    ([version("1"), version("2"), version("3")], "3", "", "2", {"3": "it was tried"}),
    ([version("1"), version("2"), version("3")], "23", "", "", {"3": "it was tried", "2": "it was tried"}),
    ([version("1"), version("2"), version("3")], "2", "2", "", {"3": "the rollout of version 2 comes first"}),
    ([version("0"), version("1")], "", "", "", {}),
])
def test_the_newest_that_can_is_next_and_the_others_say_why_not(versions, seen, running, candidate, waiting):
    model = ModelStatus("m")
    for one in versions:
        model.add(one)
    found, told = candidates.next_of(model, {number: candidates.files_of(model, number) for number in seen}, "1", running)
    assert found == candidate
    assert {one.version: one.reason[: len(waiting.get(one.version, ""))] for one in told} == waiting


def test_of_what_was_seen_a_hundred_of_the_newest_are_kept():
    routing = routings.with_seen(replace(routings.Routing(), seen={str(number): "a" for number in range(1, 101)}), {"101": "b", "5": "c"})
    assert (len(routing.seen), routing.seen["101"], routing.seen["5"], "1" in routing.seen) == (100, "b", "c", False)
    assert routings.from_json(routings.to_json(routing)) == routing
