"""The batcher most servers use: it waits until a batch is full or a timer since its first request has passed, idle or not, and runs what it has
when a request of another shape comes. naive_timer.py serves it.
"""

from __future__ import annotations

import asyncio

import numpy as np
import onnxruntime

Tensors = dict[str, np.ndarray]


class TimerBatcher:
    """Owns the session and the one batch that is gathered; used on the event loop alone, which a run stops."""

    def __init__(self, session: onnxruntime.InferenceSession, max_batch_size: int, delay_us: float) -> None:
        self.session, self.max_batch_size, self.delay_us = session, max_batch_size, delay_us
        self.outputs = [output.name for output in session.get_outputs()]
        self.waiting: list[tuple[Tensors, int, asyncio.Future[Tensors]]] = []
        self.rows = 0
        self.shapes: list[tuple[int, ...]] = []
        self.timer: asyncio.TimerHandle | None = None

    async def infer(self, tensors: Tensors) -> Tensors:
        loop = asyncio.get_running_loop()
        shapes, rows = [values.shape[1:] for values in tensors.values()], len(next(iter(tensors.values())))
        if self.waiting and (shapes != self.shapes or self.rows + rows > self.max_batch_size):
            self.run()
        future: asyncio.Future[Tensors] = loop.create_future()
        self.waiting.append((tensors, rows, future))
        self.shapes, self.rows = shapes, self.rows + rows
        if self.rows >= self.max_batch_size:
            self.run()
        elif self.timer is None:
            self.timer = loop.call_later(self.delay_us / 1e6, self.run)
        return await future

    def run(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        batch, self.waiting, self.rows, self.timer = self.waiting, [], 0, None
        feed = {name: np.concatenate([tensors[name] for tensors, _, _ in batch]) for name in batch[0][0]}
        try:
            answers = dict(zip(self.outputs, self.session.run(self.outputs, feed), strict=True))
        except Exception as error:  # of the model: all requests of the batch share it, as they do where this batcher is used
            for _, _, future in batch:
                if not future.cancelled():
                    future.set_exception(error)
            return
        start = 0
        for _, rows, future in batch:
            if not future.cancelled():
                future.set_result({name: values[start : start + rows] for name, values in answers.items()})
            start += rows
