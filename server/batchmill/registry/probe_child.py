"""The child process of a probe: reads requests from its stdin, one JSON object a line, and loads, proves and runs what they name.

It answers on its stdout: what it is about to do, and what came of it, a line each.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, TextIO, get_args, get_type_hints

from batchmill.backends import LoadedModel
from batchmill.backends.onnxruntime import OnnxRuntime
from batchmill.core import ort
from batchmill.errors import BatchmillError
from batchmill.registry.loader import open_version
from batchmill.registry.settings import ModelSettings

NICE = 13  # the server's data plane has 0 and its Python this; at 19 a load would starve for as long as the server is busy
_PR_SET_PDEATHSIG = 1


class Told(OnnxRuntime):
    """Says what it is about to do. External data is mapped where it lies: what changes or cuts those files harms this process alone."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def check(self, path: Path) -> None:
        self._tell("it read the file")
        super().check(path)

    def load(self, path: Path, *, intra_op_threads: int, providers: Sequence[str]) -> LoadedModel:
        self._tell("it created the session")
        model = ort.Model(str(path), intra_op_threads=intra_op_threads, providers=tuple(providers))
        self._tell("it ran the model")
        return model


def main() -> None:
    confine(server=int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    ort.initialise()
    for line in sys.stdin:
        write(answers, verdict(json.loads(line), lambda stage: write(answers, {"stage": stage})))


def confine(server: int) -> None:
    """Ends with the server, stopped or not; is the first to go when memory runs out; leaves no core file."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != server:  # it has ended before that call
        sys.exit()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def write(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def verdict(request: dict[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    settings: ModelSettings = replace(revive(ModelSettings, request["settings"]), golden_p99_ms=None)  # a nice process is no measure
    try:
        status = open_version(request["name"], request["number"], Path(request["path"]), settings, 1, backend=Told(tell))
    except (BatchmillError, RuntimeError, ValueError, OSError) as error:
        return {"reason": str(error), "batched": False, "batching": ""}
    return {"reason": "", "batched": status.batched, "batching": status.batching}


def revive(kind: Any, plain: Any) -> Any:
    """A frozen dataclass again, from what dataclasses.asdict and JSON made of it: dictionaries, and lists where it has tuples."""
    if isinstance(plain, list):
        return tuple(revive(next(iter(get_args(kind)), Any), one) for one in plain)
    for one in (kind, *get_args(kind)):
        if is_dataclass(one) and isinstance(one, type) and isinstance(plain, dict):
            hints = get_type_hints(one)
            return one(**{name: revive(hints[name], value) for name, value in plain.items()})
    return plain


if __name__ == "__main__":
    main()
