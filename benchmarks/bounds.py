"""What the server promises, held against the yardsticks of the same run. Pure functions.

H, F, U: CPU time a request of floor_h2, floor and grpcio_echo; R(n): of a row in ONNX Runtime, in batches of n.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

Key = tuple[str, str]  # (server, point)
OURS, BASELINE = "batchmill", "baseline_grpcio"
P99_OF_P50 = 4.0
HEAVY_SHARE = 0.97
START_MIB = 90.0
TAIL_RATIO, TAIL_US = 2.0, 1000.0
INSTRUMENTS_SHARE = 0.02
ROUTE_SHARE = 0.03
AGREEMENT_SHARE = 0.05
MANY = {"ready s": 10.0, "MiB": 1000.0, "threads": 100.0, "idle %": 2.0, "/metrics ms": 100.0, "/v2/repository/index ms": 100.0}
MANY_COST_RATIO = 1.1
LONE_RATIO, MIXED_RATIO = 1.05, 1.5
OVERLOAD = {"refusals, p99 ms": 50.0, "late answers, %": 0.5, "rows run in vain, %": 1.0, "back to normal, s": 1.0}
OVERLOAD_SHARE, OF_WHAT_READING_LEAVES, OVERLOAD_MIB = 0.9, 0.95, 20.0
POISON_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Bound:
    """CPU time a request at the point: at most the sum of weight times yardstick."""

    point: str
    text: str
    terms: Mapping[Key, float]


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure beside its limit, in one unit: at most the limit, or with at_least at least it."""

    point: str
    text: str
    got: float
    limit: float
    at_least: bool = False

    @property
    def kept(self) -> bool:
        return self.got >= self.limit if self.at_least else self.got <= self.limit


def floor_h2(point: str, weight: float) -> dict[Key, float]:
    return {("floor_h2", point): weight}


def row(batch: int) -> Key:
    return "onnxruntime", f"row{batch}"


BOUNDS = (
    Bound("grpc1", "1.3 H(1) + R(1)", {**floor_h2("grpc1", 1.3), row(1): 1}),
    *(Bound(f"grpc{n}", f"1.75 H({n}) + R(8)", {**floor_h2(f"grpc{n}", 1.75), row(8): 1}) for n in (8, 32, 128)),
    Bound("grpc-each32", "1.5 H(each 32) + R(8)", {**floor_h2("grpc-each32", 1.5), row(8): 1}),
    Bound("grpc32", "U(32) / 25", {("grpcio_echo", "grpc32"): 1 / 25}),
    Bound("grpc32", "grpcio + onnxruntime / 30", {(BASELINE, "grpc32"): 1 / 30}),
    Bound("stream500", "H(32) / 3 + R(32)", {**floor_h2("grpc32", 1 / 3), row(32): 1}),
    Bound("rest-binary32", "2 F(32) + R(8)", {("floor", "rest-binary32"): 2, row(8): 1}),
    Bound("rest-json32", "3 F(32) + R(8)", {("floor", "rest-binary32"): 3, row(8): 1}),
)


def needed(points: Collection[str], baseline: bool) -> set[Key]:
    """The points of the server, and every yardstick that a bound of theirs stands on."""
    terms = {key for bound in BOUNDS if bound.point in points for key in bound.terms}
    return {(OURS, point) for point in points} | {key for key in terms if baseline or key[0] != BASELINE}


def judge(cpu_us: Mapping[Key, float], p99_of_p50: Mapping[str, float]) -> list[Promise]:
    """The promises whose yardsticks were all measured. p99_of_p50: of the server, by point."""
    promises = [
        Promise(bound.point, bound.text, cpu_us[OURS, bound.point], sum(weight * cpu_us[key] for key, weight in bound.terms.items()))
        for bound in BOUNDS
        if (OURS, bound.point) in cpu_us and bound.terms.keys() <= cpu_us.keys()
    ]
    bounded = {bound.point for bound in BOUNDS}
    return promises + [Promise(point, "p99 / p50", ratio, P99_OF_P50) for point, ratio in p99_of_p50.items() if point in bounded]


def heavy(model: str, rows_per_sec: float, in_process: float) -> Promise:
    return Promise(model, f"{HEAVY_SHARE:.0%} of in process", rows_per_sec, HEAVY_SHARE * in_process, at_least=True)


def tail(busy_us: float, idle_us: float) -> Promise:
    return Promise("p99.9, Python busy", f"{TAIL_RATIO:g}x idle or {TAIL_US:,.0f} µs", busy_us, max(TAIL_RATIO * idle_us, TAIL_US))


def startup(secs: float, mib: float, import_secs: float) -> list[Promise]:
    return [
        Promise("first answer", "s of importing grpc, starlette, onnxruntime", secs, import_secs),
        Promise("memory", f"{START_MIB:.0f} MiB resident", mib, START_MIB),
    ]


def instruments(point: str, cpu_us: float, floor_us: float) -> Promise:
    return Promise(f"instruments, {point}", f"{INSTRUMENTS_SHARE:.0%} of F", cpu_us, INSTRUMENTS_SHARE * floor_us)


def route(case: str, cpu_us: float, floor_us: float) -> Promise:
    """cpu_us: what it costs more than a model with one version."""
    return Promise(f"route, {case}", f"{ROUTE_SHARE:.0%} of F", cpu_us, ROUTE_SHARE * floor_us)


def many_models(figures: Mapping[str, float], cost_ratio: float, asked_us: float, idle_us: float) -> list[Promise]:
    """cost_ratio: CPU time a request with all models beside that with one; asked_us, idle_us: p99.9 with and without scrapes."""
    return [
        *(Promise("many models", name, figures[name], most) for name, most in MANY.items()),
        Promise("many models", "CPU of a request, of that with one", cost_ratio, MANY_COST_RATIO),
        Promise("p99.9, scraped", f"{TAIL_RATIO:.0f}x idle or {TAIL_US:,.0f} µs", asked_us, max(TAIL_RATIO * idle_us, TAIL_US)),
    ]


def changes(figures: Mapping[str, float], p99_ratios: Mapping[str, float]) -> list[Promise]:
    """figures: of a server before and after version changes; p99_ratios: by protocol, beside the same load without changes."""
    return [
        *(Promise("changes", name, figures[name], 0.0) for name in ("failed", "of a wrong version", "leases")),
        Promise("changes", "MB more resident", figures["more MiB"], 20.0),
        *(Promise("changes", f"more {name}", figures[f"more {name}"], 0.0) for name in ("descriptors", "threads")),
        *(Promise("changes", f"p99 {name}, of that without", ratio, 1.5) for name, ratio in p99_ratios.items()),
    ]


def agreement(counts: Mapping[str, tuple[float, float]], latencies_us: Mapping[str, tuple[float, float, float]]) -> list[Promise]:
    """counts: (the client's, the server's); latencies_us: (the client's, its transport's, the server's)."""
    return [
        *(Promise(name, "requests apart", abs(ours - client), 0.0) for name, (client, ours) in counts.items()),
        *(Promise(name, "apart from client minus transport", abs(ours / (client - transport) - 1), AGREEMENT_SHARE)
          for name, (client, transport, ours) in latencies_us.items()),
    ]


def one_knob(case: str, goodput: float, best_grid: float) -> Promise:
    return Promise(case, "one knob: goodput of the best grid setting", goodput, best_grid, at_least=True)


def lone(case: str, server: str, ratio: float) -> Promise:
    """ratio: p50 of one request in flight, of that of a server without batching."""
    return Promise(case, f"lone request, {server}, of no batching", ratio, LONE_RATIO)


def mixed_lengths(case: str, what: str, ours: float, timer: float) -> Promise:
    return Promise(case, f"{MIXED_RATIO:g}x {what}", ours, MIXED_RATIO * timer, at_least=True)


def left_by_reading(factor: float, reading: float) -> float:
    """The share of its best goodput that a server has left at so many times its capacity, if to refuse a request costs what floor_h2 takes
    for one. reading: share of the core that floor_h2 takes for as many requests as the capacity; what is left is spent on serving.
    """
    return max(0.0, 1 - factor * reading) / (1 - reading) if reading < 1 else 0.0


def overload(case: str, goodput: float, figures: Mapping[str, float], left: float = 1.0) -> list[Promise]:
    """goodput: share of the best; figures: of OVERLOAD, those that were measured; left: by reading."""
    return [Promise(case, "goodput, share of the best", goodput, min(OVERLOAD_SHARE, OF_WHAT_READING_LEAVES * left), at_least=True),
            *(Promise(case, name, figures[name], most) for name, most in OVERLOAD.items() if name in figures)]


def overload_memory(case: str, more_mib: float) -> Promise:
    return Promise(case, "MiB more resident after it again", more_mib, OVERLOAD_MIB)


def neighbour(case: str, p99_ms: float, alone_ms: float, batch_ms: float, harmed: float) -> list[Promise]:
    """batch_ms: of a run of the overloaded model; harmed: share of the quiet model's requests that were not answered well."""
    return [Promise(case, "p99 ms, 2x alone + a batch of the other", p99_ms, 2 * alone_ms + batch_ms),
            Promise(case, "not answered well", harmed, 0.0)]


def poison(goodput: float, normal: float, harmed: int) -> list[Promise]:
    return [Promise("poison", f"{POISON_SHARE:.0%} of normal goodput", goodput, POISON_SHARE * normal, at_least=True),
            Promise("poison", "good requests harmed", harmed, 0.0)]


def rollouts(rolled_back: Mapping[str, float], good: Collection[str], alpha: float) -> list[Promise]:
    """rolled_back: share of the rollouts of each version; good: those that break no gate of their plan."""
    return [Promise(name, "rolled back, share", share, alpha) if name in good else Promise(name, "rolled back, share", share, 1.0, at_least=True)
            for name, share in rolled_back.items()]


def shadow(ratios: Mapping[str, tuple[float, float]]) -> list[Promise]:
    """ratios: by protocol, (rate, p99) with all requests mirrored, of those without."""
    return [promise for name, (rate, p99) in ratios.items() for promise in (
        Promise("shadow", f"{name}, rate of that without", rate, 0.98, at_least=True), Promise("shadow", f"{name}, p99 of that without", p99, 1.1))]
