"""The command line. argparse, because `serve` is measured by its first answer and a richer library costs a third of it.

Flags of `serve` are the fields of ServerConfig: flag > BATCHMILL_* variable > --config file > default.
Exit codes: 0 ok, 1 failed, 2 usage, 3 unreachable.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

import batchmill
from batchmill import logs
from batchmill.config import ServerConfig
from batchmill.errors import BatchmillError, ConfigError, UsageError
from batchmill.state import default_folder

DEFAULT_URL = "http://127.0.0.1:8000"
_UNSET = object()
_WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command and exits with its code."""
    try:
        options = parser().parse_args(arguments)
        sys.exit(options.command(options))
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
    add_serve(commands.add_parser("serve", help="serve a registry directory, or one .onnx file"))
    add_check(commands.add_parser("check", help="say what of a registry would be served and how, and serve nothing"))
    add_infer(commands.add_parser("infer", help="send one request to a running server"))
    add_models(commands.add_parser("models", help="list what a running server serves"))
    add_top(commands.add_parser("top", help="watch the versions that are asked most"))
    add_route(commands.add_parser("route", help="show or set which versions of a model get its traffic"))
    add_label(commands.add_parser("label", help="name versions of a model, or take names away"))
    add_promote(commands.add_parser("promote", help="give a version all of its model's traffic"))
    add_rollback(commands.add_parser("rollback", help="give a model's traffic back to those that had it before the last change"))
    add_rollout(commands.add_parser("rollout", help="bring a version into service step by step"))
    add_shadow(commands.add_parser("shadow", help="let a version run what others answer, and compare the answers"))
    add_quality(commands.add_parser("quality", help="show how right a model's versions turned out to be, and which is better"))
    add_tune(commands.add_parser("tune", help="show or change how a running server batches and queues a model"))
    add_audit(commands.add_parser("audit", help="show who has changed what on a running server; verify that; copy it"))
    return root


def add_serve(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=serve)
    command.add_argument("registry", nargs="?", metavar="REGISTRY", help="a registry directory, or one .onnx file")
    command.add_argument("--model-repository", metavar="REGISTRY", help="the same, by Triton's name")
    command.add_argument("--config", metavar="FILE", help="server.yaml: the same names as the flags")
    texts = field_texts()
    for field in dataclasses.fields(ServerConfig):
        flag = f"--{field.name.replace('_', '-')}"
        text = texts.get(field.name, "") + ("" if field.default in (None, False, ()) else f" Default: {field.default}.")
        if field.default is False:
            command.add_argument(flag, action=argparse.BooleanOptionalAction, default=_UNSET, help=text)
        elif field.default == ():
            command.add_argument(flag, action="append", metavar="NAME", help=text)
        else:
            choices = ",".join(map(str, choices_of(field)))
            command.add_argument(flag, default=_UNSET, metavar=f"{{{choices}}}" if choices else kind_of(field).__name__.upper(), help=text)


def field_texts() -> dict[str, str]:
    """The texts that stand below the fields of ServerConfig; read from its source, and only when help is asked for."""
    if not {"-h", "--help"} & set(sys.argv):
        return {}
    import ast
    import inspect
    import itertools

    body = next(node for node in ast.parse(inspect.getsource(ServerConfig)).body if isinstance(node, ast.ClassDef)).body
    pairs = itertools.pairwise(body)
    return {
        field.target.id: text.value.value
        for field, text in pairs
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }  # fmt: skip


def kind_of(field: dataclasses.Field[Any]) -> type:
    """int, float, bool, str or Path, whatever the annotation wraps around it."""
    text = str(field.type)
    for kind in (bool, int, float, Path):
        if kind.__name__ in text:
            return kind
    return int if "429" in text else str


def converted(text: object, field: dataclasses.Field[Any], where: str) -> Any:
    kind = kind_of(field)
    if field.default == ():  # a list of its flags or in a file; a variable has commas
        return tuple(map(str, text)) if isinstance(text, list) else tuple(filter(None, str(text or "").split(",")))
    if text is None and field.default is None:
        return None
    try:
        if text is None:
            raise ValueError
        if kind is bool:
            return {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}[str(text).lower()]
        value = kind(str(text))
    except (ValueError, KeyError):
        raise UsageError(f"{where}: {text!r} given, {_WANTED[kind]} wanted") from None
    choices = choices_of(field)
    if choices and value not in choices:
        raise UsageError(f"{where}: {text!r} given, one of {', '.join(map(str, choices))} wanted")
    return value


def choices_of(field: dataclasses.Field[Any]) -> tuple[Any, ...]:
    levels, formats = get_args(logs.LogLevel), get_args(logs.LogFormat)
    choices = {"model_control": ("auto", "explicit", "none"), "busy_status": (429, 503), "log_level": levels, "log_format": formats}
    return choices.get(field.name, ())


def settings(options: argparse.Namespace, environment: Mapping[str, str]) -> ServerConfig:
    """Flags over environment over file over defaults."""
    fields = {field.name: field for field in dataclasses.fields(ServerConfig)}
    path = options.config or environment.get("BATCHMILL_CONFIG")
    values = from_file(Path(path), fields) if path else {}
    for name, field in fields.items():
        variable = f"BATCHMILL_{name.upper()}"
        if variable in environment:
            values[name] = converted(environment[variable], field, variable)
        if (given := getattr(options, name)) is not _UNSET and given is not None:
            values[name] = converted(given, field, f"--{name.replace('_', '-')}")
    try:
        return ServerConfig(**values)
    except ValueError as error:
        raise UsageError(str(error)) from None


def from_file(path: Path, fields: Mapping[str, dataclasses.Field[Any]]) -> dict[str, Any]:
    import difflib

    import yaml

    try:
        given = yaml.safe_load(path.read_text()) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: {getattr(error, 'problem', None) or str(error).splitlines()[0]}") from None
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: keys and values wanted")
    values = {}
    for key, value in given.items():
        name = str(key).replace("-", "_")
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            raise ConfigError(f"{path}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        values[name] = converted(value, fields[name], f"{path}: {key}")
    return values


def serve(options: argparse.Namespace) -> int:
    config = settings(options, os.environ)
    registry = options.registry or options.model_repository or os.environ.get("BATCHMILL_MODEL_REPOSITORY")
    if not registry:
        raise UsageError("serve needs a registry directory or one .onnx file")
    logs.configure(config.log_level, config.log_format)
    # ONNX Runtime opens beside the imports: that needs no GIL, and takes a tenth of the time to the first answer.
    threading.Thread(target=open_runtime, args=(config.wide_thread_count(),), name="open", daemon=True).start()
    if config.state_dir is None:
        config = dataclasses.replace(config, state_dir=default_folder(Path(registry), os.environ))
    from batchmill.app import App

    return App(Path(registry), config, lambda: dataclasses.replace(settings(options, os.environ), state_dir=config.state_dir)).run()


def open_runtime(wide_threads: int) -> None:
    from batchmill.core import ort

    with contextlib.suppress(RuntimeError):  # App says what is wrong
        ort.initialise(wide_threads=wide_threads)


def add_infer(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=infer)
    command.add_argument("model", metavar="MODEL")
    command.add_argument("--input", action="append", default=[], metavar="[NAME=]FILE", help=".npy, .npz or .json; none: generated")
    command.add_argument("--model-version", default="", help="a version number")
    add_remote(command)


def infer(options: argparse.Namespace) -> int:
    from batchmill.client import run

    return run(options.model, options.input, options.model_version, options.url, options.json)


def add_remote(command: argparse.ArgumentParser) -> None:
    """What all commands that talk to a server take."""
    command.add_argument("--url", type=with_scheme, default=os.environ.get("BATCHMILL_URL", DEFAULT_URL), metavar="[http://]HOST:PORT",
                         help=f"of the server (BATCHMILL_URL). Default: {DEFAULT_URL}")  # fmt: skip
    command.add_argument("--json", action="store_true", help="print JSON")


def with_scheme(url: str) -> str:
    return url if "://" in url else f"http://{url}"


def add_check(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=check)
    command.add_argument("registry", metavar="REGISTRY", type=Path, help="a registry directory, or one .onnx file")
    command.add_argument("--timeout-secs", type=float, default=300.0, help="for one version. Default: 300")
    command.add_argument("--json", action="store_true", help="print JSON")


def check(options: argparse.Namespace) -> int:
    from batchmill.check import run

    return run(options.registry, options.timeout_secs, options.json)


def add_models(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=models)
    add_remote(command)


def models(options: argparse.Namespace) -> int:
    from batchmill.listing import run

    return run(options.url, options.json)


def add_top(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=top)
    command.add_argument("--window", choices=("10s", "1m", "5m"), default="10s", help="what is looked back. Default: 10s")
    command.add_argument("--once", action="store_true", help="print once, as where the output is no terminal")
    add_remote(command)


def top(options: argparse.Namespace) -> int:
    from batchmill.top import run

    return run(options.url, options.window, options.once, options.json)


def add_tune(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=tune)
    command.add_argument("model", metavar="MODEL")
    command.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="such as batching.max_batch_size=32; none: shows what is in force")
    command.add_argument("--clear", nargs="*", metavar="KEY", help="take back what was set of these keys; without one, of all")
    add_key(command)


def tune(options: argparse.Namespace) -> int:
    from batchmill.retune import run

    return run(options.model, options.settings, options.clear, options.url, options.admin_key_file, options.json)


def add_quality(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=quality)
    command.add_argument("model", metavar="MODEL")
    command.add_argument("--generation", type=int, metavar="NUMBER", help="of the route, that is compared. Default: the last with two versions")
    add_remote(command)


def quality(options: argparse.Namespace) -> int:
    from batchmill.assessment import run

    return run(options.model, options.generation, options.url, options.json)


def add_audit(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=audit)
    command.add_argument("--model", metavar="NAME", help="of this model alone")
    command.add_argument("--action", metavar="ACTION", help="of this kind alone, such as traffic.moved, or rollout for all that begin so")
    command.add_argument("--since", metavar="TIME", help="such as 2h, 7d or 2026-01-31T12:00 (UTC)")
    command.add_argument("--limit", type=int, metavar="COUNT", help="the newest so many, at most 1000. Default: 100")
    command.add_argument("--verify", nargs="?", const="", metavar="FILE", help="say whether all is as it was written, on the server or in a copy")
    command.add_argument("--head", default="", metavar="SEQ:HASH", help="with --verify: an entry seen before, which has to be there still")
    command.add_argument("--export", metavar="FILE", help="copy all of it, a line of JSON for each entry, and verify the copy; -: to standard output")
    add_remote(command)


def audit(options: argparse.Namespace) -> int:
    from batchmill import trail

    wanted = {name: getattr(options, name) for name in ("model", "action", "since", "limit")}
    acts = options.verify is not None, options.export is not None, any(value is not None for value in wanted.values())
    if sum(acts) > 1:
        raise UsageError("--verify and --export are of the whole trail: no other flags beside them")
    if options.head and not acts[0]:
        raise UsageError("--head is for --verify")
    if acts[0]:
        return trail.verify(options.url, options.verify, options.head, options.json)
    if acts[1]:
        return trail.export(options.url, options.export, options.json)
    return trail.show(options.url, wanted, options.json)


def add_key(command: argparse.ArgumentParser) -> None:
    """What all commands that change something take."""
    add_remote(command)
    command.add_argument("--admin-key-file", type=Path, default=os.environ.get("BATCHMILL_ADMIN_KEY_FILE") or None, metavar="PATH",
                         help="holds the key of a server that wants one (BATCHMILL_ADMIN_KEY_FILE)")  # fmt: skip


def add_route(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=route)
    command.add_argument("model", metavar="MODEL")
    command.add_argument("weights", nargs="*", metavar="VERSION=WEIGHT", help="such as 1=90 2=10; none: shows the route")
    command.add_argument("--rule", action="append", default=[], metavar="KIND:NAME=VALUE:VERSION",
                         help="header:x-tenant=acme:2 or parameter:tier=gold:2; goes before the weights")  # fmt: skip
    command.add_argument("--no-rules", action="store_true", help="take back the rules there are")
    command.add_argument("--clear", action="store_true", help="take back weights and rules: the newest version that is ready has the traffic")
    add_key(command)


def route(options: argparse.Namespace) -> int:
    from batchmill import traffic

    return traffic.route(options.model, options.weights, options.rule, options.clear, options.no_rules,
                         options.url, options.admin_key_file, options.json)  # fmt: skip


def add_label(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=label)
    command.add_argument("model", metavar="MODEL")
    command.add_argument("labels", nargs="*", metavar="LABEL=VERSION", help="such as canary=2; none: shows the labels")
    command.add_argument("--remove", action="append", default=[], metavar="LABEL")
    add_key(command)


def label(options: argparse.Namespace) -> int:
    from batchmill import traffic

    return traffic.label(options.model, options.labels, options.remove, options.url, options.admin_key_file, options.json)


def add_promote(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=promote)
    command.add_argument("model", metavar="MODEL")
    command.add_argument("version", metavar="VERSION")
    add_key(command)


def promote(options: argparse.Namespace) -> int:
    from batchmill import traffic

    return traffic.promote(options.model, options.version, options.url, options.admin_key_file, options.json)


def add_rollback(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=rollback)
    command.add_argument("model", metavar="MODEL")
    add_key(command)


def rollback(options: argparse.Namespace) -> int:
    from batchmill import traffic

    return traffic.rollback(options.model, options.url, options.admin_key_file, options.json)


def add_rollout(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=rollout)
    command.add_argument("action", choices=("start", "status", "approve", "abort"))
    command.add_argument("model", metavar="MODEL")
    command.add_argument("version", metavar="VERSION", nargs="?", help="to start with")
    command.add_argument("--plan", type=Path, metavar="FILE", help="steps and gates, YAML or JSON; none: shadow, 1%%, 5%%, 25%%, 100%%")
    add_key(command)


def rollout(options: argparse.Namespace) -> int:
    from batchmill import stepwise

    return stepwise.run(options.action, options.model, options.version, options.plan, options.url, options.admin_key_file, options.json)


def add_shadow(command: argparse.ArgumentParser) -> None:
    command.set_defaults(command=shadow)
    command.add_argument("model", metavar="MODEL")
    command.add_argument("version", metavar="VERSION", nargs="?", help="the candidate; none: shows the figures")
    command.add_argument("--share", type=float, help="of the requests that the route serves, up to 1. Default: 1")
    command.add_argument("--max-cpu", type=float, metavar="CORES", help="processor time it may take. Default: what is idle, of one core")
    command.add_argument("--max-pending-mib", type=float, metavar="MIB", help="of requests that wait for it. Default: 64")
    command.add_argument("--rtol", type=float, help="relative difference that is no disagreement. Default: 0.001")
    command.add_argument("--atol", type=float, help="absolute difference that is none. Default: 0.00001")
    command.add_argument("--agree-by", choices=("tolerance", "argmax"), help="what agreement is. Default: tolerance")
    command.add_argument("--redact", action="store_true", default=None, help="keep scores and shapes of the worst disagreements alone")
    command.add_argument("--stop", action="store_true", help="end it; without a version, all of the model's")
    command.add_argument("--worst", action="store_true", help="show the worst disagreements")
    command.add_argument("--save", type=Path, metavar="DIR", help="with --worst: their inputs and both answers, as .npz")
    add_key(command)


def shadow(options: argparse.Namespace) -> int:
    from batchmill import shadowing

    return shadowing.act(vars(options))
