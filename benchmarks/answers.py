"""A server measured must be a server that is right."""

from __future__ import annotations

import time

import grpc
import numpy as np
from load import METHOD
from processes import Server

from batchmill.proto import inference_pb2

ANSWER_SECS = 60


def check(server: Server, message: bytes, wanted: np.ndarray) -> None:
    """Waits until the server answers over gRPC, and fails unless the numbers are ONNX Runtime's own."""
    end = time.monotonic() + ANSWER_SECS
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        ask = channel.unary_unary(METHOD + "ModelInfer", bytes, inference_pb2.ModelInferResponse.FromString)
        while True:
            try:
                answer = ask(message, timeout=5, wait_for_ready=True)
                break
            except grpc.RpcError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
    np.testing.assert_allclose(np.frombuffer(answer.raw_output_contents[0], wanted.dtype), wanted.ravel(), rtol=1e-3, atol=1e-5)
