"""Inferences that a handler in Python asks the data plane for, on behalf of the call that it answers."""

from __future__ import annotations

import asyncio

from batchmill.core.bridge import ColdCall
from batchmill.errors import InferenceRefused

Answered = tuple[int, int, bytes]  # HTTP status, size of the JSON or -1, body or error text


class Inferences:
    """ask() waits for what answered() brings. One inference a call at a time."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[Answered]] = {}

    async def ask(self, call: ColdCall, model: str, version: str, label: str, body: bytes, json_size: int, deadline_ns: int = 0) -> tuple[bytes, int]:
        """The body of the REST answer, and how much of it is JSON (-1: all). The arguments are those of ColdCall.infer(). Raises InferenceRefused."""
        self._waiting[id(call)] = waiting = asyncio.get_running_loop().create_future()
        try:
            call.infer(model, version, label, body, json_size, deadline_ns)
            status, size, answer = await waiting
        finally:
            del self._waiting[id(call)]
        if status != 200:
            raise InferenceRefused(answer.decode(errors="replace") or "too many bytes wait for the control plane", status)
        return answer, size

    def answered(self, call: ColdCall, payload: Answered) -> None:
        waiting = self._waiting.get(id(call))
        if waiting and not waiting.done():
            waiting.set_result(payload)
