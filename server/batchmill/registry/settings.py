"""How a model is to be served, as a value; model.yaml is parsed into it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from batchmill.backends import Tuning
from batchmill.registry.policy import VersionPolicy
from batchmill.rollout.plan import Plan

# Keys of model.yaml that a version in service takes over at once, without being loaded anew. A call may set them.
TUNABLE = (
    "batching.max_batch_size", "batching.max_queue_delay_us", "batching.preferred_batch_sizes",
    "queue.max_rows", "queue.max_wait_ms", "queue.default_timeout_us", "queue.timeout_action", "queue.priority_levels",
    "queue.default_priority_level", "instances.count", "instances.run_on", "instances.weight", "slo.latency_ms", "slo.target", "run_timeout_ms",
    "feedback", "breaker.failures", "breaker.window_s", "breaker.min_requests", "breaker.open_s", "breaker.when",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeclaredTensor:
    """An input or output that config.pbtxt declares. datatype: empty, dims: None: not said.

    batch: with max_batch_size > 0 dims leave out the batch axis (with), with 0 they do not (without); not given, both will do (either).
    """

    where: str  # file:line:column
    kind: str  # input or output
    name: str
    datatype: str
    dims: tuple[int, ...] | None
    batch: str


@dataclass(frozen=True, slots=True)
class PaddedInput:
    name: str
    axis: int = 1
    value: float = 0  # or a bool or int, as it was given


@dataclass(frozen=True, slots=True)
class DeclaredPadding:
    """What model.yaml says of rows of different lengths. edges: none: to the longest of the batch."""

    inputs: tuple[PaddedInput, ...]
    outputs: tuple[tuple[str, int], ...] = ()  # name, axis
    edges: tuple[int, ...] = ()


PREVIOUS = "previous"


@dataclass(frozen=True, slots=True)
class Fallback:
    """Who answers in the place of a version that failed. version: a number, or previous: the one before. model: another one.
    constant: name, datatype, shape and raw bytes (in hex) of each output that is the answer then. One of the three.
    """

    version: str = ""
    model: str = ""
    constant: tuple[tuple[str, str, tuple[int, ...], str], ...] = ()
    when: tuple[str, ...] = ("error",)  # error: of the model's own; invalid: for the values that it was given


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """given: what of TUNABLE the file of that name says; called: what calls have set of it, which wins. tuning follows from both."""

    versions: VersionPolicy = VersionPolicy()  # noqa: RUF009  (frozen)
    labels: dict[str, str] = field(default_factory=dict)
    batching: str = "auto"  # auto: proved at load; on: declared, axis 0 of all inputs and outputs; off
    padding: DeclaredPadding | None = None
    tuning: Tuning = Tuning()  # noqa: RUF009  (frozen)
    intra_op_threads: int | None = None  # None: by a sweep where there are cores to share, else 1
    execution_providers: tuple[str, ...] = ("CPUExecutionProvider",)
    warmup_runs: int = 3
    golden_rtol: float = 1e-4
    golden_atol: float = 1e-6
    golden_p99_ms: float | None = None  # of runs of golden.npz, one row each where rows share batches; None: any
    signature_change: str = "hold"  # hold: a version with other inputs or outputs than the one in service gets no default traffic; allow
    rollout: Plan | None = None  # how a new version gets its traffic; None: all of it at once
    fallbacks: tuple[Fallback, ...] = ()  # in the order in which they are tried
    declared: tuple[DeclaredTensor, ...] = ()
    notes: tuple[str, ...] = ()  # what was found in config.pbtxt and does not count
    without_effect: tuple[str, ...] = ()  # keys that are valid and that this release does not act on
    lineage: dict[str, str] = field(default_factory=dict)  # what it says of where the model is from
    file: str = ""  # model.yaml or config.pbtxt; empty: there is none
    given: dict[str, Any] = field(default_factory=dict)
    called: dict[str, Any] = field(default_factory=dict)

    def for_loading(self) -> ModelSettings:
        """Without what needs no loading anew when it changes: what is chosen among, and what a version in service takes over."""
        return replace(
            self, versions=VersionPolicy(), labels={}, signature_change="hold", rollout=None, fallbacks=(), notes=(), without_effect=(),
            warmup_runs=0, tuning=Tuning(max_batch_size=1), lineage={}, file="", given={}, called={},
        )  # fmt: skip
