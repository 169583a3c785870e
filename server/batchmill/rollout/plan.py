"""How a version comes into service, as a value: steps of more and more traffic, and what must hold at each of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

NOT_WORSE: Final = "not_worse"
PROVEN: Final = "proven"
HOLD: Final = "hold"
ROLLBACK: Final = "rollback"
AUTO: Final = "auto"
MANUAL: Final = "manual"


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """Shares of requests that the version is to blame for. at_most: whatever the incumbent does; rise: over the incumbent's."""

    at_most: float | None = 0.05  # one in twenty is broken even if the incumbent is no better
    rise: float | None = 0.001  # of all requests; below it, telling the two apart takes tens of thousands
    proof: str = NOT_WORSE


@dataclass(frozen=True, slots=True)
class LatencyRatio:
    """Latency over the incumbent's, at most; in a shadow step the run time over the incumbent's, its mean alone."""

    mean: float | None = 1.25  # of the geometric means; noise of neighbours and of the share moves it by some hundredths
    quantile: float = 0.99
    at_quantile: float | None = 1.5  # tails differ more from hour to hour than means do
    proof: str = NOT_WORSE


@dataclass(frozen=True, slots=True)
class Agreement:
    """The share of shadow answers that are the incumbent's."""

    at_least: float = 0.9  # two trainings of one model differ in some hundredths; for the same weights in another form give 0.999
    proof: str = PROVEN


@dataclass(frozen=True, slots=True)
class ShadowErrors:
    """The share of shadow runs that failed where the incumbent did not."""

    at_most: float = 0.001  # the incumbent answered these: there is nothing to excuse
    proof: str = NOT_WORSE


@dataclass(frozen=True, slots=True)
class Quality:
    """Accuracy, or mean reward, beside the incumbent's. reward_range: None: any rewards, by a test that holds for many only."""

    margin: float = 0.01  # in the rewards' unit
    reward_range: tuple[float, float] | None = (0.0, 1.0)
    min_samples: int = 0  # with feedback, of each version; 0: where no feedback comes, it does not count
    proof: str = NOT_WORSE


@dataclass(frozen=True, slots=True)
class Gates:
    """None: not asked. A step asks what can be seen in it; see tests_of()."""

    error_rate: ErrorRate | None = ErrorRate()
    latency_ratio: LatencyRatio | None = LatencyRatio()
    agreement: Agreement | None = Agreement()
    quality: Quality | None = Quality()
    shadow_errors: ShadowErrors | None = ShadowErrors()


@dataclass(frozen=True, slots=True)
class Step:
    """share: percent of the requests that go to the candidate, or of those mirrored to it."""

    share: float
    shadow: bool = False
    min_samples: int = 1000  # requests that the candidate answered, or answers compared
    min_secs: float = 60.0
    max_secs: float | None = None
    after_max: str = HOLD
    approval: str = AUTO
    gates: Gates = Gates()

    @property
    def name(self) -> str:
        return ("shadow " if self.shadow else "") + f"{self.share:g}%"


# Samples: as many as tell 1% of errors from none, in the shadow and at 5%; at 1%, as many as tell what is worse. docs/rollouts.md has the table.
DEFAULT_STEPS = (
    Step(100.0, shadow=True, min_samples=2000),
    Step(1.0, min_samples=500),
    Step(5.0, min_samples=2000, min_secs=120.0),
    Step(25.0, min_samples=5000, min_secs=240.0),
    Step(100.0, min_samples=5000, min_secs=300.0),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """alpha: with what probability at most a version that breaks no gate is rolled back, over the whole rollout, however often one looks.

    Union bound (Bonferroni): each test of each step has alpha over the number of all of them. A version that does not get as far as the
    last step has used less.
    """

    steps: tuple[Step, ...] = DEFAULT_STEPS
    alpha: float = 0.05
    keep_warm_secs: float = 600.0  # how long the old version stays loaded after the last step

    @property
    def alpha_each(self) -> float:
        return self.alpha / max(1, sum(len(tests_of(step)) for step in self.steps))

    def as_dict(self) -> dict[str, Any]:
        """For JSON; plan_schema.parsed() makes the same plan of it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Test:
    """What one gate asks of one figure. at_least: the limit is a lower one."""

    name: str
    limit: float
    proof: str
    at_least: bool = False


def tests_of(step: Step) -> tuple[Test, ...]:
    """The tests that a step asks. At 100% the incumbent has no traffic to be compared with: limits of the candidate alone are left."""
    gates, compared = step.gates, not step.shadow and step.share < 100
    found: list[tuple[str, float | None, str]] = []
    if step.shadow and (agreement := gates.agreement):
        found.append(("agreement", agreement.at_least, agreement.proof))
    if step.shadow and (failed := gates.shadow_errors):
        found.append(("shadow_errors", failed.at_most, failed.proof))
    if not step.shadow and (error := gates.error_rate):
        found.append(("error_rate.at_most", error.at_most, error.proof))
        found.append(("error_rate.rise", error.rise if compared else None, error.proof))
    if (step.shadow or compared) and (latency := gates.latency_ratio):
        found.append(("latency_ratio.mean", latency.mean, latency.proof))
        found.append(("latency_ratio.at_quantile", latency.at_quantile if compared else None, latency.proof))
    if compared and (quality := gates.quality):
        found.append(("quality", -quality.margin, quality.proof))
    return tuple(Test(name, limit, proof, name in ("agreement", "quality")) for name, limit, proof in found if limit is not None)


def problem_of(plan: Plan) -> str:
    """What is wrong with steps that are right one by one; empty: nothing."""
    for index, (before, step) in enumerate(pairwise(plan.steps), 1):
        if step.shadow and not before.shadow:
            return f"steps.{index}.shadow: shadow steps come before those with traffic"
        if step.shadow == before.shadow and step.share <= before.share:
            return f"steps.{index}.share: {step.share:g} given, more than the {before.share:g} of the step before wanted"
    for index, step in enumerate(plan.steps):
        if step.max_secs is not None and step.max_secs < step.min_secs:
            return f"steps.{index}.max_secs: {step.max_secs:g} given, at least min_secs, {step.min_secs:g}, wanted"
    last = plan.steps[-1]
    if last.shadow or last.share != 100:
        return f"steps.{len(plan.steps) - 1}.share: the last step has 100 percent of the traffic"
    return ""
