"""The command line: what help tells, and that each command's function gets what its flags say."""

import importlib
import inspect

import pytest

from batchmill import cli
from batchmill.commands import COMMANDS

WANTED = {"check": ["registry"], "models": [], "top": [], "promote": ["m", "2"], "rollout": ["status", "m"], "audit": []}  # arguments that must be there


def test_help_tells_of_every_flag(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["batchmill", "serve", "--help"])
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert "After SIGTERM: not ready, but serving. Default: 3.0." in text


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"inputs": [1]}', b'{"outputs": []}'])
def test_infer_says_when_what_answers_is_no_model_server(monkeypatch, capsys, answer):
    monkeypatch.setattr("batchmill.client.call", lambda url: answer)
    with pytest.raises(SystemExit) as ended:
        cli.main(["infer", "m"])
    assert ended.value.code == 1
    assert capsys.readouterr().err == "batchmill: what answers at http://127.0.0.1:8000/v2/models/m is no model server of the v2 protocol\n"


@pytest.mark.parametrize(("given", "asked"), [("localhost:9", "http://localhost:9/admin/models"), ("https://a/b/", "https://a/b/admin/models")])
def test_a_server_may_be_named_without_its_scheme(monkeypatch, capsys, given, asked):
    urls = []
    monkeypatch.setattr("batchmill.remote.call", lambda url: urls.append(url) or b'{"models": []}')
    with pytest.raises(SystemExit) as ended:
        cli.main(["models", "--url", given])
    assert (urls, ended.value.code) == ([asked], 0)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_s_function_takes_what_its_arguments_give(command):
    module, function = command.act.split(":")
    given = vars(cli.parser().parse_args([command.name, *WANTED.get(command.name, ["m"])]))
    given.pop("run")
    inspect.signature(getattr(importlib.import_module(f"batchmill.{module}"), function)).bind(**given)
