"""The keys of model.yaml: what each takes, its default, and what it is for."""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

from batchmill.complaints import MAX_ECHO
from batchmill.rollout.plan_schema import schema as schema_of_plan

MAX_VERSION = 10**19 - 1  # what a folder's name can say
HOUR_MS = 3_600_000
PREFERRED_MAX = 8  # batch sizes
FALLBACKS_MAX = 4  # each may cost a run
EDGES_MAX, LONGEST = 32, 65536  # lengths that rows are padded to, and the greatest of them


@functools.cache
def schema() -> Any:
    """The pydantic model; made on first use, because most models have no file and pydantic takes 70 ms to import."""
    from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

    def number(low: float, high: float, also: str = "") -> Any:
        """Checks a range, with fractions where its lower end is a float, or lets that word pass."""
        fractions = isinstance(low, float)

        def check(value: Any) -> Any:
            if (also and value == also) or (type(value) in (int, float if fractions else int) and low <= value <= high):
                return value
            raise ValueError(f"a {'' if fractions else 'whole '}number from {low} to {high}" + (f", or {also}," if also else ""))

        return BeforeValidator(check)

    def word_of_switch(value: Any) -> Any:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value  # YAML 1.1 reads on and off so

    def eight_at_most(value: Any) -> Any:
        if isinstance(value, list) and len(value) <= PREFERRED_MAX:
            return value
        raise ValueError(f"a list of at most {PREFERRED_MAX} batch sizes")

    def ascending(value: Any) -> Any:
        whole = isinstance(value, list) and 0 < len(value) <= EDGES_MAX and all(type(one) is int and 1 <= one <= LONGEST for one in value)
        if whole and value == sorted(set(value)):
            return value
        raise ValueError(f"at most {EDGES_MAX} ascending whole numbers from 1 to {LONGEST}")

    def not_empty(value: Any) -> Any:
        if value:
            return value
        raise ValueError("names of inputs")

    def one_element(value: Any) -> Any:
        if isinstance(value, bool | int | float):
            return value
        raise ValueError("a number, or true or false,")

    def switch_or_output(value: Any) -> Any:
        if isinstance(value, bool) or (isinstance(value, str) and value):
            return value
        raise ValueError("true, false or the name of an output")

    def some_of_the_failures(value: Any) -> Any:
        if isinstance(value, list) and value and all(one in ("error", "invalid") for one in value):
            return value
        raise ValueError("a list of error and invalid")

    def version_or_previous(value: Any) -> Any:
        if value is None or value == "previous" or (type(value) is int and 1 <= value <= MAX_VERSION):
            return value
        raise ValueError("previous, or the number of a version")

    def outputs_of_v2(value: Any) -> Any:
        if not isinstance(value, dict) or [*value] != ["outputs"]:
            raise ValueError("{outputs: [...]} as an answer has them")
        return constant_of(value["outputs"])

    def four_at_most(value: Any) -> Any:
        if isinstance(value, list) and len(value) <= FALLBACKS_MAX:
            return value
        raise ValueError(f"a list of at most {FALLBACKS_MAX} versions or models, such as {{version: previous}}")

    def one_of_the_policies(value: Any) -> Any:
        numbers = value if isinstance(value, list) else []
        if value in ("latest", "all") or (numbers and all(type(one) is int and 1 <= one <= MAX_VERSION for one in numbers)):
            return value
        raise ValueError("latest, all or a list of version numbers")

    def keys_of_plan(value: Any) -> Any:
        if value is True or value == "auto":
            return {}
        if value is None or isinstance(value, dict):
            return value
        if value is False:
            return None
        raise ValueError("auto, or keys of a plan such as {steps: ...}")

    class Part(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

    class Versions(Part):
        policy: Annotated[Any, BeforeValidator(one_of_the_policies)] = "latest"
        """latest: the newest `count`. all. Or a list of version numbers."""
        count: Annotated[int, number(1, 1_000_000)] = 1
        """How many of the newest, with policy latest."""

    class Padded(Part):
        axis: Annotated[int, number(1, 15)] = 1
        """Which of the input's axes, a free one, differs in length from request to request. All inputs of a request have the same."""
        value: Annotated[Any, BeforeValidator(one_element)] = 0
        """What a shorter row is filled up with: an element of the input's datatype."""

    class Padding(Part):
        edges: Annotated[list[int], BeforeValidator(ascending)] | None = None
        """Lengths: a row is padded to the next, unless it is above the last. null: to the longest row of the batch, less than twice its own."""
        outputs: dict[str, Annotated[int, number(1, 15)]] = {}
        """Outputs that have that length, too, and along which axis: it is cut back to the request's own."""
        inputs: Annotated[dict[str, Padded], BeforeValidator(not_empty)]

    class Batching(Part):
        mode: Annotated[Literal["auto", "on", "off"], BeforeValidator(word_of_switch)] = "auto"
        """auto: when a proof at load shows that rows run together equal rows run alone. on: refused where the proof fails. off."""
        max_batch_size: Annotated[int, number(1, 65536)] = 64
        """Rows. A request that has more runs in parts: 4,096 at most, which are larger where they must be."""
        max_queue_delay_us: Annotated[int, number(0, 1000 * HOUR_MS)] = 0
        """How long the oldest row may wait for company. 0: a batch is what waits when an executor is free."""
        preferred_batch_sizes: Annotated[list[Annotated[int, number(1, 65536)]], BeforeValidator(eight_at_most)] = []
        """Rows, 8 sizes at most. What waits is cut to the largest of them that it makes; to wait until it makes one, give a queue delay, too."""
        padding: Padding | None = None

    class Queue(Part):
        max_rows: Annotated[int, number(1, 1_000_000_000)] = 4096
        """Rows that may wait; more are refused at once (`--busy-status`, RESOURCE_EXHAUSTED)."""
        max_wait_ms: Annotated[int, number(0, HOUR_MS)] = 2000
        """A request that is predicted to wait longer is refused at once (`--busy-status`, RESOURCE_EXHAUSTED). 0: however long."""
        default_timeout_us: Annotated[int, number(0, 1000 * HOUR_MS)] = 0
        """Deadline of a request that brings none. 0: none."""
        timeout_action: Literal["reject", "delay"] = "reject"
        """What becomes of a request that has waited longer than its timeout: it is refused, or all who wait now go before it."""
        priority_levels: Annotated[int, number(0, 1000)] = 0
        """How many levels the `priority` of a request has: 1 is the highest; each one further is due 100 ms later. 0: it does not count."""
        default_priority_level: Annotated[int, number(0, 1000)] = 0
        """Of requests that name no level, or one there is not. 0: the middle one."""

    class Instances(Part):
        count: Annotated[int | Literal["auto"], number(1, 1024, "auto")] = "auto"
        """Batches of this model at once. auto: one for each executor; of a model that has all threads for one run, 1."""
        run_on: Literal["auto", "executor", "io"] = "auto"
        """Where batches run: on an executor; on the I/O thread, which saves the hand-over and holds its connections up; auto: by run time."""
        weight: Annotated[float, number(0.001, 1000.0)] = 1.0
        """Its share of the executors beside other models that have work."""
        intra_op_threads: Annotated[int | Literal["auto"], number(1, 1024, "auto")] = "auto"
        """Threads of one run. auto: measured at load: 1, or all cores where about as many rows a second come of that. The log says which."""

    class Slo(Part):
        latency_ms: Annotated[float, number(0.001, HOUR_MS)]
        """The objective: batches are as large as still leaves their most urgent request in time; who could not be in time is refused at once."""
        target: Annotated[float, number(0.001, 1)] = 0.99
        """The share of the batches that shall be in time, of those that could be: batches are as large as that lets them. Deadlines count, too."""

    class Warmup(Part):
        runs: Annotated[int, number(0, 1000)] = 3
        """Runs on a sample before a version serves."""

    class Golden(Part):
        rtol: Annotated[float, number(0.0, 1e9)] = 1e-4
        """Of what a version makes of the inputs in its golden.npz."""
        atol: Annotated[float, number(0.0, 1e9)] = 1e-6
        """The same."""
        p99_ms: Annotated[float, number(0.001, HOUR_MS)] | None = None
        """Of runs of one row of golden.npz. null: any."""

    class Breaker(Part):
        failures: Annotated[float, number(0.001, 1.0)] = 0.5
        """Share of the runs in the window that fail, from which the version gets no requests for a while (UNAVAILABLE, or a fallback)."""
        window_s: Annotated[float, number(0.01, 3600.0)] = 10.0
        """What is looked back."""
        min_requests: Annotated[int, number(1, 1_000_000)] = 20
        """In the window, before the share counts."""
        open_s: Annotated[float, number(0.01, 3600.0)] = 5.0
        """How long it is spared; then 5 requests try it: all of them must go well."""
        when: Annotated[list[Literal["error", "invalid"]], BeforeValidator(some_of_the_failures)] = ["error"]
        """error: runs that fail by the model's own fault, or take too long. invalid: also those that fail for the values they were given."""

    class Fallback(Part):
        version: Annotated[Any, BeforeValidator(version_or_previous)] | None = None
        """Its number, or previous: that which had the traffic before the last change of the route, else the next older one that is ready."""
        model: str | None = None
        """Another model, that takes the same inputs, in the place of a version."""
        constant: Annotated[Any, BeforeValidator(outputs_of_v2)] | None = None
        """`{outputs: [{name: ..., datatype: ..., shape: ..., data: ...}]}`: the answer itself, of one row; while some version is ready."""
        when: Annotated[list[Literal["error", "invalid"]], BeforeValidator(some_of_the_failures)] = ["error"]
        """As of the breaker. An open breaker, and a deadline that cannot be met, always count."""

        @model_validator(mode="after")
        def check(self) -> Fallback:
            if [self.version, self.model, self.constant].count(None) != 2:
                raise ValueError("a version, a model or a constant")
            return self

    class Lineage(Part):
        git_commit: str = ""
        """Of the code that made the model. Shown in /admin/models and in the audit trail, as all of this."""
        training_run: str = ""
        """Its name or address, wherever training runs are kept."""
        data_sha256: str = ""
        """Of the data it was trained on."""
        note: str = ""
        """Anything else."""

    class Model(Part):
        backend: Literal["onnxruntime"] = "onnxruntime"
        """What runs the model."""
        versions: Versions = Versions()
        labels: dict[str, Annotated[int, number(1, MAX_VERSION)]] = {}
        """Names of versions. A version that a label names is loaded whatever the policy says."""
        batching: Batching = Batching()
        queue: Queue = Queue()
        instances: Instances = Instances()
        slo: Slo | None = None
        execution_providers: list[str] = ["CPUExecutionProvider"]
        """ONNX Runtime's, best first."""
        run_timeout_ms: Annotated[int, number(0, 24 * HOUR_MS)] = 30000
        """A run that is longer is ended, between two of its nodes. 0: never."""
        warmup: Warmup = Warmup()
        golden: Golden = Golden()
        signature_change: Literal["hold", "allow"] = "hold"
        """hold: a version whose inputs or outputs are not those of the one in service gets no default traffic until a label names it."""
        rollout: Annotated[schema_of_plan() | None, BeforeValidator(keys_of_plan)] = None  # type: ignore[valid-type]
        """A new version gets its traffic step by step, by itself. auto: by the default plan; or the keys of a plan: docs/rollouts.md has them."""
        feedback: Annotated[Any, BeforeValidator(switch_or_output)] = False
        """true: answers carry a token, by which ground truth is told later. Or the output that has the predicted class; true: the first."""
        breaker: Breaker | None = None
        fallback: Annotated[list[Fallback], BeforeValidator(four_at_most)] = []
        """Who answers, one after the other, where the version that was chosen fails. Of requests that name no version; the answer says who."""
        lineage: Lineage = Lineage()
        parameters: dict[str, Any] = {}
        """Without effect in this release."""

    return Model


def constant_of(outputs: Any) -> tuple[tuple[str, str, tuple[int, ...], str], ...]:
    """Name, datatype, shape and raw bytes, in hex, of outputs written as in JSON. ValueError: they are none."""
    import json

    from batchmill.core import json_codec

    try:
        body = json.dumps({"inputs": outputs}).encode()  # a request's inputs are written alike
        found = json_codec.decode(body)["inputs"]
    except (TypeError, ValueError) as error:
        raise ValueError(f"outputs that can be read ({str(error).replace('input', 'output')[:MAX_ECHO]})") from None
    if not found:
        raise ValueError("some outputs")
    return tuple((name.decode(), datatype, tuple(shape), raw.hex()) for name, datatype, shape, raw in found)
