from typing_extensions import disjoint_base

from batchmill.core.closeness import close as close
from batchmill.core.ort_library import take_messages as take_messages

__all__ = ["Model", "available_providers", "close", "initialise", "take_messages"]

def initialise(path: str | None = None, wide_threads: int = 1) -> str: ...
def available_providers() -> list[str]: ...

@disjoint_base
class Model:
    def __new__(
        cls, path: str, intra_op_threads: int = 1, providers: tuple[str, ...] = ("CPUExecutionProvider",), *, _content: bytes | None = None
    ) -> Model: ...
    @property
    def inputs(self) -> list[tuple[str, str, list[int], list[str]]]: ...
    @property
    def outputs(self) -> list[tuple[str, str, list[int], list[str]]]: ...
    @property
    def memory_bytes(self) -> int: ...
    def run(
        self, inputs: dict[str, tuple[str, list[int], bytes]], outputs: list[str] | None = None
    ) -> dict[str, tuple[str, list[int], bytes]]: ...
