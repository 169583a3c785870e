#!/usr/bin/env python3
"""Writes docs/reference.md: every command, flag, key, path, header and metric with its default, read from the code that acts on them;
and docs/errors.md: every error."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from starlette.routing import Route

from batchmill import cli, complaints
from batchmill.app import make_server
from batchmill.audit import Audit
from batchmill.config import ServerConfig
from batchmill.core.histogram import CODE_NAMES
from batchmill.endpoints import rest
from batchmill.endpoints.calls import CALLS
from batchmill.endpoints.catalog import Catalog
from batchmill.endpoints.feedback import Assessor
from batchmill.endpoints.live_traffic import routed
from batchmill.endpoints.repository import Repository
from batchmill.endpoints.rollouts import Rollouts
from batchmill.endpoints.routes import Switchboard
from batchmill.endpoints.shadows import Shadows
from batchmill.errors import DATA_PLANE, BatchmillError, ConfigError, RemoteError, StartError
from batchmill.observe.changes import Changes
from batchmill.observe.metrics import FeedbackCollector, Metrics
from batchmill.registry import model_config
from batchmill.registry.model_schema import schema
from batchmill.registry.settings import TUNABLE
from batchmill.reload import AT_RUN_TIME
from batchmill.store import Store

HERE = Path(__file__).resolve().parent

PATHS = {path: "; ".join(call.text for call in CALLS if call.path == path) for path in dict.fromkeys(call.path for call in CALLS)}
PATH_OF = {path: call.path for call in CALLS for path in call.paths()}
HEADERS = (
    ("x-request-id", "asked, answered", "carried through to the answer and the access log; without one the v2 `id` counts"),
    ("traceparent", "asked", "carried to the access log"),
    ("x-server-timing: 1", "asked", "the answer has `server-timing`: milliseconds of each stage"),
    ("grpc-timeout, x-request-timeout-ms", "asked", "deadline; so does the v2 parameter `timeout`, µs until the run starts. The earliest counts"),
    ("inference-header-content-length", "asked, answered", "bytes of JSON before the binary tensors"),
    ("authorization: Bearer", "asked", "the key, where `--admin-key-file` is given"),
    ("x-model-version", "answered", "which version answered (gRPC: a trailer)"),
    ("x-feedback-token", "answered", "by which ground truth is told (`feedback` in model.yaml); so is the parameter `feedback_token`"),
    ("x-fallback", "answered", "who answered in the place of the version that failed; so does the parameter `fallback`"),
    ("retry-after", "answered", "seconds until it makes sense to come back, with 429 and 503"),
)
SIGNALS = (
    ("SIGTERM", "drains: not ready at once, serves on for `--lame-duck-secs`, takes no more, answers what it has accepted for at most "
                "`--exit-timeout-secs`, ends with 0"),
    ("SIGINT", "the same; at a terminal (Ctrl-C) without the lame-duck time"),
    ("a second of these", "ends at once, with 0; what is not answered is cut"),
    ("SIGHUP", "reads flags, variables, `--config` and the key's file anew and takes over " + ", ".join(f"`{name}`" for name in AT_RUN_TIME)
               + "; the log names what has changed and what needs another start. Then all models are looked at, those that failed are tried again, "
                 "as by a load call for each; what was unloaded by a call stays so, and with `--model-control none` no model is looked at. Settings "
                 "that are wrong change nothing. When a terminal closes, its SIGHUP ends the server it has started, as SIGTERM does"),
    ("SIGQUIT", "ends at once and answers nothing more; with a core file where the system keeps them"),
)
EXITS = "Exit codes: 0 ok, 1 failed, 2 usage, 3 the server cannot be reached."


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in (head, ["---"] * len(head), *rows))


def texts_of(source: str) -> dict[str, dict[str, str]]:
    """The texts that stand below fields, by class and field."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse(textwrap.dedent(source))):
        if isinstance(node, ast.ClassDef):
            for field, text in itertools.pairwise(node.body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                    found.setdefault(node.name, {})[ast.unparse(field.target)] = str(text.value.value)
    return found


def name_of(action: argparse.Action) -> str:
    return " ".join(action.option_strings) or str(action.metavar or " | ".join(action.choices or [action.dest]))


def commands() -> str:
    (listed,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in listed._choices_actions}
    rows = []
    for name, command in listed.choices.items():
        rows.append([f"`batchmill {name}`", "", helps[name]])
        if name != "serve":
            rows += [["", f"`{name_of(action)}`", (action.help or "").replace("%%", "%")]
                     for action in command._actions if action.dest != "help" and action.metavar != "MODEL"]
    return table(["command", "flag", ""], rows)


def flags() -> str:
    texts = texts_of(inspect.getsource(ServerConfig))["ServerConfig"]
    rows = []
    for field in dataclasses.fields(ServerConfig):
        default = {None: "", False: "off", (): ""}.get(field.default, str(field.default))
        rows.append([f"`--{field.name.replace('_', '-')}`", default, texts[field.name]])
    return table(["flag", "default", ""], rows)


def keys(model: Any = None, above: str = "") -> Iterator[list[str]]:
    """Key, default, what it takes (as the error for anything else says) and its text."""
    model = model or schema()
    texts = texts_of(inspect.getsource(schema))
    for name, field in model.model_fields.items():
        inside = complaints.part_of(field.annotation)
        if inside is not None and name != "rollout":  # its keys are in rollouts.md
            yield from keys(inside, f"{above}{name}." + "NAME." * complaints.is_by_name(field.annotation))
        else:
            default = "" if field.is_required() else shown(field.default)
            takes = "a list; each " * isinstance(field.default, list) + wanted(f"{above}{name}")
            yield [f"`{above}{name}`", default, takes, texts[model.__name__][name]]


def shown(value: object) -> str:
    return "null" if value is None else str(value).replace("'", "")


def wanted(key: str) -> str:
    """As the error says that something impossible causes."""
    *above, last = key.split(".")
    impossible = "[[]]" if last != "parameters" and last != "labels" else "[]"
    text = "latency_ms: 1, " * (key == "slo.target") + f"{last}: {impossible}"
    for part in reversed(above):
        text = f"{part}: {{{text}}}"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.yaml").write_text(text)
        try:
            model_config.read(Path(folder) / "model.yaml")
        except ConfigError as error:
            told = str(error).split(" given, ")[-1].removesuffix(" wanted").removesuffix(",")
            return told.replace("a valid ", "").replace("dictionary", "keys and values").replace("'", "`")
    raise AssertionError(f"{key} takes {impossible}")


def paths() -> str:
    catalog = SimpleNamespace(metadata=None, config=None, latency=None, statuses=None)
    more = routed(cast(Switchboard, None), cast(Shadows, None), cast(Rollouts, None), cast(Assessor, None))
    known = rest.application(cast(Catalog, catalog), cast(Metrics, None), cast(Repository, None), more).routes
    served = {PATH_OF.get(route.path, route.path) for route in known if isinstance(route, Route)}
    if served != PATHS.keys():
        raise SystemExit(f"paths that only one side knows: {sorted(served ^ PATHS.keys())}")
    return table(["path", ""], [[f"`{path}`", text] for path, text in PATHS.items()])


def metrics() -> str:
    shown = Metrics(make_server(ServerConfig()), lambda: [], Changes(), Audit(Store()), triton=True)
    shown.register(FeedbackCollector(lambda: [], lambda: []))
    text = shown.render().decode()
    helps = {line.split(" ")[2]: line.split(" ", 3)[3] for line in text.splitlines() if line.startswith("# HELP")}
    kinds = {line.split(" ")[2]: line.split(" ")[3] for line in text.splitlines() if line.startswith("# TYPE")}
    return table(["metric", "kind", ""], [[f"`{name}`", kinds[name], helps[name]] for name in helps])


def reference() -> str:
    return f"""# Reference

Written by `make docs` from the code.

## Commands

{commands()}

{EXITS}

## `batchmill serve REGISTRY`

A flag counts before its variable (`--max-body-mib`: `BATCHMILL_MAX_BODY_MIB`), that before its key in `--config server.yaml`
(`max_body_mib`), that before the default.

{flags()}

## Signals

{table(["signal", ""], [[f"`{name}`" if name.isupper() else name, text] for name, text in SIGNALS])}

## `<registry>/<model>/model.yaml`

All of it is optional. When the file is edited, some keys count from the next batch on, and others load the versions anew beside themselves.
Where there is no model.yaml, Triton's `config.pbtxt` is read.

From the next batch on: {", ".join(f"`{key}`" for key in TUNABLE)}.

`batchmill tune` and `PATCH /admin/models/{{model}}/tuning` set the same keys. What they set goes before the file, and is kept in `--state-dir`.

{table(["key", "default", "takes", ""], list(keys()))}

A version's folder may hold `golden.npz`: arrays `in:<name>` and `out:<name>`, rows along axis 0. The version has to reproduce them before
it serves.

## Paths

Each `/v2/models/{{model}}/…` is there as `/v2/models/{{model}}/versions/{{version}}/…` too. Guarded: callers on this machine, or with the key
(`--admin-key-file`).

{paths()}

## Uploads

With `--allow-upload` a load call may have parameters, over REST (`{{"parameters": {{…}}}}`) and gRPC: `file:<version>/<name>`, a file's bytes
(REST: as base64), and `config`, a JSON text, which has to be there beside files. The files are written aside and put into the registry by
renames, then the model is loaded as by any load call; whoever may load may upload. The registry takes `model.onnx`, `golden.npz` and the
external data that a model.onnx names. A version that is there is replaced, others stay. When what came cannot serve, the call fails with the
reason, the files are removed, what they replaced is back, and what served before goes on. A request may be as large as `--max-body-mib` and
`--cold-mib` allow.

`config` is either Triton's ModelConfig as JSON (written as config.pbtxt) or has the keys of model.yaml (written as that); it takes the place of
either file. An empty object leaves the settings that are there. Alone, without files, it changes the settings of a model that is there.

## Headers and metadata

{table(["name", "", ""], [[f"`{name}`", *rest] for name, *rest in HEADERS])}

## Metrics

Labels: `model`, `version`, and `outcome`, `reason`, `protocol` where the name says so. Triton's names (`nv_inference_*`) with `--triton-metrics`.

{metrics()}
"""


def tree(above: type[BatchmillError] = BatchmillError) -> Iterator[type[BatchmillError]]:
    for one in above.__subclasses__():
        yield one
        yield from tree(one)


def errors() -> str:
    native = [[f"`{one.reason}`", CODE_NAMES[one.code], str(one.http_status or ""), one.when, one.advice] for one in DATA_PLANE]
    control = [[f"`{one.reason}`", one.__name__, CODE_NAMES[one.code], str(one.http_status), " ".join((one.__doc__ or "").split()), one.advice]
               for one in tree() if one.exit_code == 1 and one not in (StartError, RemoteError)]
    commands = [[one.__name__, str(one.exit_code), " ".join((one.__doc__ or "").split()), one.advice]
                for one in tree() if one.exit_code != 1 or one in (StartError, RemoteError)]
    return f"""# Errors

Written by `make docs` from the code.

REST answers an error as `{{"error": "text"}}` with its HTTP status, gRPC with its code and the same text. The text names model, field, what was given
and what is wanted; of what a caller sent it repeats 200 characters at most. Where a column is empty, there is no such answer. The reasons of
inferences are a label of `batchmill_request_failures_total`, too.

## Inference, health and everything else the data plane answers

{table(["reason", "gRPC", "HTTP", "when", "what to do"], native)}

## Metadata, repository, administration

{table(["reason", "class", "gRPC", "HTTP", "when", "what to do"], control)}

## The command line

{table(["class", "exit code", "when", "what to do"], commands)}
"""


if __name__ == "__main__":
    (HERE / "reference.md").write_text(reference())
    (HERE / "errors.md").write_text(errors())
