"""The limit of every server: ONNX Runtime called from this process, one thread, in a loop."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import onnxruntime
from load import Run, quietest
from processes import Usage, others

BLOCK_SECS = 0.02  # between two looks at the clock


def session_of(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def batch_of(row: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    return {name: np.repeat(values, rows, axis=0) for name, values in row.items()}


def run(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray], seconds: float, core: str, attempts: int) -> Run:
    """Rows a second and CPU time a row on the given core; the quietest of some runs."""
    home = os.sched_getaffinity(0)
    if core:
        os.sched_setaffinity(0, {int(core)})
    try:
        return quietest(attempts, lambda: once(session, feed, seconds))
    finally:
        os.sched_setaffinity(0, home)


def once(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray], seconds: float) -> Run:
    session.run(None, feed)
    start = time.perf_counter()
    session.run(None, feed)
    block = max(1, int(BLOCK_SECS / (time.perf_counter() - start)))
    calls, before, start, cpu_start = 0, Usage.now(), time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        for _ in range(block):
            session.run(None, feed)
        calls += block
    clock, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    rows = calls * len(next(iter(feed.values())))
    return Run(cpu / rows * 1e6, rows / clock, others(before, Usage.now()))
