"""The command line. argparse, because `serve` is measured by its first answer and a richer library costs a third of it.

Exit codes: 0 ok, 1 failed, 2 usage, 3 unreachable.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import batchmill
from batchmill import flags, logs
from batchmill.commands import COMMANDS
from batchmill.errors import BatchmillError, UsageError
from batchmill.state import default_folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    try:
        options = vars(parser().parse_args(arguments))
        sys.exit(options.pop("run")(**options))
    except BatchmillError as error:
        print(f"batchmill: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # who reads has had enough: `batchmill models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, as all others are told."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    root = Parser("batchmill", description="Serves ONNX models over gRPC and HTTP from one process.")
    root.add_argument("--version", action="version", version=f"batchmill {batchmill.__version__}")
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    first = commands.add_parser("serve", help="serve a registry directory, or one .onnx file")
    first.set_defaults(run=serve)
    flags.add_to(first)
    for command in COMMANDS:
        one = commands.add_parser(command.name, help=command.help)
        one.set_defaults(run=command.run)
        for argument in command.arguments:
            argument.add_to(one, os.environ)
    return root


def serve(*, registry: str | None, model_repository: str | None, **given: Any) -> int:
    config = flags.settings(given, os.environ)
    registry = registry or model_repository or os.environ.get("BATCHMILL_MODEL_REPOSITORY")
    if not registry:
        raise UsageError("serve needs a registry directory or one .onnx file")
    logs.configure(config.log_level, config.log_format)
    # ONNX Runtime opens beside the imports: that needs no GIL, and takes a tenth of the time to the first answer.
    threading.Thread(target=open_runtime, args=(config.wide_thread_count(),), name="open", daemon=True).start()
    if config.state_dir is None:
        config = dataclasses.replace(config, state_dir=default_folder(Path(registry), os.environ))
    from batchmill.app import App

    return App(Path(registry), config, lambda: dataclasses.replace(flags.settings(given, os.environ), state_dir=config.state_dir)).run()


def open_runtime(wide_threads: int) -> None:
    from batchmill.core import ort

    with contextlib.suppress(RuntimeError):  # App says what is wrong
        ort.initialise(wide_threads=wide_threads)
