#!/usr/bin/env python3
"""The batcher most servers use, as a v2 server: it waits until a batch is full or a timer since its first request has passed, idle or not,
and runs what it has when a request of another shape comes.

naive_timer.py MODEL.onnx PORT MAX_BATCH_SIZE DELAY_US. MAX_BATCH_SIZE 1: no batching, what its transport costs. Requests are not refused, and
no deadline counts. Transport and session are baseline_grpcio.py's.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import baseline_grpcio
import limit
import numpy as np
import uvloop
from timer_batcher import TimerBatcher

from batchmill.proto import inference_pb2, inference_pb2_grpc

DTYPES: dict[str, type[np.generic]] = {"FP32": np.float32, "INT64": np.int64}
DATATYPES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


class Servicer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, batcher: TimerBatcher) -> None:
        self.batcher = batcher

    async def ModelInfer(self, request: inference_pb2.ModelInferRequest, context: baseline_grpcio.Context) -> inference_pb2.ModelInferResponse:
        given = zip(request.inputs, request.raw_input_contents, strict=True)
        tensors = {tensor.name: np.frombuffer(raw, DTYPES[tensor.datatype]).reshape(tensor.shape) for tensor, raw in given}
        answer = inference_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        for name, values in (await self.batcher.infer(tensors)).items():
            answer.outputs.add(name=name, datatype=DATATYPES[values.dtype], shape=values.shape)
            answer.raw_output_contents.append(values.tobytes())
        return answer


async def main(path: str, port: str, max_batch_size: str, delay_us: str) -> None:
    batcher = TimerBatcher(limit.session_of(Path(path)), int(max_batch_size), float(delay_us))
    await baseline_grpcio.serve(Servicer(batcher), port)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:5]))
