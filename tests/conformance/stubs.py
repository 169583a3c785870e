"""grpcio with the stubs of protos/inference.proto: `python -m conformance.stubs ADDRESS CALL...`, a process of its own, as tritonclient has
messages of the same names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from batchmill.proto import inference_pb2 as pb
from batchmill.proto import inference_pb2_grpc

from .calls import BYTES, HALVES, NINE, SLOW, TOLD_OF_SHAPE, Column, Wrong, want, want_labels

SECONDS = 10


def request(model: str, name: str, datatype: str, shape: list[int], raw: bytes, **more: Any) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name=model, raw_input_contents=[raw], **more)
    made.inputs.add(name=name, datatype=datatype, shape=shape)
    return made


def digits(count: int = 1, **more: Any) -> pb.ModelInferRequest:
    return request("digits", "image", "FP32", [count, 64], np.repeat(NINE, count, 0).tobytes(), **more)


def slow() -> pb.ModelInferRequest:
    return request("slow", "x", "FP32", list(SLOW.shape), SLOW.tobytes())


def labels(answer: pb.ModelInferResponse) -> Any:
    at = [output.name for output in answer.outputs].index("label")
    return np.frombuffer(answer.raw_output_contents[at], np.int64)


def want_status(call: Callable[[], object], code: grpc.StatusCode, text: str = "") -> None:
    try:
        answer = call()
    except grpc.RpcError as error:
        want(error.code() == code and text in error.details(), f"{error.code()} {error.details()}")
    else:
        raise Wrong(f"got an answer: {answer}")


class Grpcio(Column):
    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address)
        self.stub = inference_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def close(self) -> None:
        self.channel.close()

    def ask(self, method: str, message: Any) -> Any:
        return getattr(self.stub, method)(message, timeout=SECONDS)

    def infer(self, message: pb.ModelInferRequest) -> Any:
        return self.ask("ModelInfer", message)

    def live(self) -> None:
        want(self.ask("ServerLive", pb.ServerLiveRequest()).live, False)

    def ready(self) -> None:
        want(self.ask("ServerReady", pb.ServerReadyRequest()).ready, False)

    def model_ready(self) -> None:
        want(self.ask("ModelReady", pb.ModelReadyRequest(name="digits", version="1")).ready, False)

    def server_metadata(self) -> None:
        answer = self.ask("ServerMetadata", pb.ServerMetadataRequest())
        want(answer.name == "batchmill" and answer.version, answer)

    def model_metadata(self) -> None:
        answer = self.ask("ModelMetadata", pb.ModelMetadataRequest(name="digits"))
        image = pb.ModelMetadataResponse.TensorMetadata(name="image", datatype="FP32", shape=[-1, 64])
        want(list(answer.inputs) == [image] and answer.versions == ["1", "2"], answer)

    def model_config(self) -> None:
        config = self.ask("ModelConfig", pb.ModelConfigRequest(name="digits")).config
        want(config.name == "digits" and config.max_batch_size > 0, config)

    def statistics(self) -> None:
        (found,) = self.ask("ModelStatistics", pb.ModelStatisticsRequest(name="digits", version="2")).model_stats
        want(found.name == "digits" and found.version == "2" and found.HasField("inference_stats"), found)

    def repository_index(self) -> None:
        models = self.ask("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)).models
        want([(m.version, m.state) for m in models if m.name == "digits"] == [("1", "READY"), ("2", "READY")], models)

    def load_unload(self) -> None:
        self.ask("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="spare"))
        want(not self.ask("ModelReady", pb.ModelReadyRequest(name="spare")).ready, "ready after unload")
        self.ask("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="spare"))
        want(self.ask("ModelReady", pb.ModelReadyRequest(name="spare")).ready, "not ready after load")

    def infer_raw(self) -> None:
        want_labels(labels(self.infer(digits(3))), 9, 3)

    def infer_typed(self) -> None:
        typed = pb.ModelInferRequest(model_name="digits")
        typed.inputs.add(name="image", datatype="FP32", shape=[1, 64]).contents.fp32_contents.extend(NINE.ravel().tolist())
        typed.outputs.add(name="label")
        typed.parameters["binary_data_output"].bool_param = False
        want(self.infer(typed).outputs[0].contents.int64_contents == [9], "no typed label")

    def version(self) -> None:
        answer = self.infer(digits(model_version="1"))
        want(answer.model_version == "1", answer.model_version)
        want_labels(labels(answer), 8, 1)

    def echo(self, model: str, datatype: str, raw: bytes) -> None:
        answer = self.infer(request(model, "x", datatype, [1, 3], raw))
        wanted = pb.ModelInferResponse.InferOutputTensor(name="y", datatype=datatype, shape=[1, 3])
        want(list(answer.outputs) == [wanted] and list(answer.raw_output_contents) == [raw], answer)

    def bytes(self) -> None:
        self.echo("identity_bytes", "BYTES", BYTES)

    def fp16(self) -> None:
        self.echo("identity_fp16", "FP16", HALVES.tobytes())

    def id_parameters(self) -> None:
        asked = digits(id="picture-1")
        asked.parameters["timeout"].int64_param = 5_000_000
        asked.parameters["note"].string_param = "of the caller's own"
        answer = self.infer(asked)
        want(answer.id == "picture-1", answer.id)
        want_labels(labels(answer), 9, 1)

    def outputs(self) -> None:
        asked = digits()
        asked.outputs.add(name="label")
        answer = self.infer(asked)
        want(len(answer.outputs) == 1, answer.outputs)
        want_labels(labels(answer), 9, 1)

    def metadata(self) -> None:
        given = [("x-request-id", "request-1"), ("x-server-timing", "1"), ("note-bin", b"\x00\xff")]
        _, call = self.stub.ModelInfer.with_call(digits(), timeout=SECONDS, metadata=given)
        headers, trailers = dict(call.initial_metadata()), dict(call.trailing_metadata())
        want(headers.get("x-request-id") == "request-1", headers)
        want(trailers.get("x-model-version") == "2" and "server-timing" in trailers, trailers)

    def compressed_request(self) -> None:
        want_labels(labels(self.stub.ModelInfer(digits(1000), timeout=SECONDS, compression=grpc.Compression.Gzip)), 9, 1000)

    compressed_response = compressed_request

    def unknown_model(self) -> None:
        asked = request("nobody", "image", "FP32", [1, 64], NINE.tobytes())
        want_status(lambda: self.infer(asked), grpc.StatusCode.NOT_FOUND, 'unknown model "nobody"')

    def bad_shape(self) -> None:
        wrong = request("digits", "image", "FP32", [1, 63], NINE[:, 1:].tobytes())
        want_status(lambda: self.infer(wrong), grpc.StatusCode.INVALID_ARGUMENT, TOLD_OF_SHAPE)

    def deadline(self) -> None:
        want_status(lambda: self.stub.ModelInfer(slow(), timeout=0.1), grpc.StatusCode.DEADLINE_EXCEEDED)

    def cancel(self) -> None:
        call = self.stub.ModelInfer.future(slow(), timeout=SECONDS)
        want(call.cancel() and call.code() == grpc.StatusCode.CANCELLED, call.code())

    def stream(self) -> None:
        sent = [digits(id=str(number)) for number in range(5)]
        sent[2].inputs[0].name = "picture"
        answers = list(self.stub.ModelStreamInfer(iter(sent), timeout=SECONDS))
        want(len(answers) == 5 and "missing" in answers.pop(2).error_message, answers)
        want([answer.infer_response.id for answer in answers] == ["0", "1", "3", "4"], answers)
        for answer in answers:
            want_labels(labels(answer.infer_response), 9, 1)

    def health_check(self) -> None:
        health = health_pb2_grpc.HealthStub(self.channel)
        for service in ("", "digits"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=SECONDS)
            want(answer.status == health_pb2.HealthCheckResponse.SERVING, answer)
        want_status(lambda: health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=SECONDS), grpc.StatusCode.NOT_FOUND)

    def health_watch(self) -> None:
        watch = health_pb2_grpc.HealthStub(self.channel).Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        want(next(watch).status == health_pb2.HealthCheckResponse.SERVING, "another status")
        watch.cancel()

    def reflection(self) -> None:
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        (answer,) = reflection_pb2_grpc.ServerReflectionStub(self.channel).ServerReflectionInfo(asked, timeout=SECONDS)
        names = [service.name for service in answer.list_services_response.service]
        want("inference.GRPCInferenceService" in names, names)


def main(address: str, *calls: str) -> None:
    column = Grpcio(address)
    for call in calls:
        print(f"{call}\t{column.outcome(call)}", flush=True)
    column.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
