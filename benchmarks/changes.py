#!/usr/bin/env python3
"""A thousand version changes under load: nothing fails, nothing retired or half copied answers, and the latency beside that without changes.

Versions of a few models are published, replaced in place, copied slowly, corrupted and removed; those of others, which have routes, are published
without traffic, promoted, rolled back and removed. Meanwhile h2load asks one of the models at 70% of what it can take, over gRPC and HTTP/1.1 in
turns, and checkers ask all of them over both and read every answer: the generation of a version is a factor in its weights. Periods with and
without changes take turns. What changes and checks stays on the load tool's core, behind it (two load tools there would wait for each other): the
server does not share its own, and its load does not wait for checks.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import bounds
import grpc
import load
import numpy as np
import payloads
import report
from onnx import TensorProto, helper, numpy_helper
from processes import Server, batchmill, stand_back
from startup import memory_mib

from batchmill.proto import inference_pb2

MODELS = 8
WIDTH = 64
KINDS = ("publish", "replace", "slow copy", "corrupt", "remove")
ROUTED_KINDS = ("publish", "promote", "roll back", "promote", "remove")
EFFECT_SECS, SETTLE_SECS = 20.0, 25.0


def model_bytes(generation: int) -> bytes:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in "xy"]
    factor = numpy_helper.from_array(np.full((1,), generation, np.float32), "factor")
    graph = helper.make_graph([helper.make_node("Mul", ["x", "factor"], ["y"])], "g", tensors[:1], tensors[1:], [factor])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 9
    return bytes(made.SerializeToString())


@dataclass
class Model:
    """A folder of the registry, and the generations that its default traffic went through: (begun, seen, generation)."""

    name: str
    folder: Path
    generation: int = 1
    versions: dict[int, int] = field(default_factory=dict)
    history: list[tuple[float, float, int]] = field(default_factory=list)

    def begin(self, kind: str, rest: Rest) -> None:
        """Makes the change; what must be answered by then is versions' newest."""
        number, begun = max(self.versions), time.monotonic()
        self.generation += 1
        content = model_bytes(self.generation)
        for left in self.folder.glob("*/corrupt"):
            shutil.rmtree(left.parent)
        if kind == "replace":
            part = self.folder / f".{self.generation}"
            part.write_bytes(content)
            os.replace(part, self.folder / str(number) / "model.onnx")
            self.versions[number] = self.generation
        elif kind == "remove" and len(self.versions) > 1:
            shutil.rmtree(self.folder / str(number))
            del self.versions[number]
        elif kind == "corrupt":
            place = self.folder / str(number + 1)
            place.mkdir()
            (place / "corrupt").touch()
            (place / "model.onnx").write_bytes(content[: len(content) // 2])
        else:
            place = self.folder / str(number + 1)
            place.mkdir()
            with (place / "model.onnx").open("wb") as file:
                for at in range(0, len(content), len(content) // 3 + 1):
                    file.write(content[at : at + len(content) // 3 + 1])
                    file.flush()
                    time.sleep(0.02 if kind == "slow copy" else 0)
            self.versions[number + 1] = self.generation
            for old in sorted(self.versions)[:-2]:
                shutil.rmtree(self.folder / str(old))
                del self.versions[old]
        self.history.append((begun, float("inf"), self.versions[max(self.versions)]))

    def is_there(self, states: Mapping[tuple[str, str], str]) -> bool:
        """Whether what needs no traffic to be seen has happened."""
        place = next(self.folder.glob("*/corrupt"), None)
        return place is None or states.get((self.name, place.parent.name)) == "UNAVAILABLE"

    def seen(self, generation: int, at: float) -> bool:
        begun, _, wanted = self.history[-1]
        if generation != wanted:
            return False
        self.history[-1] = begun, at, wanted
        return True

    def allowed(self, sent: float, received: float) -> set[int]:
        """The generations that may answer a request of that time: from a change's begin until the next one has been seen."""
        ends = [seen for _, seen, _ in self.history[1:]] + [float("inf")]
        return {generation for (begun, _, generation), end in zip(self.history, ends, strict=True) if begun <= received and sent <= end}


@dataclass
class Routed(Model):
    """One whose traffic goes where its route says: a new version gets none."""

    current: int = 1
    before: int = 1
    wanted: dict[str, str] = field(default_factory=dict)

    def begin(self, kind: str, rest: Rest) -> None:
        begun, newest = time.monotonic(), max(self.versions)
        if kind == "publish":
            self.generation += 1
            place = self.folder / str(newest + 1)
            place.mkdir()
            (place / "model.onnx").write_bytes(model_bytes(self.generation))
            self.versions[newest + 1] = self.generation
            self.wanted = {str(newest + 1): "READY"}
        elif kind == "promote":
            rest.post(f"/admin/models/{self.name}/promote", {"version": str(newest)})
            self.before, self.current = (self.current, newest) if self.current != newest else (self.before, newest)
        elif kind == "roll back":
            rest.post(f"/admin/models/{self.name}/rollback", {})
            self.before, self.current = self.current, self.before
        else:
            for old in sorted({*self.versions} - {self.current, self.before, newest}):
                shutil.rmtree(self.folder / str(old))
                del self.versions[old]
                self.wanted = {str(old): ""}
        self.history.append((begun, float("inf"), self.versions[self.current]))

    def is_there(self, states: Mapping[tuple[str, str], str]) -> bool:
        return all(states.get((self.name, number), "") == state for number, state in self.wanted.items())


class Rest:
    """One connection that asks models for their generation."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.body, size = payloads.rest_binary("x", np.ones((1, WIDTH), np.float32))
        self.headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(size)}

    def ask(self, model: str) -> int:
        self.connection.request("POST", f"/v2/models/{model}/infer", self.body, self.headers)
        answer = self.connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {data[:200]!r}")
        return generation_of(data[int(answer.headers["Inference-Header-Content-Length"]) :])

    def post(self, path: str, body: Mapping[str, str]) -> None:
        self.connection.request("POST", path, json.dumps(body))
        answer = self.connection.getresponse()
        told = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}: {told[:200]!r}")

    def states(self) -> dict[tuple[str, str], str]:
        self.connection.request("POST", "/v2/repository/index", b"")
        return {(row["name"], row["version"]): row["state"] for row in json.load(self.connection.getresponse())}


class Grpc:
    def __init__(self, port: int) -> None:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.call = channel.unary_unary(load.METHOD + "ModelInfer", bytes, inference_pb2.ModelInferResponse.FromString)

    def ask(self, model: str) -> int:
        answer = self.call(payloads.grpc_message(model, {"x": np.ones((1, WIDTH), np.float32)}), timeout=30)
        return generation_of(answer.raw_output_contents[0])


def generation_of(raw: bytes) -> int:
    values = np.frombuffer(raw, np.float32)
    if len(values) != WIDTH or len(set(values.tolist())) != 1:
        raise RuntimeError(f"no answer of one version: {values}")
    return int(values[0])


class Checker(threading.Thread):
    """Asks all models in turn and keeps what was answered, and when."""

    def __init__(self, asker: type[Rest | Grpc], port: int, models: list[Model], core: str) -> None:
        super().__init__(daemon=True)  # a change that fails ends the measurement
        self.asker, self.port, self.models, self.core, self.done = asker, port, models, core, threading.Event()
        self.answers: list[tuple[Model, float, float, int]] = []
        self.failures: list[str] = []

    def run(self) -> None:
        stand_back(self.core)
        asker = self.asker(self.port)
        while not self.done.wait(0.002):
            for model in self.models:
                sent = time.monotonic()
                try:
                    generation = asker.ask(model.name)
                    self.answers.append((model, sent, time.monotonic(), generation))
                except (RuntimeError, OSError, http.client.HTTPException, grpc.RpcError) as error:
                    self.failures.append(f"{model.name}: {error}"[:300])

    def wrong(self) -> int:
        """Answers of a version that had been retired, or was not there yet."""
        return sum(generation not in model.allowed(sent, received) for model, sent, received, generation in self.answers)


def change_all(models: list[Model], turn: int, rest: Rest) -> int:
    """One change of each model, until all of them are seen."""
    kinds = {model.name: ROUTED_KINDS[turn % len(KINDS)] if isinstance(model, Routed) else KINDS[(turn + place) % len(KINDS)]
             for place, model in enumerate(models)}
    for model in models:
        model.begin(kinds[model.name], rest)
    waiting, end = list(models), time.monotonic() + EFFECT_SECS
    while waiting:
        if time.monotonic() > end:
            raise RuntimeError(f"not in effect after {EFFECT_SECS} s: {[(model.name, kinds[model.name], model.history[-1]) for model in waiting]}")
        time.sleep(0.01)
        states = rest.states()
        for model in [*waiting]:
            if model.is_there(states) and model.seen(rest.ask(model.name), time.monotonic()):
                waiting.remove(model)
    return len(models)


@dataclass(frozen=True, slots=True)
class Paced:
    """h2load against one model, at so many requests a second over the connections."""

    name: str
    path: str
    body: Path
    flags: tuple[str, ...]
    connections: int = 8

    def command(self, port: int, core: str) -> list[str]:
        url = f"http://127.0.0.1:{port}{self.path}"
        return load.pinned(["h2load", "-t", "1", "-c", str(self.connections), "-d", str(self.body), *self.flags, url], core)

    def capacity(self, port: int, core: str) -> float:
        """Requests a second in a closed loop."""
        text = subprocess.run([*self.command(port, core), "-n", "20000"], capture_output=True, text=True, check=True).stdout
        return load.h2load_rate(text, 20000, 4 * WIDTH)

    def start(self, port: int, core: str, rate: float, seconds: float, log: Path) -> subprocess.Popen[str]:
        each = max(1, round(rate / self.connections))
        count = round(each * self.connections * seconds)
        command = [*self.command(port, core), "-n", str(count), "--rps", str(each), f"--log-file={log}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def period(server: Server, tool: Paced, rate: float, options: argparse.Namespace, log: Path, work: Callable[[], None] | None) -> float:
    """p99 in µs while the work goes on; RuntimeError when a request failed."""
    log.unlink(missing_ok=True)
    running = tool.start(server.port, options.client_core, rate, options.seconds, log)
    while work and running.poll() is None:
        work()
    text, _ = running.communicate()
    times = load.times_us(log)
    load.h2load_rate(text, len(times), 4 * WIDTH)
    return load.percentile(times, 0.99)


def held(server: Server) -> dict[str, float]:
    proc = Path(f"/proc/{server.pid}")
    return {"MiB": memory_mib(server.pid), "descriptors": len(os.listdir(proc / "fd")), "threads": len(os.listdir(proc / "task")),
            "mappings": len((proc / "maps").read_text().splitlines())}


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, float], dict[str, list[float]]]:
    registry = folder / "registry"
    models = [(Routed if number % 2 else Model)(f"m{number}", registry / f"m{number}") for number in range(MODELS)]
    for model in models:
        (model.folder / "1").mkdir(parents=True)
        (model.folder / "1" / "model.onnx").write_bytes(model_bytes(1))
        model.versions[1] = 1
        model.history.append((0.0, 0.0, 1))
    (folder / "grpc").write_bytes(payloads.framed(payloads.grpc_message("m0", {"x": np.ones((1, WIDTH), np.float32)})))
    body, size = payloads.rest_binary("x", np.ones((1, WIDTH), np.float32))
    (folder / "rest").write_bytes(body)
    tools = [Paced("gRPC", load.METHOD + "ModelInfer", folder / "grpc", ("-H", "content-type: application/grpc", "-H", "te: trailers", "-m", "4")),
             Paced("REST", "/v2/models/m1/infer", folder / "rest", ("--h1", "-H", f"inference-header-content-length: {size}"))]
    ratios: dict[str, list[float]] = {tool.name: [] for tool in tools}
    counts: Counter[str] = Counter()
    background = ThreadPoolExecutor(1, initializer=stand_back, initargs=(options.client_core,))
    with batchmill("changes", registry, options.server_core, folder) as server, background:
        rest = Rest(server.port)
        while len(rest.states()) < MODELS or set(rest.states().values()) != {"READY"}:
            time.sleep(0.05)
        for model in models:
            if isinstance(model, Routed):
                rest.post(f"/admin/models/{model.name}/promote", {"version": "1"})
        rates = {tool: options.load * tool.capacity(server.port, options.client_core) for tool in tools if options.load}
        checkers = [Checker(asker, server.port, models, options.client_core) for asker in (Rest, Grpc)]
        for checker in checkers:
            checker.start()
        for turn in range(4):  # what the first loads leave for good: a probe child, heaps of threads
            background.submit(change_all, models, turn, rest).result()
        time.sleep(options.settle)
        before = held(server)

        def work() -> None:
            counts["changes"] += background.submit(change_all, models, counts["turns"] + 4, rest).result()
            counts["turns"] += 1

        while counts["changes"] < options.changes:
            if not rates:
                work()
                continue
            for tool, rate in rates.items():
                quiet = period(server, tool, rate, options, folder / "log", None)
                changing = period(server, tool, rate, options, folder / "log", work)
                ratios[tool.name].append(changing / quiet)
                print(f"{counts['changes']:5} changes: p99 of {tool.name} {changing:,.0f} µs, without {quiet:,.0f}", file=sys.stderr, flush=True)
        for checker in checkers:
            checker.done.set()
            checker.join()
        time.sleep(options.settle)
        after = held(server)
        rest.connection.request("GET", "/metrics")
        metrics = rest.connection.getresponse().read().decode().splitlines()
        leases = sum(float(line.rsplit(" ", 1)[1]) for line in metrics if line.startswith("batchmill_version_in_flight_requests{"))
    failures = [failure for checker in checkers for failure in checker.failures]
    print("\n".join(failures[:5]), file=sys.stderr)
    figures = {"changes": counts["changes"], "answers read": sum(len(checker.answers) for checker in checkers), "failed": len(failures),
               "of a wrong version": sum(checker.wrong() for checker in checkers), "leases": leases,
               **{f"more {name}": after[name] - before[name] for name in before}}
    return figures, ratios


def main() -> int:
    parser = report.parser(__doc__, "changes", rounds=1, seconds=10.0)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--load", type=float, default=0.7, help="share of the capacity; 0: the checkers alone")
    parser.add_argument("--settle", type=float, default=SETTLE_SECS, help="seconds before memory, descriptors and threads are counted")
    options = parser.parse_args()
    report.require(*(["h2load"] if options.load else []), "taskset")
    with tempfile.TemporaryDirectory(prefix="batchmill-changes-") as folder:
        figures, ratios = measure(options, Path(folder))
    print(report.table(["figure", "measured"], [[name, f"{value:,.1f}"] for name, value in figures.items()], options.markdown))
    return report.finish(options, {}, bounds.changes(figures, {name: statistics.median(some) for name, some in ratios.items() if some}))


if __name__ == "__main__":
    sys.exit(main())
