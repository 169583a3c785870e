#!/usr/bin/env python3
"""The baseline: a v2 server as one would write it in Python. grpcio.aio, the generated stubs, onnxruntime, a small batcher.

baseline_grpcio.py MODEL.onnx PORT. The batcher gathers the rows of all requests that one turn of the event loop brought and
runs them together, on the loop: with one core a worker thread only adds a hand-over.
"""

from __future__ import annotations

import asyncio
import sys

import grpc
import numpy as np
import onnxruntime
import uvloop

from batchmill.proto import inference_pb2, inference_pb2_grpc

MAX_BATCH_SIZE = 64  # rows

Context = grpc.aio.ServicerContext[inference_pb2.ModelInferRequest, inference_pb2.ModelInferResponse]


class Batcher:
    """Owns the session and the requests that wait; used on the event loop alone."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.output = self.session.get_outputs()[0].name
        self.waiting: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []

    async def infer(self, rows: np.ndarray) -> np.ndarray:
        loop = asyncio.get_running_loop()
        if not self.waiting:
            loop.call_soon(self.run)
        future: asyncio.Future[np.ndarray] = loop.create_future()
        self.waiting.append((rows, future))
        return await future

    def run(self) -> None:
        batch, self.waiting = self.waiting[:MAX_BATCH_SIZE], self.waiting[MAX_BATCH_SIZE:]
        if self.waiting:
            asyncio.get_running_loop().call_soon(self.run)
        (answers,) = self.session.run([self.output], {self.input: np.concatenate([rows for rows, _ in batch])})
        start = 0
        for rows, future in batch:
            if not future.cancelled():
                future.set_result(answers[start:start + len(rows)])
            start += len(rows)


class Servicer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher

    async def ModelInfer(self, request: inference_pb2.ModelInferRequest, context: Context) -> inference_pb2.ModelInferResponse:
        rows = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)
        result = await self.batcher.infer(rows)
        answer = inference_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        answer.outputs.add(name=self.batcher.output, datatype="FP32", shape=result.shape)
        answer.raw_output_contents.append(result.tobytes())
        return answer


async def serve(servicer: inference_pb2_grpc.GRPCInferenceServiceServicer, port: str) -> None:
    server = grpc.aio.server()
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Servicer(Batcher(sys.argv[1])), sys.argv[2]))
