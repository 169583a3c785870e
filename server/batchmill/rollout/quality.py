"""How right a model's versions turn out to be: what callers tell of answers afterwards, by the tokens that the answers carried.

A token says which version answered, by which generation of the route and when; so nothing is remembered of the answers themselves.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchmill.core import feedback_token
from batchmill.logs import Log
from batchmill.rollout.evidence import Moments
from batchmill.rollout.verdict import Tally
from batchmill.store import QUALITY, SEAL, Store

log = Log(__name__)
SEEN_MOST = 200_000  # tokens that are known to have been used, over all models: some 20 MB
TALLIES_MOST = 64  # of a model; who was told of least recently goes
INVALID, EXPIRED, REPEATED, UNKNOWN = "invalid", "expired", "repeated", "no_prediction"
REASONS = {
    INVALID: "no token that this server has made for an answer of this model",
    EXPIRED: "the answer is older than --feedback-max-age-secs",
    REPEATED: "this token was used before",
    UNKNOWN: "nothing to compare the label with: its token carries no class, so give prediction, or correct",
}
Place = tuple[str, int]  # version, generation of the route


@dataclass(frozen=True, slots=True)
class Feedback:
    """Of one answer: at least one of label, correct and reward. prediction: what was answered, where the token does not say or says it otherwise."""

    token: str
    label: int | str | None = None
    prediction: int | str | None = None
    correct: bool | None = None
    reward: float | None = None

    def judged(self, predicted: int | None) -> bool | None:
        """Whether the answer was right; None: that was not told. LookupError: there is a label, and nothing to compare it with."""
        if self.correct is not None or self.label is None:
            return self.correct
        answered = self.prediction if self.prediction is not None else predicted if isinstance(self.label, int) else None
        if answered is None:
            raise LookupError
        return self.label == answered


@dataclass(frozen=True, slots=True)
class Taken:
    counted: int
    rejected: tuple[tuple[int, str], ...]  # (place in what was given, reason)


class Quality:
    """Its methods are for any thread. What it counts is written by keep(), which is called every few seconds, and read where it is asked for."""

    def __init__(self, store: Store, max_age_secs: float, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since 1970."""
        self.max_age_secs = max_age_secs
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()  # guards what follows
        self._tallies: dict[str, dict[Place, Tally]] = {}  # by model; those told of last at the end
        self._rejected: dict[str, Counter[str]] = {}
        self._seen: dict[int, None] = {}  # nonces, the oldest first
        self._changed: set[str] = set()
        self._has_key = False

    def need_key(self) -> None:
        """Before the first version is asked for tokens. The key is kept, so that tokens outlive a restart."""
        with self._lock:
            if self._has_key:
                return
            kept = self._store.get(SEAL, "")
            key = bytes.fromhex(kept) if isinstance(kept, str) and len(kept) == 32 else os.urandom(16)
            if kept != key.hex():
                self._store.put(SEAL, "", key.hex())
            feedback_token.set_key(key)
            self._has_key = True

    def take(self, model: str, given: Sequence[Feedback]) -> Taken:
        """Counts what can be counted."""
        self.need_key()
        now_s, rejected = self._clock(), []
        with self._lock:
            tallies = self._of(model)
            for index, one in enumerate(given):
                if reason := self._count(tallies, model, one, now_s):
                    rejected.append((index, reason))
            self._rejected[model].update(reason for _, reason in rejected)
            while len(tallies) > TALLIES_MOST:
                del tallies[next(iter(tallies))]
            self._changed.add(model)
        return Taken(len(given) - len(rejected), tuple(rejected))

    def tallies(self, model: str) -> dict[Place, Tally]:
        """By version and generation."""
        with self._lock:
            return dict(self._of(model))

    def rejected(self, model: str) -> Mapping[str, int]:
        """How many of each reason."""
        with self._lock:
            self._of(model)
            return dict(self._rejected[model])

    def quality_of(self, model: str, version: str) -> Moments:
        """Of all generations since the state began, as a rollout's gate wants it: rewards, or else 1 for right and 0 for wrong."""
        tally = Tally()
        for (number, _), one in self.tallies(model).items():
            tally = tally.plus(one) if number == version else tally
        return tally.quality

    def by_version(self) -> Iterator[tuple[str, str, Tally]]:
        """(model, version, what was told of it since the state began), of those that were told of or asked for since the server began."""
        with self._lock:
            all_of_them = {model: dict(tallies) for model, tallies in self._tallies.items()}
        for model, tallies in all_of_them.items():
            for version in sorted({version for version, _ in tallies}, key=int):
                tally = Tally()
                for (number, _), one in tallies.items():
                    tally = tally.plus(one) if number == version else tally
                yield model, version, tally

    def rejections(self) -> Iterator[tuple[str, str, int]]:
        """(model, reason, how many)."""
        with self._lock:
            counts = [(model, reason, count) for model, counter in self._rejected.items() for reason, count in counter.items()]
        yield from counts

    def keep(self) -> None:
        """Has what was counted since the last time written."""
        with self._lock:
            for model in self._changed:
                tallies = [[*place, *one.as_list()] for place, one in self._tallies[model].items()]
                self._store.put(QUALITY, model, {"tallies": tallies, "rejected": dict(self._rejected[model])})
            self._changed.clear()

    # With the lock held.
    def _count(self, tallies: dict[Place, Tally], model: str, one: Feedback, now_s: float) -> str:
        """Why it does not count; empty: it does."""
        found = feedback_token.read(model, one.token)
        if found is None:
            return INVALID
        version, generation, made_s, predicted, nonce = found
        if now_s - made_s > self.max_age_secs:
            return EXPIRED
        if nonce in self._seen:
            return REPEATED
        try:
            right = one.judged(predicted)
        except LookupError:
            return UNKNOWN
        self._seen[nonce] = None
        if len(self._seen) > SEEN_MOST:
            del self._seen[next(iter(self._seen))]
        place = (str(version), generation)
        tallies[place] = tallies.pop(place, Tally()).with_one(right, one.reward, made_s)
        return ""

    def _of(self, model: str) -> dict[Place, Tally]:
        if model not in self._tallies:
            self._tallies[model], self._rejected[model] = self._read(model)
        return self._tallies[model]

    def _read(self, model: str) -> tuple[dict[Place, Tally], Counter[str]]:
        kept: Any = self._store.get(QUALITY, model)
        try:
            tallies = {(str(version), int(generation)): Tally.from_list(numbers) for version, generation, *numbers in kept["tallies"]} if kept else {}
            return tallies, Counter({reason: int(count) for reason, count in kept["rejected"].items()} if kept else {})
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            log.warning("quality_ignored", name=model, reason=f"what was kept of it cannot be read: {error!r}")
            return {}, Counter()
