"""A circuit breaker that keeps every run of its window."""

from __future__ import annotations

PARTS, TRIALS = 10, 5


class Breaker:
    def __init__(self, failures, window_ns, open_ns, min_requests):
        self.failures, self.width, self.open_ns, self.min_requests = failures, max(1, window_ns // PARTS), open_ns, min_requests
        self.enter("closed", 0)

    def enter(self, state, now):
        self.state, self.since, self.given, self.passed, self.runs = state, now, 0, 0, []

    def admits(self, now):
        if self.state == "closed":
            return True
        is_over = now - self.since >= self.open_ns
        if is_over and (self.state == "open" or self.given >= TRIALS):
            self.enter("half_open", now)
        if self.state == "open" or self.given >= TRIALS:
            return False
        self.given += 1
        return True

    def record(self, requests, failures, now):
        if self.state == "half_open":
            self.passed += requests - failures
            if failures:
                self.enter("open", now)
            elif self.passed >= TRIALS:
                self.enter("closed", now)
        elif self.state == "closed":
            self.runs.append((now // self.width, requests, failures))
            window = [(count, failed) for part, count, failed in self.runs if part > now // self.width - PARTS]
            total, failed = sum(count for count, _ in window), sum(failed for _, failed in window)
            if total >= self.min_requests and failed >= self.failures * total:
                self.enter("open", now)
