"""Which key goes to which version."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.rollout import split as splits
from batchmill.rollout.split import SLOTS, among, rebalanced, shares_of, slot_of, slots_of, version_of

WEIGHTS = st.dictionaries(st.sampled_from("12345"), st.one_of(st.just(0.0), st.floats(0.01, 100)), min_size=1).filter(lambda found: any(found.values()))


def owners(split):
    """The version of each slot, one by one."""
    return [version_of(split, slot) for slot in range(SLOTS)]


@given(WEIGHTS)
def test_each_version_has_the_slots_of_its_weight(weights):
    found, total = slots_of({version: weight for version, weight in weights.items() if weight}), sum(weights.values())
    assert sum(found.values()) == SLOTS
    assert all(abs(found[version] - SLOTS * weights[version] / total) < 1 for version in found)


@given(st.lists(WEIGHTS, min_size=2, max_size=5))
def test_no_more_keys_move_than_the_weights_say(history):
    split = rebalanced((), history[0])
    for weights in history[1:]:
        before, split = owners(split), rebalanced(split, weights)
        after, wanted = owners(split), slots_of({version: weight for version, weight in weights.items() if weight})
        assert {version: after.count(version) for version in set(after)} == {version: slots for version, slots in wanted.items() if slots}
        must = sum(max(0, before.count(version) - wanted.get(version, 0)) for version in set(before))
        assert sum(one != other for one, other in zip(before, after, strict=True)) == must


def test_moving_a_tenth_moves_a_tenth_of_the_keys_and_back_again():
    before = rebalanced((), {"1": 90, "2": 10})
    after = rebalanced(before, {"1": 80, "2": 20})
    moved = [(one, other) for one, other in zip(owners(before), owners(after), strict=True) if one != other]
    assert moved == [("1", "2")] * (SLOTS // 10)
    assert shares_of(rebalanced(after, {"1": 90, "2": 10})) == {"1": 0.9, "2": 0.1}


@given(WEIGHTS, st.sets(st.sampled_from("12345")))
def test_keys_of_versions_that_are_ready_stay_when_others_are_not(weights, ready):
    split = rebalanced((), weights)
    found = among(split, ready)
    if not ready & set(shares_of(split)):
        assert found == ()
        return
    assert set(shares_of(found)) <= ready
    assert all(one == other for one, other in zip(owners(split), owners(found), strict=True) if one in ready)


def test_without_any_weight_there_is_no_split():
    with pytest.raises(ValueError, match="no version has a weight above 0"):
        rebalanced((), {"1": 0})


def test_slots_of_keys_are_spread_evenly_and_differ_from_model_to_model():
    keys = [f"user-{number}" for number in range(20_000)]
    tenths = [0] * 10
    for key in keys:
        tenths[slot_of("m", key) * 10 // SLOTS] += 1
    assert sum((count - 2000) ** 2 / 2000 for count in tenths) < 27.9      # chi-square, 9 degrees of freedom, p = 0.001
    same = sum(slot_of("m", key) * 2 // SLOTS == slot_of("other", key) * 2 // SLOTS for key in keys)
    assert 0.48 < same / len(keys) < 0.52


def test_a_slot_is_the_same_for_ever():
    assert [slot_of("m", ""), slot_of("m", "a"), slot_of("digits", "user-1")] == [splits.slot_of(*pair) for pair in (("m", ""), ("m", "a"), ("digits", "user-1"))]
