"""What to do next in a rollout: a pure function of its plan, of where it stands and of what was counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from batchmill.rollout.evidence import Evidence
from batchmill.rollout.gates import FAILED, PASSED, Result, results
from batchmill.rollout.plan import MANUAL, PROVEN, ROLLBACK, Plan, Step

PROMOTE, HOLD, AWAIT_APPROVAL, ROLL_BACK, COMPLETE = "promote", "hold", "await_approval", "roll_back", "complete"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a rollout stands; to be kept in the state file.

    since_s: when the step began, seconds of a clock that survives a restart. before: the counters then. carried: what this step had
    before the counters began anew. approved: somebody let it leave this step.
    """

    step: int = 0
    since_s: float = 0.0
    before: Evidence = Evidence()  # noqa: RUF009  (frozen)
    carried: Evidence = Evidence()  # noqa: RUF009  (frozen)
    approved: bool = False

    def evidence(self, counters: Evidence) -> Evidence:
        """What this step has shown. Steps do not share it: other traffic, another time of day, and an alpha of their own."""
        return self.carried.plus(counters.minus(self.before))

    def next_step(self, counters: Evidence, now_s: float) -> Progress:
        return Progress(self.step + 1, now_s, counters)

    def approve(self) -> Progress:
        return replace(self, approved=True)

    def without_counters(self, last: Evidence) -> Progress:
        """For counters that begin at 0 again, as after a restart. last: as they were seen last; what came after is lost, which harms no test."""
        return replace(self, before=Evidence(), carried=self.evidence(last))

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(given: Mapping[str, Any]) -> Progress:
        return Progress(**{**given, "before": Evidence.from_dict(given["before"]), "carried": Evidence.from_dict(given["carried"])})


@dataclass(frozen=True, slots=True)
class Decision:
    """outcome: promote (to the next step), hold, await_approval, roll_back or complete. reasons: for people, most important first."""

    outcome: str
    reasons: tuple[str, ...]
    gates: tuple[Result, ...]
    samples: int  # of this step
    secs: float  # since it began

    def as_dict(self) -> dict[str, Any]:
        """For JSON: an end of an interval that is not known is null."""
        told = [
            {**asdict(gate), "interval": [end if math.isfinite(end) else None for end in gate.interval], "text": str(gate)} for gate in self.gates
        ]
        return {"outcome": self.outcome, "reasons": [*self.reasons], "gates": told, "samples": self.samples, "seconds": round(self.secs, 1)}


def decide(plan: Plan, progress: Progress, counters: Evidence, now_s: float) -> Decision:
    """May be asked at any time and as often as one likes; the plan's alpha holds over all of that.

    Rolls back when a gate is certainly broken, or when the step is too old and the plan says so. A step is passed when it has its samples
    and its seconds, and the gates that ask for a proof have it. now_s: of the clock of progress.since_s; a step back is none.
    """
    step, evidence = plan.steps[progress.step], progress.evidence(counters)
    samples = evidence.shadow.compared if step.shadow else evidence.candidate.requests
    secs = max(0.0, now_s - progress.since_s)
    gates = results(step, evidence, plan.alpha_each)

    def decided(outcome: str, *reasons: str) -> Decision:
        return Decision(outcome, reasons, gates, samples, secs)

    if broken := [str(gate) for gate in gates if gate.verdict == FAILED]:
        return decided(ROLL_BACK, *broken)
    if missing := missing_of(step, evidence, gates, samples, secs):
        late = step.max_secs is not None and secs > step.max_secs
        over = [f"{step.name}: not passed in {step.max_secs:g} s"] if late else []
        return decided(ROLL_BACK if late and step.after_max == ROLLBACK else HOLD, *over, *missing)
    if step.approval == MANUAL and not progress.approved:
        return decided(AWAIT_APPROVAL, f"{step.name}: passed, and to be approved before what comes next")
    last = progress.step == len(plan.steps) - 1
    return decided(COMPLETE if last else PROMOTE, f"{step.name}: passed with {samples} samples in {secs:.0f} s", *map(str, gates))


def missing_of(step: Step, evidence: Evidence, gates: tuple[Result, ...], samples: int, secs: float) -> list[str]:
    """What the step still waits for."""
    quality = step.gates.quality
    judged = min(evidence.incumbent.quality.count, evidence.candidate.quality.count)
    needed = quality.min_samples if quality and any(gate.gate == "quality" for gate in gates) else 0
    return [
        *([f"{step.name}: {samples} of {step.min_samples} samples"] if samples < step.min_samples else []),
        *([f"{step.name}: {secs:.0f} of {step.min_secs:g} s"] if secs < step.min_secs else []),
        *([f"quality: {judged} of {needed} requests of each version with feedback"] if judged < needed else []),
        *(f"{gate}, and a proof is asked for" for gate in gates if gate.proof == PROVEN and gate.verdict != PASSED),
    ]
