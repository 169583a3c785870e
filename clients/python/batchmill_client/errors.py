"""What can go wrong, by what a caller can do about it.

ClientError
├── Unreachable   no answer: wrong address, server down, time over; worth a retry
├── Refused       the server said no, and why; `status` is HTTP's (429 and 503 are worth a retry)
└── BadAnswer     the answer is not what the protocol says
"""

from __future__ import annotations


class ClientError(Exception):
    """The root of this package's errors."""


class Unreachable(ClientError):
    """No answer came from the server."""


class Refused(ClientError):
    """The server answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"status {status}: {message}")
        self.status = status
        self.message = message


class BadAnswer(ClientError):
    """The server's answer cannot be read."""
