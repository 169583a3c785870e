"""The messages of protos/inference.proto in a descriptor pool of their own: two copies of package `inference` (ours and
tritonclient's) cannot share a process's default pool."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

PROTOS = Path(__file__).resolve().parent.parent.parent / "protos"


def files() -> list[Any]:
    """The descriptors of protos/inference.proto and of what it imports."""
    with tempfile.NamedTemporaryFile() as target:
        if protoc.main(["protoc", f"-I{PROTOS}", f"--descriptor_set_out={target.name}", "--include_imports", str(PROTOS / "inference.proto")]):
            raise RuntimeError("protoc failed")
        return list(descriptor_pb2.FileDescriptorSet.FromString(Path(target.name).read_bytes()).file)


def load() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in files():
        pool.Add(file)
    return pool


POOL = load()


def message(name: str) -> Any:
    """The class of a message, for example `ModelInferRequest` or `ModelInferRequest.InferInputTensor`."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


@contextlib.contextmanager
def private_model_config() -> Iterator[None]:
    """Inside of it, what reads a config.pbtxt does so with messages of this pool."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "batchmill.proto.model_config_pb2", SimpleNamespace(ModelConfig=message("ModelConfig")))
        yield


class Messages:
    """Stands in for the generated module: pb.ModelInferRequest."""

    def __getattr__(self, name: str) -> Any:
        return message(name)
