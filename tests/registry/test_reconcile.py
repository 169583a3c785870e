"""What is loaded and what is let go, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.registry.policy import VersionPolicy
from batchmill.registry.reconcile import Kept, decide

LATEST, TWO, ALL = VersionPolicy(), VersionPolicy("latest", 2), VersionPolicy("all")
A, B = (("a", 1, 1, 1, 1),), (("b", 2, 2, 2, 2),)
READY, BROKEN = Kept(A, True), Kept(A, False)


@pytest.mark.parametrize(("what", "present", "kept", "loading", "policy", "labelled", "load", "drop"), [
    ("nothing to do", {1: A}, {1: READY}, [], LATEST, [], [], []),
    ("a first version", {1: A}, {}, [], LATEST, [], [1], []),
    ("a newer one is loaded while the old serves", {1: A, 2: A}, {1: READY}, [], LATEST, [], [2], []),
    ("it is loaded once", {1: A, 2: A}, {1: READY}, [2], LATEST, [], [], []),
    ("when it serves the old one goes", {1: A, 2: A}, {1: READY, 2: READY}, [], LATEST, [], [], [1]),
    ("when it is broken the old one stays", {1: A, 2: A}, {1: READY, 2: BROKEN}, [], LATEST, [], [], []),
    ("at a start the one before a broken one is loaded", {1: A, 2: A}, {2: BROKEN}, [], LATEST, [], [1], []),
    ("repaired in place it is tried again", {1: A, 2: B}, {1: READY, 2: BROKEN}, [], LATEST, [], [2], []),
    ("a changed file is loaded beside what serves", {1: B}, {1: READY}, [], LATEST, [], [1], []),
    ("a refused change is not tried again", {1: B}, {1: Kept(B, True)}, [], LATEST, [], [], []),
    ("a removed version goes at once", {1: A}, {1: READY, 2: READY}, [], LATEST, [], [], [2]),
    ("and the one before it is loaded", {1: A}, {2: READY}, [], LATEST, [], [1], [2]),
    ("a removed broken one is forgotten", {1: A}, {1: READY, 2: BROKEN}, [], LATEST, [], [], [2]),
    ("two", {1: A, 2: A, 3: A}, {1: READY, 2: READY}, [3], TWO, [], [], []),
    ("two, arrived", {1: A, 2: A, 3: A}, {1: READY, 2: READY, 3: READY}, [], TWO, [], [], [1]),
    ("all", {1: A, 2: A}, {1: READY}, [], ALL, [], [2], []),
    ("named alone", {1: A, 2: A}, {}, [], VersionPolicy("specific", numbers=(1, 5)), [], [1], []),
    ("the one that is named is broken", {1: A, 2: A}, {1: READY, 2: BROKEN}, [], VersionPolicy("specific", numbers=(2,)), [], [], []),
    ("the one that is named is not there", {1: A, 2: A}, {1: READY, 2: READY}, [], VersionPolicy("specific", numbers=(7,)), [], [], [1]),
    ("a label pins", {1: A, 2: A}, {1: READY, 2: READY}, [], LATEST, [1], [], []),
    ("a label loads", {1: A, 2: A}, {2: READY}, [], LATEST, [1], [1], []),
])
def test_a_plan(what, present, kept, loading, policy, labelled, load, drop):
    plan = decide(present, kept, loading, policy, labelled)
    assert (list(plan.load), list(plan.drop)) == (load, drop), what


@pytest.mark.parametrize(("what", "present", "kept", "drop"), [
    ("it serves until its successor is loaded", {1: A}, {2: READY}, []),
    ("and ends when that serves", {1: A}, {1: READY, 2: READY}, [2]),
    ("or when it is broken", {1: A}, {1: BROKEN, 2: READY}, [2]),
    ("a model without versions ends at once", {}, {2: READY}, [2]),
    ("another one does not stay", {1: A}, {2: READY, 3: READY}, [3]),
])
def test_a_removed_version_in_service_leaves_no_gap(what, present, kept, drop):
    assert list(decide(present, kept, [], LATEST, [], 2).drop) == drop, what


def serving(interface):
    return Kept(A, True, interface)


@pytest.mark.parametrize(("what", "kept", "policy", "labelled", "in_service", "load", "drop", "pinned", "on_hold"), [
    ("as before", {1: serving("a"), 2: serving("a")}, LATEST, [], 1, [], [1], [], []),
    ("others", {1: serving("a"), 2: serving("b")}, LATEST, [], 1, [], [], [2], [2]),
    ("two in a row", {1: serving("a"), 2: serving("b"), 3: serving("b")}, LATEST, [], 1, [], [2], [3], [3]),
    ("then one as before", {1: serving("a"), 2: serving("b"), 3: serving("a")}, LATEST, [], 1, [], [1, 2], [], []),
    ("of two", {1: serving("a"), 2: serving("a"), 3: serving("b")}, TWO, [], 2, [], [], [3], [3]),
    ("of all", {1: serving("a"), 2: serving("b"), 3: serving("a")}, ALL, [], 1, [], [], [2], [2]),
    ("an older one is not held", {1: serving("a"), 2: serving("b")}, ALL, [], 2, [], [], [], []),
    ("a label names it", {1: serving("a"), 2: serving("b")}, LATEST, [2], 1, [], [], [2], []),
    ("a label names the one in service", {1: serving("a"), 2: serving("b")}, LATEST, [1], 1, [], [], [2], [2]),
    ("a policy that names it alone", {1: serving("a"), 2: serving("b")}, VersionPolicy("specific", numbers=(2,)), [], 1, [], [1], [], []),
    ("a policy that names another", {1: serving("a"), 2: serving("b")}, VersionPolicy("specific", numbers=(7,)), [], 1, [], [2], [], []),
    ("a policy that names both", {1: serving("a"), 2: serving("b")}, VersionPolicy("specific", numbers=(1, 2)), [], 1, [], [], [2], [2]),
    ("nothing in service", {1: serving("a"), 2: serving("b")}, ALL, [], 0, [], [], [], []),
    ("one that a label names serves on while its successor loads", {1: serving("a")}, LATEST, [1], 1, [2], [], [], []),
])
def test_a_version_with_another_signature_gets_no_default_traffic(what, kept, policy, labelled, in_service, load, drop, pinned, on_hold):
    plan = decide(dict.fromkeys([*kept, *load], A), kept, [], policy, labelled, in_service)
    assert ([*plan.load], [*plan.drop], sorted(plan.pinned), sorted(plan.on_hold)) == (load, drop, pinned, on_hold), what


@pytest.mark.parametrize(("what", "present", "kept", "policy", "in_service", "load", "drop", "pinned"), [
    ("a newer one waits beside it", [1, 2], {1: READY, 2: READY}, LATEST, 1, [], [], [2]),
    ("the newest of two does, too", [1, 2, 3], {1: READY, 2: READY, 3: READY}, LATEST, 1, [], [2], [3]),
    ("it is loaded though the policy wants another", [1, 2], {2: READY}, LATEST, 1, [1], [], [2]),
    ("it stays though the policy names another", [1, 2], {1: READY, 2: READY}, VersionPolicy("specific", numbers=(2,)), 1, [], [], [2]),
    ("an older one that the policy names takes its place", [1, 2], {1: READY, 2: READY}, VersionPolicy("specific", numbers=(1,)), 2, [], [2], []),
    ("broken, it holds nothing back", [1, 2], {1: BROKEN, 2: READY}, LATEST, 1, [], [], []),
    ("gone, it holds nothing back", [2], {1: READY, 2: READY}, LATEST, 1, [], [1], []),
    ("of all", [1, 2, 3], {1: READY, 2: READY, 3: READY}, ALL, 2, [], [], [3]),
    ("none yet", [1, 2], {1: READY, 2: READY}, ALL, 0, [], [], []),
])
def test_a_version_on_trial_gets_no_default_traffic_and_the_one_in_service_stays(what, present, kept, policy, in_service, load, drop, pinned):
    plan = decide(dict.fromkeys(present, A), kept, [], policy, [], in_service, trial=True)
    assert ([*plan.load], [*plan.drop], sorted(plan.pinned), sorted(plan.on_hold)) == (load, drop, pinned, []), what


@given(st.dictionaries(st.integers(1, 5), st.builds(Kept, st.just(A), st.booleans(), st.sampled_from("ab"))),
       st.sampled_from([LATEST, TWO, ALL]), st.sets(st.integers(1, 5)), st.integers(1, 5))  # fmt: skip
def test_default_traffic_stays_with_one_signature_while_the_version_in_service_is_there(kept, policy, labelled, in_service):
    plan = decide(dict.fromkeys(kept, A), kept, [], policy, labelled, in_service)
    serving = [n for n, one in kept.items() if one.ready and n not in plan.drop and n not in plan.pinned]
    if in_service in kept and kept[in_service].ready:
        assert not serving or max(serving) <= in_service or kept[max(serving)].interface == kept[in_service].interface
    assert plan.on_hold <= plan.pinned
    assert not plan.on_hold & set(plan.drop)


STAMPS = st.sampled_from([A, B])
NUMBERS = st.integers(1, 5)


@given(
    st.dictionaries(NUMBERS, STAMPS), st.dictionaries(NUMBERS, st.builds(Kept, STAMPS, st.booleans())), st.sets(NUMBERS),
    st.sampled_from([LATEST, TWO, ALL, VersionPolicy("specific", numbers=(2, 7))]), st.sets(NUMBERS),
)  # fmt: skip
def test_a_model_that_serves_goes_on_serving_as_long_as_its_folders_are_there(present, kept, loading, policy, labelled):
    plan = decide(present, kept, loading, policy, labelled)
    ready = {n for n, one in kept.items() if one.ready}
    assert not set(plan.drop) & (set(plan.load) & ready & set(present))
    assert set(plan.load) <= set(present)
    if ready & set(present):
        assert (ready & set(present)) - set(plan.drop), "nothing would be left"
    following = {n: Kept(present[n], True) for n in (set(kept) - set(plan.drop) | set(plan.load) | loading) & set(present)}
    last = decide(present, following, [], policy, labelled)
    settled = decide(present, {n: one for n, one in following.items() if n not in last.drop}, [], policy, labelled)
    assert (settled.load, settled.drop) == ((), ()), "it comes to rest"
