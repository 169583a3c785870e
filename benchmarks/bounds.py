"""What the server promises of its CPU time a request, beside the yardsticks of the same run. Pure functions.

H(n), F(n): the floors of gRPC and of HTTP with n requests in flight; R(n): ONNX Runtime's time of a row in batches of n.
"""

from __future__ import annotations

from collections.abc import Callable

Floor = Callable[[int], float]


def bound_us(point: str, h: Floor, f: Floor, r: Floor) -> float | None:
    """The promised limit of a point in microseconds, None where nothing is promised."""
    kind, _, number = point.partition(" ")
    n = int(number)
    match kind:
        case "grpc" if n == 1:
            return 1.5 * h(1) + r(1)
        case "grpc":
            return 1.75 * h(n) + r(8)
        case "stream":
            return h(32) / 3 + r(32)
        case "rest-binary" if n == 32:
            return 2 * f(32) + r(8)
        case "rest-json" if n == 32:
            return 3 * f(32) + r(8)
    return None
