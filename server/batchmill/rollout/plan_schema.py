"""A rollout's plan as a file or a call has it. All of it is optional; unknown keys are errors that name the nearest one."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from batchmill import complaints, document
from batchmill.complaints import Below
from batchmill.errors import ConfigError, InvalidRequest
from batchmill.rollout.plan import (
    AUTO,
    DEFAULT_STEPS,
    HOLD,
    NOT_WORSE,
    PROVEN,
    Agreement,
    ErrorRate,
    Gates,
    LatencyRatio,
    Plan,
    Quality,
    ShadowErrors,
    Step,
    problem_of,
)

YEAR_SECS = 365 * 86_400.0
STEPS_MAX = 32


def read(path: Path) -> Plan:
    """Of a YAML or JSON file. ConfigError names file, line and key."""
    import pydantic

    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    node, given = document.read(path)
    try:
        return plan_of(schema().model_validate(given))
    except pydantic.ValidationError as error:
        raise document.mistake(path, node, error, schema()) from None


def parsed(given: Any) -> Plan:
    """Of keys and values as YAML or JSON has them; what is left out is the default's. InvalidRequest names the key."""
    import pydantic

    try:
        return plan_of(schema().model_validate(given))
    except pydantic.ValidationError as error:
        raise InvalidRequest(complaints.told(error, schema())) from None


@functools.cache
def schema() -> Any:
    """The pydantic model; made on first use, because pydantic takes 70 ms to import."""
    from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

    def number(low: float, high: float) -> Any:
        whole = isinstance(low, int)

        def check(value: Any) -> Any:
            if type(value) in ((int,) if whole else (int, float)) and low <= value <= high:
                return value if whole else float(value)
            raise ValueError(f"a {'whole ' * whole}number from {low} to {high}")

        return BeforeValidator(check)

    def some_steps(value: Any) -> Any:
        if isinstance(value, list | tuple) and 0 < len(value) <= STEPS_MAX:
            return [*value]
        raise ValueError(f"a list of 1 to {STEPS_MAX} steps")

    def low_and_high(value: Any) -> Any:
        numbers = [float(one) for one in value if type(one) in (int, float)] if isinstance(value, list | tuple) and len(value) == 2 else []
        if value is None or (len(numbers) == 2 and -1e9 <= numbers[0] < numbers[1] <= 1e9):
            return value if value is None else (numbers[0], numbers[1])
        raise ValueError("null, or the least reward and the greatest")

    Share = Annotated[float, number(0.0, 1.0)]
    Ratio = Annotated[float, number(0.01, 1000.0)]
    Secs = Annotated[float, number(0.0, YEAR_SECS)]
    Count = Annotated[int, number(0, 1_000_000_000)]
    Proof = Literal["not_worse", "proven"]
    error, latency, quality, some_step = ErrorRate(), LatencyRatio(), Quality(), Step(100.0)

    class Part(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

    class ErrorRateGate(Part):
        at_most: Share | None = error.at_most
        """Share of the candidate's requests, whatever the incumbent does. null: any."""
        rise: Share | None = error.rise
        """Over the incumbent's share, at most. null: any."""
        proof: Proof = NOT_WORSE
        """not_worse: what is not certainly broken passes. proven: what certainly holds."""

    class LatencyRatioGate(Part):
        mean: Ratio | None = latency.mean
        """Geometric mean of the latencies over the incumbent's, at most; in a shadow step of the run times. null: any."""
        quantile: Annotated[float, number(0.5, 0.9999)] = latency.quantile
        """Which one at_quantile is about."""
        at_quantile: Ratio | None = latency.at_quantile
        """That quantile over the incumbent's, at most; with traffic only. null: any."""
        proof: Proof = NOT_WORSE
        """The same."""

    class AgreementGate(Part):
        at_least: Share = Agreement().at_least
        """Share of the compared answers that are the incumbent's. 0.999 where the weights are the same in another form."""
        proof: Proof = PROVEN
        """The same."""

    class ShadowErrorsGate(Part):
        at_most: Share = ShadowErrors().at_most
        """Share of the shadow runs that failed where the incumbent did not."""
        proof: Proof = NOT_WORSE
        """The same."""

    class QualityGate(Part):
        margin: Annotated[float, number(0.0, 1e9)] = quality.margin
        """How much less than the incumbent's accuracy or mean reward is still no worse, in the rewards' unit."""
        reward_range: Annotated[Any, BeforeValidator(low_and_high)] = quality.reward_range
        """Within which all rewards are: the test is exact. null: any rewards, by a test that holds for many only, from 100 of each version."""
        min_samples: Count = quality.min_samples
        """With feedback, of each version, before the step is passed. 0: where no feedback comes, the gate does not count."""
        proof: Proof = NOT_WORSE
        """The same."""

    class AllGates(Part):
        error_rate: ErrorRateGate | None = ErrorRateGate()
        latency_ratio: LatencyRatioGate | None = LatencyRatioGate()
        agreement: AgreementGate | None = AgreementGate()
        quality: QualityGate | None = QualityGate()
        shadow_errors: ShadowErrorsGate | None = ShadowErrorsGate()

    class OneStep(Part):
        share: Annotated[float, number(0.001, 100.0)]
        """Percent of the requests that go to the candidate; in a shadow step of those that are mirrored to it."""
        shadow: bool = False
        """The candidate answers copies, and nobody waits for it."""
        min_samples: Count = some_step.min_samples
        """Requests that the candidate has answered in this step; in a shadow step, answers compared."""
        min_secs: Secs = some_step.min_secs
        """How long the step takes at least."""
        max_secs: Secs | None = None
        """When it is not passed by then, after_max says what happens. null: it may take any time."""
        after_max: Literal["hold", "rollback"] = HOLD
        """hold: it waits on, and says so. rollback."""
        approval: Literal["auto", "manual"] = AUTO
        """manual: when all is passed, somebody has to approve before the next step begins; he may do so earlier."""
        gates: AllGates = AllGates()
        """Those that are given take the place of the plan's in this step; null: not asked."""

    class WholePlan(Part):
        steps: Annotated[list[OneStep], BeforeValidator(some_steps)] | None = None
        """One after the other; the last has 100 percent. null: the default's."""
        gates: AllGates = AllGates()
        """Of all steps. Those that are left out are the default's; null: not asked."""
        alpha: Annotated[float, number(1e-6, 0.5)] = Plan().alpha
        """With what probability at most a version that breaks no gate is rolled back, over the whole rollout."""
        keep_warm_secs: Secs = Plan().keep_warm_secs
        """How long the old version stays loaded after the last step, so that it can be back at once. The next rollout or move of traffic ends it."""

        @model_validator(mode="after")
        def check(self) -> WholePlan:
            if problem := problem_of(plan_of(self)):
                raise Below(problem)
            return self

    return WholePlan


def plan_of(model: Any) -> Plan:
    whole = gates_of(model.gates)
    if model.steps is None:
        steps = tuple(replace(step, gates=whole) for step in DEFAULT_STEPS)
    else:
        steps = tuple(Step(**{**dict(step), "gates": gates_of(step.gates, whole)}) for step in model.steps)
    return Plan(steps, model.alpha, model.keep_warm_secs)


def gates_of(model: Any, otherwise: Gates | None = None) -> Gates:
    """otherwise: where those that are not given come from."""
    kinds = {"error_rate": ErrorRate, "latency_ratio": LatencyRatio, "agreement": Agreement, "quality": Quality, "shadow_errors": ShadowErrors}
    given = {name: getattr(model, name) for name in (kinds if otherwise is None else model.model_fields_set)}
    return replace(otherwise or Gates(), **{name: gate and kinds[name](**dict(gate)) for name, gate in given.items()})
