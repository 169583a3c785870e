"""NVIDIA's Python clients: gRPC and HTTP, blocking and asyncio."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from .calls import ELEMENTS, HALVES, NINE, SLOW, TOLD_OF_SHAPE, Column, want, want_labels, want_refusal


class Triton(Column):
    """What they have in common. ask() is a call of the client, awaited where it is asyncio's."""

    module: Any
    client_module: Any
    statuses = ("", "", "")  # of an unknown model, a bad shape, a deadline

    def __init__(self, address: str) -> None:
        self.client = self.client_module.InferenceServerClient(address)

    def close(self) -> None:
        self.client.close()

    def ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        return getattr(self.client, method)(*arguments, **named)

    def given(self, name: str, datatype: str, array: Any) -> Any:
        given = self.module.InferInput(name, list(array.shape), datatype)
        given.set_data_from_numpy(array)
        return given

    def infer(self, model: str, name: str, datatype: str, array: Any, **named: Any) -> Any:
        return self.ask("infer", model, [self.given(name, datatype, array)], **named)

    def digits(self, count: int = 1, **named: Any) -> Any:
        return self.infer("digits", "image", "FP32", np.repeat(NINE, count, 0), **named)

    def plain(self, message: Any) -> Any:
        """A dictionary of what the client gives as a message."""
        return message

    def live(self) -> None:
        want(self.ask("is_server_live"), False)

    def ready(self) -> None:
        want(self.ask("is_server_ready"), False)

    def model_ready(self) -> None:
        want(self.ask("is_model_ready", "digits", "1"), False)

    def server_metadata(self) -> None:
        answer = self.plain(self.ask("get_server_metadata"))
        want(answer["name"] == "batchmill" and answer["version"], answer)

    def model_metadata(self) -> None:
        answer = self.plain(self.ask("get_model_metadata", "digits"))
        image = answer["inputs"][0]
        want((image["name"], image["datatype"], [int(n) for n in image["shape"]]) == ("image", "FP32", [-1, 64]), answer)
        want(answer["versions"] == ["1", "2"], answer)

    def model_config(self) -> None:
        answer = self.plain(self.ask("get_model_config", "digits"))
        config = answer.get("config", answer)
        want(config["name"] == "digits" and config["max_batch_size"] > 0, answer)

    def statistics(self) -> None:
        (found,) = self.plain(self.ask("get_inference_statistics", "digits", "2"))["model_stats"]
        want(found["name"] == "digits" and found["version"] == "2" and found["inference_stats"], found)

    def repository_index(self) -> None:
        answer = self.plain(self.ask("get_model_repository_index"))
        models = answer["models"] if isinstance(answer, dict) else answer
        want([(m["version"], m["state"]) for m in models if m["name"] == "digits"] == [("1", "READY"), ("2", "READY")], models)

    def load_unload(self) -> None:
        self.ask("unload_model", "spare")
        want(not self.ask("is_model_ready", "spare"), "ready after unload")
        self.ask("load_model", "spare")
        want(self.ask("is_model_ready", "spare"), "not ready after load")

    def infer_raw(self) -> None:
        want_labels(self.digits(3).as_numpy("label"), 9, 3)

    def version(self) -> None:
        answer = self.digits(model_version="1")
        want(self.plain(answer.get_response())["model_version"] == "1", answer.get_response())
        want_labels(answer.as_numpy("label"), 8, 1)

    def bytes(self) -> None:
        got = self.infer("identity_bytes", "x", "BYTES", np.array([ELEMENTS], object)).as_numpy("y")
        want(got.tolist() == [ELEMENTS], got)

    def fp16(self) -> None:
        got = self.infer("identity_fp16", "x", "FP16", HALVES).as_numpy("y")
        want(got.dtype == np.float16 and np.array_equal(got, HALVES), got)

    def id_parameters(self) -> None:
        answer = self.digits(request_id="picture-1", timeout=5_000_000, parameters={"note": "of the caller's own"})
        want(self.plain(answer.get_response())["id"] == "picture-1", answer.get_response())
        want_labels(answer.as_numpy("label"), 9, 1)

    def outputs(self) -> None:
        answer = self.digits(outputs=[self.module.InferRequestedOutput("label")])
        want(len(self.plain(answer.get_response())["outputs"]) == 1, answer.get_response())
        want_labels(answer.as_numpy("label"), 9, 1)

    def unknown_model(self) -> None:
        want_refusal(lambda: self.infer("nobody", "image", "FP32", NINE), InferenceServerException, self.statuses[0], 'unknown model "nobody"')

    def bad_shape(self) -> None:
        want_refusal(lambda: self.infer("digits", "image", "FP32", NINE[:, 1:]), InferenceServerException, self.statuses[1], TOLD_OF_SHAPE)

    def run_out(self, **named: Any) -> None:
        want_refusal(lambda: self.infer("slow", "x", "FP32", SLOW, **named), InferenceServerException, self.statuses[2])


class TritonGrpc(Triton):
    module = client_module = tritonclient.grpc
    statuses = ("NOT_FOUND", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED")

    def plain(self, message: Any) -> Any:
        from google.protobuf.json_format import MessageToDict

        return MessageToDict(message, preserving_proto_field_name=True)

    def compressed_request(self) -> None:
        want_labels(self.digits(1000, compression_algorithm="gzip").as_numpy("label"), 9, 1000)

    compressed_response = compressed_request

    def deadline(self) -> None:
        self.run_out(client_timeout=0.1)

    def cancel(self) -> None:
        ended: queue.Queue[Any] = queue.Queue()
        inputs = [self.given("x", "FP32", SLOW)]
        self.client.async_infer("slow", inputs, lambda result, error: ended.put(error)).cancel()
        want("Locally cancelled" in str(error := ended.get(timeout=5)), error)

    def stream(self) -> None:
        answers: queue.Queue[Any] = queue.Queue()
        self.client.start_stream(lambda result, error: answers.put((result, error)))
        for message in messages(self):
            self.client.async_stream_infer(**message)
        self.client.stop_stream()  # once all are answered
        want_stream([answers.get(timeout=10) for _ in range(5)])


def messages(column: Triton) -> list[dict[str, Any]]:
    names = ["image", "image", "picture", "image", "image"]
    return [{"model_name": "digits", "inputs": [column.given(name, "FP32", NINE)], "request_id": str(n)} for n, name in enumerate(names)]


def want_stream(answers: list[Any]) -> None:
    want(len(answers) == 5, f"{len(answers)} answers")
    for number, (result, error) in enumerate(answers):
        if number == 2:
            want(error is not None and "missing" in str(error), error or "an answer to the wrong message")
        else:
            want(error is None and result.get_response().id == str(number), error or result)
            want_labels(result.as_numpy("label"), 9, 1)


class TritonHttp(Triton):
    module = client_module = tritonclient.http
    statuses = ("[404]", "[400]", "[504]")

    def infer_typed(self) -> None:
        given = self.module.InferInput("image", [1, 64], "FP32")
        given.set_data_from_numpy(NINE, binary_data=False)
        answer = self.ask("infer", "digits", [given], outputs=[self.module.InferRequestedOutput("label", binary_data=False)])
        want(answer.get_response()["outputs"][0]["data"] == [9], answer.get_response())

    def compressed_request(self) -> None:
        want_labels(self.digits(1000, request_compression_algorithm="gzip").as_numpy("label"), 9, 1000)

    def compressed_response(self) -> None:
        want_labels(self.digits(1000, response_compression_algorithm="gzip").as_numpy("label"), 9, 1000)

    def deadline(self) -> None:
        self.run_out(headers={"x-request-timeout-ms": "100"})


class Asyncio(Triton):
    """A client of an event loop of its own."""

    def __init__(self, address: str) -> None:
        async def connect() -> Any:  # its constructor wants the loop to run
            return self.client_module.InferenceServerClient(address)

        self.runner = asyncio.Runner()
        self.client = self.runner.run(connect())

    def close(self) -> None:
        self.runner.run(self.client.close())
        self.runner.close()

    def ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        async def call() -> Any:
            return await getattr(self.client, method)(*arguments, **named)

        return self.runner.run(call())

    def cancel(self) -> None:
        async def leave() -> None:
            task = asyncio.ensure_future(self.client.infer("slow", [self.given("x", "FP32", SLOW)]))
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.wait([task], timeout=5)
            want(task.done() and task.cancelled(), task)

        self.runner.run(leave())
        want(self.ask("is_server_live"), False)


class TritonGrpcAio(Asyncio, TritonGrpc):
    client_module = tritonclient.grpc.aio

    def stream(self) -> None:
        async def converse() -> list[Any]:
            async def given() -> AsyncIterator[dict[str, Any]]:
                for message in messages(self):
                    yield message

            return [answer async for answer in self.client.stream_infer(given())]

        want_stream(self.runner.run(converse()))


class TritonHttpAio(Asyncio, TritonHttp):
    client_module = tritonclient.http.aio
