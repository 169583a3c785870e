"""What each call makes of a model's labels and route."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.errors import InvalidRequest
from batchmill.registry.naming import Rule
from batchmill.rollout import routing as routings
from batchmill.rollout.routing import Routing
from batchmill.rollout.split import shares_of

RULE = Rule("header", "x-tenant", "acme", "2")
CHANGES = st.one_of(
    st.builds(routings.with_route, st.dictionaries(st.sampled_from("123"), st.sampled_from([0.0, 1.0, 99.0]), max_size=3), st.sampled_from([(), (RULE,)])),
    st.builds(routings.promoted, st.sampled_from("123")), st.just(routings.cleared), st.just(routings.rolled_back),
    st.builds(routings.labelled, st.sampled_from(["stable", "canary"]), st.sampled_from(["1", "2", None])))


def applied(*changes, standard="2"):
    routing = Routing()
    for change in changes:
        routing = change(routing, standard)
    return routing


@given(st.lists(CHANGES, max_size=8), st.sampled_from(["", "2"]))
def test_whatever_is_done_is_kept_whole_and_pins_what_it_names(changes, standard):
    routing = Routing()
    for change in changes:
        before = routing
        try:
            routing = change(routing, standard)
        except InvalidRequest:
            assert before.before is None
            continue
        assert routing.generation - before.generation == (0 if routing.labels != before.labels or routing == before else 1)
    assert routings.from_json(json.loads(json.dumps(routings.to_json(routing)))) == routing
    naming = routings.naming_of(routing, {"stable": "1"})
    assert routing.versions <= naming.pinned
    assert set(naming.labels.values()) <= naming.pinned
    assert set(shares_of(naming.shares)) == set(routing.traffic.weights)


@pytest.mark.parametrize(("changes", "weights", "before"), [
    ([], {}, None),
    ([routings.promoted("3")], {"3": 100}, {"2": 100}),
    ([routings.promoted("3"), routings.rolled_back], {"2": 100}, {"3": 100}),
    ([routings.promoted("3"), routings.rolled_back, routings.rolled_back], {"3": 100}, {"2": 100}),
    ([routings.with_route({"2": 90, "3": 10}, ()), routings.promoted("3")], {"3": 100}, {"2": 90, "3": 10}),
    ([routings.promoted("3"), routings.promoted("3")], {"3": 100}, {"2": 100}),     # said twice: a rollback still goes to what was before
    ([routings.promoted("3"), routings.cleared], {}, None),
    ([routings.with_route({"2": 90, "3": 0}, ())], {"2": 90}, {"2": 100}),
])
def test_a_rollback_goes_to_the_traffic_before_the_last_change(changes, weights, before):
    routing = applied(*changes)
    assert routing.traffic.weights == weights
    assert (routing.before.weights if routing.before else None) == before


def test_a_rollback_gives_every_key_back_its_version():
    first = applied(routings.with_route({"1": 50, "2": 50}, ()), routings.with_route({"1": 20, "2": 30, "3": 50}, ()))
    again = routings.rolled_back(routings.promoted("3")(first, ""), "")
    assert again.traffic == first.traffic


def test_without_anything_before_there_is_no_rollback():
    with pytest.raises(InvalidRequest, match="nothing to go back to"):
        applied(routings.rolled_back)


@pytest.mark.parametrize(("changes", "labels"), [
    ([], {"stable": "1"}),
    ([routings.labelled("canary", "2")], {"stable": "1", "canary": "2"}),
    ([routings.labelled("stable", "3")], {"stable": "3"}),
    ([routings.labelled("stable", None)], {}),
    ([routings.labelled("stable", None), routings.labelled("stable", "2")], {"stable": "2"}),
])
def test_labels_that_calls_set_go_before_those_of_the_file(changes, labels):
    assert routings.naming_of(applied(*changes), {"stable": "1"}).labels == labels
