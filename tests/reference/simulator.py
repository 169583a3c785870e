"""Events in simulated time around a policy, real or twin: requests come and go, executors run batches, time passes.

What takes no time here: all but the runs. The policy is asked as the server asks it: who comes is offered to the executors, a free
executor asks for the next turn, and every queue is swept some ten times a second.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

SWEEP_NS = 100_000_000
START_NS = 10**12   # no time is 0, or near it


@dataclass
class Request:
    at_ns: int
    rows: int = 1
    version: int = 0
    shape: tuple[int, ...] = ()
    deadline_ns: int = 0
    timeout_us: int = 0
    priority: int = 0
    cancel_ns: int = 0

    verdict: str = ""
    started_ns: int = 0
    answered_ns: int = 0

    @property
    def is_taken(self) -> bool:
        return self.verdict == "taken"

    @property
    def is_late(self) -> bool:
        return bool(self.answered_ns and self.deadline_ns and self.answered_ns > self.deadline_ns)

    @property
    def latency_ns(self) -> int:
        return self.answered_ns - self.at_ns


@dataclass
class Simulation:
    policy: Any
    executors: int
    run_ns: Callable[[int, int, tuple[int, ...], int], float]  # of (version, rows, shape, how many runs there were)
    requests: list[Request] = field(default_factory=list)
    decisions: list[tuple[Any, ...]] = field(default_factory=list)
    looks: Callable[[], None] = lambda: None  # after each event
    events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)
    now_ns: int = START_NS
    runs: int = 0
    busy: int = 0
    busy_ns: Counter[int] = field(default_factory=Counter)  # by version
    longest_ns: Counter[int] = field(default_factory=Counter)  # of its runs
    wakes_ns: int = 0
    events_seen: int = 0

    def at(self, time_ns: int, act: Callable[..., None], *arguments: Any) -> None:
        self.events_seen += 1
        heapq.heappush(self.events, (time_ns, self.events_seen, act, arguments))

    def run(self, requests: Iterable[Request], versions: int, until_ns: int) -> list[Request]:
        """Everything that happens until then."""
        for request in requests:
            number = len(self.requests)
            self.requests.append(request)
            self.at(request.at_ns, self.arrive, number)
            if request.cancel_ns:
                self.at(request.cancel_ns, self.policy.cancel, number)
        self.at(self.now_ns + SWEEP_NS, self.sweep, versions)
        while self.events and self.events[0][0] <= until_ns:
            self.now_ns, _, act, arguments = heapq.heappop(self.events)
            act(*arguments)
            self.serve()
            self.looks()
        return self.requests

    def arrive(self, number: int) -> None:
        one = self.requests[number]
        told = self.policy.arrive(one.version, number, one.rows, one.shape, self.now_ns, one.deadline_ns, one.timeout_us, one.priority)
        one.verdict = told[0]
        self.decisions.append((self.now_ns, "arrive", number, *told))
        if one.is_taken:
            self.policy.offer(one.version)

    def sweep(self, versions: int) -> None:
        for version in range(versions):
            self.decisions.append((self.now_ns, "sweep", version, self.policy.sweep(version, self.now_ns)))
        self.at(self.now_ns + SWEEP_NS, self.sweep, versions)

    def serve(self) -> None:
        """Every free executor asks for the next turn, as it does when it is woken."""
        while self.busy < self.executors:
            version, until_ns, reason = self.policy.next_turn(self.now_ns)
            if version is None:
                if until_ns and not self.now_ns < self.wakes_ns <= until_ns:
                    self.wakes_ns = until_ns
                    self.at(until_ns, lambda: None)
                return
            self.start(version, reason)

    def start(self, version: int, reason: str) -> None:
        batch, numbers, rows, *told = self.policy.start(version, reason, self.now_ns)
        self.decisions.append((self.now_ns, "start", version, numbers, rows, *told))
        for number in numbers:
            self.requests[number].started_ns = self.requests[number].started_ns or self.now_ns
        run_ns = 0.0
        if numbers:
            self.runs += 1
            run_ns = self.run_ns(version, rows, self.requests[numbers[0]].shape, self.runs)
        self.busy += 1
        self.busy_ns[version] += int(run_ns)
        self.longest_ns[version] = max(self.longest_ns[version], int(run_ns))
        self.at(self.now_ns + int(run_ns), self.end, version, batch, run_ns)

    def end(self, version: int, batch: int, run_ns: float) -> None:
        self.busy -= 1
        answered, failed = self.policy.end(version, batch, run_ns, self.now_ns)
        self.decisions.append((self.now_ns, "end", version, answered, failed))
        for number in answered:
            self.requests[number].answered_ns = self.now_ns
