"""A circuit breaker: the machine is in breaker.hpp; here are its names, and what tests drive."""


cdef const char* state_name(Breaking state) noexcept nogil:
    if state == Breaking.kOpen:
        return b"open"
    return b"half_open" if state == Breaking.kHalfOpen else b"closed"


def drive(double failures, int64_t window_ns, int64_t open_ns, int64_t min_requests, steps) -> list:
    """What a breaker says to each step, and its state after it. For tests.

    steps: (now_ns,) asks whether a request may go, (now_ns, requests, failures) tells what came of some.
    """
    cdef BreakerTerms terms
    cdef BreakerMind mind
    terms.failures, terms.window_ns, terms.open_ns, terms.min_requests = failures, window_ns, open_ns, min_requests
    found = []
    for now_ns, *came in steps:
        if came:
            mind.record(terms, came[0], came[1], now_ns)
            said = None
        else:
            said = bool(mind.admits(terms, now_ns))
        found.append((said, state_name(mind.state).decode()))
    return found
