#!/usr/bin/env python3
"""Rollouts of simulated versions: how often a good one is rolled back, and after how many samples a bad one is.

Nothing is served: requests, errors, latencies, shadow answers and feedback are drawn, and the engine that guards live traffic looks at
them after every 50 samples of the candidate. `equal` versions are as good as the incumbent under the example plan of docs/rollouts.md;
`at the limit` they are exactly as bad as a plan still allows, so that each of its tests is as likely to fail as it may.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import bounds
import numpy as np
import report

from batchmill.rollout import engine
from batchmill.rollout.engine import Progress
from batchmill.rollout.evidence import Arm, Evidence, Moments, Shadow, buckets_of
from batchmill.rollout.plan import Plan, Step
from batchmill.rollout.plan_schema import parsed

LOOK = 50               # samples of the candidate from look to look
LOOKS_MAX = 4000        # of a rollout; one that takes longer is told as on hold
BUCKET = 0.03           # of a histogram: its edges are 3% apart, as in the server
SIGMA = 0.5             # of the logarithms of latencies
RUN_SIGMA = 0.1         # of the logarithms of the shadow's run times over the incumbent's
FEEDBACK = 0.5          # share of requests that come back with a label

EXAMPLE: dict[str, Any] = {
    "steps": [
        {"share": 100, "shadow": True, "min_samples": 2000},
        {"share": 1, "min_samples": 500},
        {"share": 5, "min_samples": 2000},
        {"share": 25, "min_samples": 5000, "gates": {"quality": {"margin": 0.02, "proof": "proven"}}},
        {"share": 100, "min_samples": 5000},
    ],
    "gates": {"agreement": {"at_least": 0.99}, "quality": {"margin": 0.02}},
}
LIMIT: dict[str, Any] = {
    "steps": [{"share": 100, "shadow": True}, {"share": 1}, {"share": 5}, {"share": 25}, {"share": 100}],
    "gates": {
        "error_rate": {"at_most": 0.01, "rise": 0.0}, "latency_ratio": {"mean": 1.0, "at_quantile": 1.0}, "quality": {"margin": 0.0},
        "agreement": {"at_least": 0.99, "proof": "not_worse"}, "shadow_errors": {"at_most": 0.002}},
}


@dataclass(frozen=True, slots=True)
class Version:
    """What is drawn. errors, shadow_errors, agreement, accuracy: probabilities; slower: of latencies; batch: requests that share one.

    bursts: the share of looks in which all of the errors are, for both versions at once.
    """

    name: str
    errors: float = 0.0
    slower: float = 1.0
    shadow_slower: float = 1.0
    shadow_errors: float = 0.0
    agreement: float = 1.0
    accuracy: float = 0.9
    batch: int = 1
    bursts: float = 1.0
    good: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """samples: of the candidate, in the shadow and in traffic. step: where it ended. gate: what broke first; empty: nothing."""

    seed: int
    outcome: str
    step: str
    samples: int
    gate: str


INCUMBENT = Version("incumbent")
EQUAL = Version("equal", agreement=0.998)
AT_LIMIT = Version("at the limit", errors=0.01, agreement=0.99, shadow_errors=0.002)
CANDIDATES = (
    EQUAL,
    replace(EQUAL, name="equal, eight requests share each latency", batch=8),
    replace(EQUAL, name="equal, 1% of errors in bursts of 20%, no at_most", errors=0.01, bursts=0.05),
    replace(EQUAL, name="better by 2 points", accuracy=0.92),
    replace(EQUAL, name="2x slower", slower=2.0, shadow_slower=2.0, good=False),
    replace(EQUAL, name="2x slower, not in the shadow", slower=2.0, good=False),
    replace(EQUAL, name="1% errors, not in the shadow", errors=0.01, good=False),
    replace(EQUAL, name="fails on one input in fifty", errors=0.02, shadow_errors=0.02, good=False),
    replace(EQUAL, name="drifted: 90% agree", agreement=0.9, good=False),
    replace(EQUAL, name="worse by 5 points", accuracy=0.85, good=False),
)


def draw_arm(random: np.random.Generator, version: Version, count: int) -> Arm:
    errors = int(random.binomial(count, version.errors))
    logs = np.repeat(random.normal(np.log(0.005 * version.slower), SIGMA, -(-(count - errors) // version.batch)), version.batch)[: count - errors]
    edges, counts = np.unique(np.ceil(logs / BUCKET).astype(int), return_counts=True)
    latencies = buckets_of({math.exp(edge * BUCKET): count for edge, count in zip(edges.tolist(), counts.tolist(), strict=True)})
    labelled = int(random.binomial(count, FEEDBACK))
    right = int(random.binomial(labelled, version.accuracy))
    return Arm(count, errors, moments(logs[:: version.batch]), latencies, moments(np.arange(labelled) < right))


def draw_shadow(random: np.random.Generator, version: Version, count: int) -> Shadow:
    errors = int(random.binomial(count, version.shadow_errors))
    ratios = random.normal(np.log(version.shadow_slower), RUN_SIGMA, count - errors)
    return Shadow(count - errors, int(random.binomial(count - errors, version.agreement)), errors, moments(ratios))


def moments(numbers: np.ndarray[Any, Any]) -> Moments:
    return Moments(len(numbers), float(numbers.mean()), float(numbers.var(ddof=1)) if len(numbers) > 1 else 0.0) if len(numbers) else Moments()


def draw(random: np.random.Generator, step: Step, version: Version, incumbent: Version) -> Evidence:
    """What comes while the candidate gets LOOK samples."""
    if step.shadow:
        return Evidence(shadow=draw_shadow(random, version, LOOK))
    beside, burst = round(LOOK * (100 - step.share) / step.share), float(random.random() < version.bursts) / version.bursts
    theirs, ours = (replace(one, errors=one.errors * burst) for one in (incumbent, version))
    return Evidence(draw_arm(random, theirs, beside), draw_arm(random, ours, LOOK))


def simulate(plan: Plan, version: Version, seed: int, incumbent: Version = INCUMBENT) -> Run:
    """One rollout, to its end. A look takes a second."""
    random, progress, counters = np.random.default_rng(seed), Progress(), Evidence()
    for look in range(1, LOOKS_MAX + 1):
        step = plan.steps[progress.step]
        counters = counters.plus(draw(random, step, version, incumbent))
        decision = engine.decide(plan, progress, counters, float(look))
        if decision.outcome in (engine.ROLL_BACK, engine.COMPLETE):
            broken = [gate.gate for gate in decision.gates if gate.verdict == "failed"]
            return Run(seed, decision.outcome, step.name, look * LOOK, broken[0] if broken else "")
        if decision.outcome == engine.PROMOTE:
            progress = progress.next_step(counters, float(look))
    return Run(seed, engine.HOLD, plan.steps[progress.step].name, LOOKS_MAX * LOOK, "")


def in_looks(given: Mapping[str, Any], min_samples: int | None = None) -> Plan:
    """A plan whose steps end by their samples alone."""
    plan = parsed({**given})
    return replace(plan, steps=tuple(replace(step, min_secs=0.0, min_samples=min_samples or step.min_samples) for step in plan.steps))


def most_common(texts: Sequence[str]) -> str:
    return ", ".join(f"{text or 'none'} {count}" for text, count in Counter(texts).most_common(2))


def row(version: Version, runs: Sequence[Run]) -> list[str]:
    """Of the runs that ended as they should, how many samples that took."""
    wanted = engine.COMPLETE if version.good else engine.ROLL_BACK
    ended = sorted(run.samples for run in runs if run.outcome == wanted)
    took = [f"{statistics.median(ended):,.0f}", f"{ended[int(0.95 * (len(ended) - 1))]:,}", f"{ended[-1]:,}"] if ended else ["", "", ""]
    counts = Counter(run.outcome for run in runs)
    return [version.name, str(counts[engine.COMPLETE]), str(counts[engine.ROLL_BACK]), *took, most_common([run.step for run in runs]),
            most_common([run.gate for run in runs]) if not version.good else ""]


def measure(runs: int) -> dict[Version, list[Run]]:
    example, limit = in_looks(EXAMPLE), in_looks(LIMIT, 2000)
    no_ceiling = in_looks({**EXAMPLE, "gates": {**EXAMPLE["gates"], "error_rate": {"at_most": None}}})  # a burst is above any, whoever is to blame
    found = {AT_LIMIT: [simulate(limit, AT_LIMIT, seed, replace(INCUMBENT, errors=0.01)) for seed in range(runs)]}
    for version in CANDIDATES:
        incumbent = replace(INCUMBENT, errors=version.errors) if version.good else INCUMBENT
        found[version] = [simulate(example if version.bursts == 1 else no_ceiling, version, seed, incumbent) for seed in range(runs)]
        print(f"{version.name}: {Counter(run.outcome for run in found[version])}", file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--runs", type=int, default=200, help="rollouts of each version, seeds from 0")
    parser.add_argument("--markdown", action="store_true", help="print tables to paste")
    parser.add_argument("--json", type=Path, default=report.RESULTS / "rollouts.json", help="result file")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a promise is broken")
    options = parser.parse_args()
    found = measure(options.runs)
    head = ["version", "promoted", "rolled back", "samples, median", "95%", "most", "ended at", "first broken"]
    print(report.table(head, [row(version, runs) for version, runs in found.items()], options.markdown) + "\n")
    promises = bounds.rollouts({version.name: sum(run.outcome == engine.ROLL_BACK for run in runs) / len(runs) for version, runs in found.items()},
                               {version.name for version in found if version.good}, parsed(EXAMPLE).alpha)
    print(report.promises_table(promises, options.markdown))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({version.name: [asdict(run) for run in runs] for version, runs in found.items()}, indent=1) + "\n")
    return int(options.check and not all(promise.kept for promise in promises))


if __name__ == "__main__":
    sys.exit(main())
