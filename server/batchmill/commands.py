"""The commands beside `serve`: what each takes, and which function it calls. The function's module is imported when the command runs."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_URL = "http://127.0.0.1:8000"


class Argument:
    """What add_argument() takes. variable: of the environment, whose value goes before the default."""

    def __init__(self, *names: str, variable: str = "", **options: Any) -> None:
        self._names, self._variable, self._options = names, variable, options

    def add_to(self, command: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
        default = {"default": value} if (value := environment.get(self._variable)) else {}
        command.add_argument(*self._names, **self._options | default)


@dataclass(frozen=True, slots=True)
class Command:
    """act: module:function, which gets the arguments by name and returns the exit code."""

    name: str
    help: str
    act: str
    arguments: tuple[Argument, ...]

    def run(self, **options: Any) -> int:
        module, function = self.act.split(":")
        code: int = getattr(importlib.import_module(f"batchmill.{module}"), function)(**options)
        return code


def with_scheme(url: str) -> str:
    return url if "://" in url else f"http://{url}"


MODEL = Argument("model", metavar="MODEL")
JSON = Argument("--json", dest="as_json", action="store_true", help="print JSON")
# What all commands that talk to a server take, and all that change something.
REMOTE = (
    Argument("--url", type=with_scheme, default=DEFAULT_URL, variable="BATCHMILL_URL", metavar="[http://]HOST:PORT",
             help=f"of the server (BATCHMILL_URL). Default: {DEFAULT_URL}"),
    JSON,
)  # fmt: skip
GUARDED = (
    *REMOTE,
    Argument("--admin-key-file", dest="key_file", type=Path, variable="BATCHMILL_ADMIN_KEY_FILE", metavar="PATH",
             help="holds the key of a server that wants one (BATCHMILL_ADMIN_KEY_FILE)"),
)  # fmt: skip

COMMANDS = (
    Command("check", "say what of a registry would be served and how, and serve nothing", "check:run", (
        Argument("registry", metavar="REGISTRY", type=Path, help="a registry directory, or one .onnx file"),
        Argument("--timeout-secs", type=float, default=300.0, help="for one version. Default: 300"),
        JSON,
    )),
    Command("infer", "send one request to a running server", "client:run", (
        MODEL,
        Argument("--input", dest="files", action="append", default=[], metavar="[NAME=]FILE", help=".npy, .npz or .json; none: generated"),
        Argument("--model-version", dest="version", metavar="MODEL_VERSION", default="", help="a version number"),
        Argument("--label", metavar="LABEL", default="", help="in place of a number, such as canary"),
        *REMOTE,
    )),
    Command("models", "list what a running server serves", "listing:run", REMOTE),
    Command("top", "watch the versions that are asked most", "top:run", (
        Argument("--window", choices=("10s", "1m", "5m"), default="10s", help="what is looked back. Default: 10s"),
        Argument("--once", action="store_true", help="print once, as where the output is no terminal"),
        *REMOTE,
    )),
    Command("route", "show or set which versions of a model get its traffic", "traffic:route", (
        MODEL,
        Argument("weights", nargs="*", metavar="VERSION=WEIGHT", help="such as 1=90 2=10; none: shows the route"),
        Argument("--rule", dest="rules", action="append", default=[], metavar="KIND:NAME=VALUE:VERSION",
                 help="header:x-tenant=acme:2 or parameter:tier=gold:2; goes before the weights"),
        Argument("--no-rules", action="store_true", help="take back the rules there are"),
        Argument("--clear", action="store_true", help="take back weights and rules: the newest version that is ready has the traffic"),
        *GUARDED,
    )),
    Command("label", "name versions of a model, or take names away", "traffic:label", (
        MODEL,
        Argument("settings", nargs="*", metavar="LABEL=VERSION", help="such as canary=2; none: shows the labels"),
        Argument("--remove", dest="removed", action="append", default=[], metavar="LABEL"),
        *GUARDED,
    )),
    Command("promote", "give a version all of its model's traffic", "traffic:promote", (MODEL, Argument("version", metavar="VERSION"), *GUARDED)),
    Command("rollback", "give a model's traffic back to those that had it before the last change", "traffic:rollback", (MODEL, *GUARDED)),
    Command("rollout", "bring a version into service step by step", "stepwise:run", (
        Argument("action", choices=("start", "status", "approve", "abort")),
        MODEL,
        Argument("version", metavar="VERSION", nargs="?", help="of start: the candidate"),
        Argument("--plan", type=Path, metavar="FILE", help="steps and gates, YAML or JSON; none: shadow, 1, 5, 25, 100 percent"),
        *GUARDED,
    )),
    Command("shadow", "let a version run what others answer, and compare the answers", "shadowing:act", (
        MODEL,
        Argument("version", metavar="VERSION", nargs="?", help="the candidate; none: shows the figures"),
        Argument("--share", type=float, help="of the requests that the route serves, up to 1. Default: 1"),
        Argument("--max-cpu", type=float, metavar="CORES", help="processor time it may take. Default: what is idle, of one core"),
        Argument("--max-pending-mib", type=float, metavar="MIB", help="of requests that wait for it. Default: 64"),
        Argument("--rtol", type=float, help="relative difference that is no disagreement. Default: 0.001"),
        Argument("--atol", type=float, help="absolute difference that is none. Default: 0.00001"),
        Argument("--agree-by", choices=("tolerance", "argmax"), help="what agreement is. Default: tolerance"),
        Argument("--keep", type=int, metavar="COUNT", help="of the worst disagreements, up to 64. Default: 8"),
        Argument("--redact", action="store_true", default=None, help="keep scores and shapes of the worst disagreements alone"),
        Argument("--stop", action="store_true", help="end it; without a version, all of the model's"),
        Argument("--worst", dest="show_worst", action="store_true", help="show the worst disagreements"),
        Argument("--save", dest="folder", type=Path, metavar="DIR", help="with --worst: their inputs and both answers, as .npz"),
        *GUARDED,
    )),
    Command("quality", "show how right a model's versions turned out to be, and which is better", "assessment:run", (
        MODEL,
        Argument("--generation", type=int, metavar="NUMBER", help="of the route, that is compared. Default: the last with two versions"),
        *REMOTE,
    )),
    Command("tune", "show or change how a running server batches and queues a model", "retune:run", (
        MODEL,
        Argument("settings", nargs="*", metavar="KEY=VALUE", help="such as batching.max_batch_size=32; none: shows what is in force"),
        Argument("--clear", dest="cleared", nargs="*", metavar="KEY", help="take back what was set of these keys; without one, of all"),
        *GUARDED,
    )),
    Command("audit", "show who has changed what on a running server; verify that; copy it", "trail:act", (
        Argument("--model", metavar="NAME", help="of this model alone"),
        Argument("--action", metavar="ACTION", help="of this kind alone, such as traffic.moved, or rollout for all that begin so"),
        Argument("--since", metavar="TIME", help="such as 2h, 7d or 2026-01-31T12:00 (UTC)"),
        Argument("--limit", type=int, metavar="COUNT", help="the newest so many, at most 1000. Default: 100"),
        Argument("--verify", dest="verified", nargs="?", const="", metavar="FILE",
                 help="say whether all is as it was written, on the server or in a copy"),
        Argument("--head", default="", metavar="SEQ:HASH", help="with --verify: an entry seen before, which has to be there still"),
        Argument("--export", dest="exported", metavar="FILE",
                 help="copy all of it, a line of JSON for each entry, and verify the copy; -: to standard output"),
        *REMOTE,
    )),
)  # fmt: skip
