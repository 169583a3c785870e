"""Where the settings of a server come from: flag > BATCHMILL_* variable > --config file > default. Its flags are the fields of ServerConfig."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from batchmill import logs
from batchmill.config import ServerConfig
from batchmill.errors import ConfigError, UsageError

_UNSET = object()
_WANTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def add_to(command: argparse.ArgumentParser) -> None:
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


def settings(given: Mapping[str, Any], environment: Mapping[str, str]) -> ServerConfig:
    """given: by name, what add_to() has added."""
    fields = {field.name: field for field in dataclasses.fields(ServerConfig)}
    path = given["config"] or environment.get("BATCHMILL_CONFIG")
    values = from_file(Path(path), fields) if path else {}
    for name, field in fields.items():
        variable = f"BATCHMILL_{name.upper()}"
        if variable in environment:
            values[name] = converted(environment[variable], field, variable)
        if (value := given[name]) is not _UNSET and value is not None:
            values[name] = converted(value, field, f"--{name.replace('_', '-')}")
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
