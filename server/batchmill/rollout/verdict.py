"""Which of two versions is better, by what was told of their answers: values and pure functions."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from batchmill.rollout import sequential
from batchmill.rollout.evidence import Moments
from batchmill.rollout.sequential import Interval

ALPHA = 0.05  # the chance that a comparison, looked at as often as one likes, is ever wrong
MARGIN = 0.01  # of accuracy: a hundredth; of rewards: a hundredth of the other's mean. What is less is as good
BETTER, WORSE, AS_GOOD, UNDECIDED = "better", "worse", "not_worse", "undecided"


@dataclass(frozen=True, slots=True)
class Tally:
    """What was told of answers of one version.

    judged: how many were told to be right or wrong. quality: the reward of each, or else 1 for right and 0 for wrong.
    first_s, last_s: when the first and the last of the answers were made, since 1970.
    """

    judged: int = 0
    correct: int = 0
    rewards: Moments = Moments()  # noqa: RUF009  (frozen)
    quality: Moments = Moments()  # noqa: RUF009  (frozen)
    first_s: int = 0
    last_s: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.correct <= self.judged

    def with_one(self, right: bool | None, reward: float | None, made_s: int) -> Tally:
        """One more, of an answer made then."""
        rewards = self.rewards if reward is None else self.rewards.plus(Moments(1, reward))
        quality = self.quality.plus(Moments(1, float(bool(right)) if reward is None else reward))
        first_s, last_s = earlier(self.first_s, made_s), max(self.last_s, made_s)
        return Tally(self.judged + (right is not None), self.correct + bool(right), rewards, quality, first_s, last_s)

    def plus(self, other: Tally) -> Tally:
        return Tally(self.judged + other.judged, self.correct + other.correct, self.rewards.plus(other.rewards), self.quality.plus(other.quality),
                     earlier(self.first_s, other.first_s), max(self.last_s, other.last_s))  # fmt: skip

    def as_list(self) -> list[Any]:
        """For JSON."""
        return [self.judged, self.correct, list(astuple(self.rewards)), list(astuple(self.quality)), self.first_s, self.last_s]

    @staticmethod
    def from_list(given: Collection[Any]) -> Tally:
        """The other way. Raises TypeError or ValueError."""
        judged, correct, rewards, quality, first_s, last_s = given
        return Tally(judged, correct, Moments(*rewards), Moments(*quality), first_s, last_s)


def earlier(one_s: int, other_s: int) -> int:
    """0: never."""
    return min(one_s, other_s) if one_s and other_s else one_s or other_s


@dataclass(frozen=True, slots=True)
class Verdict:
    """measure: accuracy or reward. interval: where the version's minus the other's lies, always valid: for all looks at once at level ALPHA."""

    version: str
    than: str
    measure: str
    says: str
    difference: float
    interval: Interval

    def text(self) -> str:
        phrase = {BETTER: "is better than", WORSE: "is worse than", AS_GOOD: "is not worse than", UNDECIDED: "and"}[self.says]
        unit = "by more than 1%" if self.says == AS_GOOD else ""
        head = f"{self.version} {phrase} {self.than}" + (f" {unit}" if unit else "") + (": undecided" if self.says == UNDECIDED else "")
        low, high = self.interval
        where = f"{low:+.4f} to {high:+.4f}" if math.isfinite(low) else f"not known before {sequential.MEANS_FROM} rewards of each"
        return f"{head} ({self.measure} {self.difference:+.4f}; {where})"

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no infinity."""
        interval = list(self.interval) if math.isfinite(self.interval[0]) else None
        return {"version": self.version, "than": self.than, "measure": self.measure, "verdict": self.says, "difference": self.difference,
                "interval": interval, "text": self.text()}  # fmt: skip


def verdict_of(interval: Interval, margin: float) -> str:
    """Of where a difference lies. margin: what may be lost without being worse."""
    low, high = interval
    if low > 0:
        return BETTER
    if high < 0:
        return WORSE
    return AS_GOOD if low >= -margin else UNDECIDED


def verdicts(version: str, one: Tally, than: str, other: Tally) -> list[Verdict]:
    """By accuracy and by reward, where both were told of."""
    found = []
    if one.judged and other.judged:
        interval = sequential.difference(one.correct, one.judged, other.correct, other.judged, ALPHA)
        apart = one.correct / one.judged - other.correct / other.judged
        found.append(Verdict(version, than, "accuracy", verdict_of(interval, MARGIN), apart, interval))
    if one.rewards.count and other.rewards.count:
        interval = sequential.mean_difference(one.rewards, other.rewards, ALPHA)
        margin = MARGIN * abs(other.rewards.mean)
        found.append(Verdict(version, than, "reward", verdict_of(interval, margin), one.rewards.mean - other.rewards.mean, interval))
    return found


def generation_to_compare(tallies: Mapping[tuple[str, int], Tally]) -> int | None:
    """The last in which two versions were told of: their answers were made of the same traffic. None: there is none.

    Over several generations counts must not be added up: where the split changes while the traffic does, too, the worse version can look
    better (Simpson's paradox).
    """
    generations = [generation for _, generation in tallies]
    return max((generation for generation in generations if generations.count(generation) > 1), default=None)


def at_once(one: Tally, other: Tally) -> bool:
    """Whether the times in which their answers were made overlap."""
    return one.first_s <= other.last_s and other.first_s <= one.last_s


def told(model: str, tallies: Mapping[tuple[str, int], Tally], base: str, generation: int | None) -> dict[str, Any]:
    """Each version's figures, and how it compares with the base: the version that has the traffic; where nothing was told of it, the oldest.

    generation: of the route, that is compared. None: the last with two versions.
    """
    wanted = generation_to_compare(tallies) if generation is None else generation
    compared = {version: tally for (version, of), tally in tallies.items() if of == wanted}
    base = base if base in compared else min(compared, key=int, default="")
    verdict: list[dict[str, Any]] = []
    for version in sorted(compared, key=int):
        if version != base:
            note = {} if at_once(compared[version], compared[base]) else {"note": "they were not in traffic at the same time"}
            verdict += [one.as_dict() | note for one in verdicts(version, compared[version], base, compared[base])]
    places = sorted(tallies, key=lambda place: (int(place[0]), place[1]))
    rows = [{"version": version, "generation": of, **figures(tallies[version, of])} for version, of in places]
    return {"model": model, "versions": rows, "compared_generation": wanted, "verdicts": verdict, "level": ALPHA}


def figures(tally: Tally) -> dict[str, Any]:
    rewards = tally.rewards
    low, high = sequential.mean(rewards, ALPHA)
    return {
        "judged": tally.judged, "correct": tally.correct, "accuracy": tally.correct / tally.judged if tally.judged else None,
        "accuracy_interval": list(sequential.proportion(tally.correct, tally.judged, ALPHA)) if tally.judged else None,
        "rewards": rewards.count, "reward": rewards.mean if rewards.count else None,
        "reward_variance": rewards.variance if rewards.count > 1 else None, "reward_interval": [low, high] if math.isfinite(low) else None,
        "first_s": tally.first_s, "last_s": tally.last_s,
    }  # fmt: skip
