"""model.yaml: what a model's owner may say about it. All of it is optional; unknown keys are errors with line and nearest key."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from batchmill.backends import Tuning
from batchmill.errors import ConfigError
from batchmill.registry.policy import VersionPolicy
from batchmill.registry.settings import TUNABLE, DeclaredPadding, Fallback, ModelSettings, PaddedInput

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 256 << 10
MAX_DEPTH = 64  # the reader takes minutes for half a million brackets
MAX_ECHO = 100  # characters of what was given
MAX_VERSION = 10**19 - 1  # what a folder's name can say
HOUR_MS = 3_600_000
PREFERRED_MAX = 8  # batch sizes
FALLBACKS_MAX = 4  # each may cost a run
EDGES_MAX, LONGEST = 32, 65536  # lengths that rows are padded to, and the greatest of them
# Valid keys that this release does not act on; a file that has one is told so.
_NOT_YET = ("parameters",)


def read_folder(folder: Path, name: str) -> ModelSettings:
    """By model.yaml; where there is none, by Triton's config.pbtxt. name: the model's."""
    if (folder / "config.pbtxt").is_file() and not (folder / "model.yaml").is_file():
        from batchmill.registry import config_pbtxt

        return config_pbtxt.read(folder / "config.pbtxt", name)
    return read(folder / "model.yaml")


def read(path: Path) -> ModelSettings:
    """The settings of a model.yaml; the defaults when there is no such file. ConfigError names file, line and key."""
    if not path.is_file():
        return ModelSettings()
    node, given = document(path)
    return validated(path, node, given)


def document(path: Path) -> tuple[yaml.Node | None, Any]:
    """What is in a file of YAML, with the places of its keys; an empty one has no keys. ConfigError names file and line."""
    import yaml

    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES >> 10} KiB")
    try:
        text = path.read_text(encoding="utf-8")
        refuse_bombs(path, yaml.parse(text))
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        twice = repeated_key(node)
        given = yaml.safe_load(text) or {}
    except (yaml.YAMLError, UnicodeDecodeError, OSError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or 'not readable as YAML'}") from None
    if twice is not None:
        raise ConfigError(f"{path}:{twice.start_mark.line + 1}:{twice.start_mark.column + 1}: {twice.value[:MAX_ECHO]}: given twice")
    return node, given


def refuse_bombs(path: Path, events: Iterable[Any]) -> None:
    """What costs much more to read than its size: references, and nesting."""
    import yaml

    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(f"{path}: anchors and aliases are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{path}:{event.start_mark.line + 1}:{event.start_mark.column + 1}: nested deeper than {MAX_DEPTH}")


def repeated_key(node: Any) -> Any:
    """The first key that stands twice in its mapping; YAML's reader would take the last in silence."""
    if node is None or node.id == "scalar":
        return None
    seen: set[str] = set()
    for one in node.value:
        key, value = one if node.id == "mapping" else (None, one)
        if key is not None and key.id == "scalar" and key.value in seen:
            return key
        seen |= {key.value} if key is not None and key.id == "scalar" else set()
        if (found := repeated_key(value)) is not None:
            return found
    return None


def validated(path: Path, node: yaml.Node | None, given: Any) -> ModelSettings:
    import pydantic

    if not isinstance(given, dict):
        raise ConfigError(f"{path}:1:1: keys and values wanted")
    try:
        model = schema().model_validate(given)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"] if part != "[key]"]
        raise ConfigError(f"{path}:{place_of(node, place)}: {'.'.join(place)}: {complaint(first, place)}") from None
    without_effect = tuple(key for key in _NOT_YET if is_given(given, key))
    return dataclasses.replace(settings_of(model), without_effect=without_effect, file=path.name, given=tunable(given))


def complaint(error: Any, place: list[str]) -> str:
    """What was given and what is wanted, of one of pydantic's errors."""
    if error["type"] == "extra_forbidden":
        return unknown(place)
    if error["type"] == "missing":
        return "missing"
    wanted = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "model_type":
        wanted = f"keys such as {{{known_keys(place)[0]}: ...}}"
    return f"{repr(error['input'])[:MAX_ECHO]} given, {wanted} wanted"


def unknown(place: list[str]) -> str:
    near = difflib.get_close_matches(place[-1], known_keys(place[:-1]), 1) or elsewhere(place[-1])
    return "unknown key" + (f"; did you mean {near[0]!r}?" if near else "")


def tunable(given: Any) -> dict[str, Any]:
    """What of TUNABLE is in a mapping of mappings, by dotted key."""
    return {key: functools.reduce(lambda inside, part: inside[part], key.split("."), given) for key in TUNABLE if is_given(given, key)}


def is_given(given: Any, key: str) -> bool:
    """Whether a dotted key is in a mapping of mappings."""
    for part in key.split("."):
        if not isinstance(given, dict) or part not in given:
            return False
        given = given[part]
    return True


def place_of(node: Any, place: list[str]) -> str:
    """line:column of a key, counted from 1; of the closest thing above it when the key itself is not there."""
    found = "1:1"
    for part in place:
        inside = node.value if node is not None and isinstance(node.value, list) else []
        entries = {str(one[0].value): one for one in inside if isinstance(one, tuple)} or {str(index): (one, one) for index, one in enumerate(inside)}
        if part not in entries:
            break
        mark, node = entries[part][0].start_mark, entries[part][1]
        found = f"{mark.line + 1}:{mark.column + 1}"
    return found


_schema: Any = None


def schema() -> Any:
    """The pydantic model; made on first use, because most models have no file and pydantic takes 70 ms to import."""
    global _schema
    if _schema is None:
        _schema = make_schema()
    return _schema


def make_schema() -> Any:
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


def known_keys(place: list[str]) -> list[str]:
    model, parts = schema(), iter(place)
    for part in parts:
        if is_by_name(model, part):
            next(parts, None)
        model = part_of(model, part)
        if model is None:
            return []
    return list(model.model_fields)


def is_by_name(model: Any, key: str) -> bool:
    """Whether names of the owner's stand below a key."""
    return key in model.model_fields and get_origin(model.model_fields[key].annotation) is dict


def part_of(model: Any, key: str) -> Any:
    """The model of what stands below a key, or below the names there, also where the key may be left out; None: no keys of ours."""
    annotation = getattr(model.model_fields.get(key), "annotation", None)
    return next((one for one in (annotation, *get_args(annotation)) if hasattr(one, "model_fields")), None)


def elsewhere(key: str) -> list[str]:
    """Where a key belongs that was given in another place."""
    parts = ((name, part_of(schema(), name)) for name in schema().model_fields)
    return [f"{name}.{key}" for name, part in parts if part is not None and key in part.model_fields][:1] or [key] * (key in schema().model_fields)


def tuning_of(model: Any) -> Tuning:
    batching, queue, instances, breaker = model.batching, model.queue, model.instances, model.breaker
    return Tuning(
        max_batch_size=batching.max_batch_size,
        preferred_batch_sizes=tuple(sorted({size for size in batching.preferred_batch_sizes if size <= batching.max_batch_size})),
        max_queue_delay_us=batching.max_queue_delay_us,
        instances=0 if instances.count == "auto" else instances.count,
        run_on=instances.run_on,
        weight=instances.weight,
        run_timeout_ms=model.run_timeout_ms,
        max_queue_rows=queue.max_rows,
        max_wait_ms=queue.max_wait_ms,
        default_timeout_us=queue.default_timeout_us,
        timeout_action=queue.timeout_action,
        priority_levels=queue.priority_levels,
        default_priority_level=min(queue.default_priority_level or (queue.priority_levels + 1) // 2, queue.priority_levels),
        latency_ms=model.slo.latency_ms if model.slo else 0.0,
        target=model.slo.target if model.slo else Tuning().target,
        feedback=model.feedback,
        breaker_failures=breaker.failures if breaker else 0.0,
        breaker_window_s=breaker.window_s if breaker else Tuning().breaker_window_s,
        breaker_min_requests=breaker.min_requests if breaker else Tuning().breaker_min_requests,
        breaker_open_s=breaker.open_s if breaker else Tuning().breaker_open_s,
        breaker_invalid=bool(breaker and "invalid" in breaker.when),
    )


def padding_of(model: Any) -> DeclaredPadding | None:
    given = model.batching.padding
    inputs = tuple(PaddedInput(name, one.axis, one.value) for name, one in given.inputs.items()) if given else ()
    return DeclaredPadding(inputs, tuple(given.outputs.items()), tuple(given.edges or ())) if given else None


def settings_of(model: Any) -> ModelSettings:
    policy = model.versions.policy
    versions = VersionPolicy("specific", numbers=tuple(policy)) if isinstance(policy, list) else VersionPolicy(policy, model.versions.count)
    threads = model.instances.intra_op_threads
    return ModelSettings(
        versions=versions,
        labels={label: str(number) for label, number in model.labels.items()},
        batching=model.batching.mode,
        padding=padding_of(model),
        tuning=tuning_of(model),
        intra_op_threads=None if threads == "auto" else threads,
        execution_providers=tuple(model.execution_providers),
        warmup_runs=model.warmup.runs,
        golden_rtol=model.golden.rtol,
        golden_atol=model.golden.atol,
        golden_p99_ms=model.golden.p99_ms,
        signature_change=model.signature_change,
        fallbacks=tuple(Fallback(str(one.version or ""), one.model or "", one.constant or (), tuple(one.when)) for one in model.fallback),
        lineage={key: value for key, value in model.lineage.model_dump().items() if value},
    )
