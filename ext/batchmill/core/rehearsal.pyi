from collections.abc import Callable, Sequence

Spec = tuple[bytes, bytes, Sequence[int]]
Tensor = tuple[bytes, bytes, Sequence[int], bytes]

def check(
    inputs: Sequence[Spec],
    outputs: Sequence[Spec],
    batched: bool,
    given: Sequence[Tensor],
    asked: Sequence[bytes] = (),
) -> tuple[int, list[bytes]]: ...
def run_batch(
    inputs: Sequence[Spec],
    outputs: Sequence[Spec],
    padding: tuple[Sequence[tuple[int, bytes]], Sequence[int], Sequence[int]] | None,
    requests: Sequence[Sequence[Tensor]],
    model: Callable[[list[tuple[str, list[int], bytes]]], Sequence[tuple[bytes, Sequence[int], bytes]]],
) -> tuple[list[bytes], int]: ...
