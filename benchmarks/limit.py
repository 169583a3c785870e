"""R, the limit below every server: CPU time of a row in ONNX Runtime called from this process."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import onnxruntime

BLOCK = 200  # calls between two looks at the clock


def session_of(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def row_us(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray], secs: float, core: str) -> float:
    """CPU microseconds a row of `session.run` in a loop, on the given core."""
    rows = len(next(iter(feed.values())))
    home = os.sched_getaffinity(0)
    if core:
        os.sched_setaffinity(0, {int(core)})
    try:
        calls, end, start = 0, time.monotonic() + secs, time.process_time()
        while time.monotonic() < end:
            for _ in range(BLOCK):
                session.run(None, feed)
            calls += BLOCK
        return (time.process_time() - start) / calls / rows * 1e6
    finally:
        os.sched_setaffinity(0, home)
