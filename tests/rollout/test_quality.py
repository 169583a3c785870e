"""What is told of answers, counted: by tokens that this server made, each once, in time; and kept."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import feedback_token
from batchmill.rollout import quality as qualities
from batchmill.rollout.evidence import Moments
from batchmill.rollout.quality import Feedback, Quality
from batchmill.rollout.verdict import Tally
from batchmill.store import SEAL, Store

NOW_S = 1_800_000_000


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def quality(store):
    made = Quality(store, 3600, lambda: NOW_S)
    made.need_key()
    return made


def token(store, version=1, *, generation=4, age_s=0, prediction=3, nonce=None, model="m"):
    nonce = random.getrandbits(64) if nonce is None else nonce
    return feedback_token.sealed(bytes.fromhex(store.get(SEAL, "")), model, version, generation, NOW_S - age_s, prediction, nonce)


@pytest.mark.parametrize(("given", "prediction", "wanted"), [
    ({"label": 3}, 3, True),
    ({"label": 4}, 3, False),
    ({"label": 4, "prediction": 4}, 3, True),         # the caller knows better what was answered
    ({"label": "cat", "prediction": "cat"}, None, True),
    ({"label": "cat", "prediction": "dog"}, 3, False),
    ({"label": 4, "correct": True}, 3, True),
    ({"correct": False}, None, False),
    ({"reward": 1.0}, 3, None),
])
def test_what_a_label_is_compared_with(given, prediction, wanted):
    assert Feedback("", **given).judged(prediction) is wanted


@pytest.mark.parametrize("given", [{"label": "cat"}, {"label": 3}])
def test_a_label_with_nothing_to_compare_it_with_does_not_count_and_does_not_use_its_token_up(quality, store, given):
    own = token(store, prediction=None)
    assert quality.take("m", [Feedback(own, **given)]).rejected == ((0, qualities.UNKNOWN),)
    assert quality.take("m", [Feedback(own, correct=True)]).counted == 1


def test_each_counts_for_its_version_and_generation(quality, store):
    quality.take("m", [Feedback(token(store, 1), label=3), Feedback(token(store, 1), label=4), Feedback(token(store, 2, generation=5), reward=0.5)])
    tallies = quality.tallies("m")
    assert {place: (tally.judged, tally.correct, tally.rewards.count) for place, tally in tallies.items()} == {("1", 4): (2, 1, 0), ("2", 5): (0, 0, 1)}


def test_wrong_foreign_expired_and_repeated_tokens_are_told_and_the_others_count(quality, store):
    twice = token(store)
    given = [Feedback(twice, label=3), Feedback(twice, label=3), Feedback("nonsense", label=3), Feedback(token(store, model="other"), label=3),
             Feedback(token(store, age_s=3601), label=3), Feedback(token(store, age_s=3599), label=3)]
    taken = quality.take("m", given)
    assert taken.counted == 2
    assert taken.rejected == ((1, "repeated"), (2, "invalid"), (3, "invalid"), (4, "expired"))
    assert quality.rejected("m") == {"repeated": 1, "invalid": 2, "expired": 1}
    assert quality.take("m", [Feedback(twice, label=3)]).rejected == ((0, "repeated"),), "nor in a later call"


def test_counts_and_tokens_outlive_a_restart(quality, store):
    early = token(store, 2)
    quality.take("m", [Feedback(token(store, 1), label=3, reward=2.0), Feedback("x", label=1)])
    quality.keep()
    again = Quality(store, 3600, lambda: NOW_S)
    assert again.tallies("m") == quality.tallies("m")
    assert again.rejected("m") == {"invalid": 1}
    feedback_token.set_key(bytes(16))  # as in a new process
    assert again.take("m", [Feedback(early, label=3)]).counted == 1


def test_what_cannot_be_read_of_the_state_is_forgotten(store):
    for kept in ({"tallies": [["1", 4, 1]], "rejected": {}}, {"tallies": [["1", 4, 1, 2, [0, 0.0, 0.0], [0, 0.0, 0.0], 0, 0]], "rejected": {}}, [], {"tallies": 3}):
        store.put("quality", "m", kept)
        assert Quality(store, 3600).tallies("m") == {}


def test_memory_is_bounded(quality, store, monkeypatch):
    monkeypatch.setattr(qualities, "SEEN_MOST", 10)
    quality.take("m", [Feedback(token(store, 1, generation=number), correct=True) for number in range(qualities.TALLIES_MOST + 5)])
    assert len(quality.tallies("m")) == qualities.TALLIES_MOST
    assert ("1", 0) not in quality.tallies("m")
    assert len(quality._seen) == 10


@given(st.lists(st.tuples(st.none() | st.booleans(), st.none() | st.floats(-100, 100)).filter(lambda one: one != (None, None)), max_size=40))
def test_a_tally_is_what_it_was_told(told):
    tally = Tally()
    for index, (right, reward) in enumerate(told):
        tally = tally.with_one(right, reward, index + 1)
    assert (tally.judged, tally.correct) == (sum(right is not None for right, _ in told), sum(right is True for right, _ in told))
    for found, numbers in ((tally.rewards, [reward for _, reward in told if reward is not None]),
                           (tally.quality, [float(bool(right)) if reward is None else reward for right, reward in told])):
        wanted = Moments.of(numbers)
        assert (found.count, found.mean, found.variance) == (wanted.count, pytest.approx(wanted.mean, abs=1e-9), pytest.approx(wanted.variance, abs=1e-7))
    assert (tally.first_s, tally.last_s) == ((1, len(told)) if told else (0, 0))
    assert Tally.from_list(tally.as_list()) == tally
