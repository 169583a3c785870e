"""Commands as processes: exit codes 0, 1, 2, 3, and one clear line on stderr in good time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from .server import free_port

SECONDS = 2
HERE = os.path.dirname(__file__)


def run(*arguments):
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "batchmill", *arguments], capture_output=True, text=True, timeout=20, check=False)
    return done, time.monotonic() - started


@pytest.mark.parametrize(("arguments", "code", "wanted"), [
    (["serve", "/no/such/registry"], 1, "/no/such/registry: no such registry directory or file"),
    (["serve", __file__], 1, "a registry directory or a .onnx file wanted"),
    (["serve", HERE, "--host", "192.0.2.1"], 1, "cannot listen on 192.0.2.1:"),
    (["serve", HERE, "--port", "0", "--grpc-port", "0", "--uds", "/no/such/folder/x"], 1, "cannot listen on /no/such/folder/x"),
    (["serve", HERE, "--no-such-flag"], 2, "--no-such-flag"),
    (["serve", HERE, "--port", "many"], 2, "--port: 'many' given"),
    (["serve", HERE, "--executor-threads", "65"], 2, "--executor-threads: 65 given"),
    (["serve", HERE, "--config", "/no/such/file"], 2, "/no/such/file"),
    (["serve"], 2, "serve needs a registry directory"),
    ([], 2, "required: COMMAND"),
    (["infer", "m", "--url", "http://127.0.0.1:1"], 3, "no server answers at http://127.0.0.1:1/"),
    (["infer", "m", "--url", "rubbish"], 3, "no server answers at http://rubbish/"),
])
def test_what_cannot_work_says_so_in_one_line(arguments, code, wanted):
    done, took = run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("batchmill: ")
    assert wanted in done.stderr
    assert took < SECONDS


@pytest.mark.parametrize("flags", [["--port", "{taken}", "--grpc-port", "0"], ["--port", "{free}", "--grpc-port", "{taken}"]])
def test_a_port_that_is_taken_says_so(server, flags):
    done, took = run("serve", HERE, *[flag.format(taken=server.port, free=free_port()) for flag in flags])
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert f"127.0.0.1:{server.port}: Address already in use" in done.stderr
    assert took < SECONDS


@pytest.mark.parametrize(("arguments", "code", "wanted"), [
    (["linear"], 0, "linear version 2"), (["linear", "--model-version", "1", "--json"], 0, '"version": "1"'),
    (["no body"], 1, "404: Request for unknown model 'no body'"), (["linear", "--model-version", "9"], 1, "404: "),
    (["linear", "--label", "old"], 1, "404: "), (["linear", "--label", "old", "--model-version", "1"], 2, "--model-version or --label, not both"),
    (["linear", "--input", "/no/such.npy"], 2, "/no/such.npy: No such file"), (["linear", "--input", f"z={HERE}/conftest.py"], 2, "conftest.py: no JSON: "),
    (["linear", "--input", sys.executable], 2, ": .npy, .npz or JSON wanted"), (["linear", "--input", "{tmp}/a.json"], 2, "input 'x': FP32 wanted: could not convert"),
    (["linear", "--input", "{tmp}/b.json"], 2, "b.json: an input without 'data'"), (["linear", "--input", "{tmp}/c.json"], 2, "input 'x': FP32 wanted: float() argument"),
])
def test_infer_says_how_it_went(server, tmp_path, arguments, code, wanted):
    for name, content in {"a": '[["word"]]', "b": '{"inputs": [{"name": "x"}]}', "c": '[{"image": [1.0], "label": 3}]'}.items():
        (tmp_path / f"{name}.json").write_text(content)
    done, _ = run("infer", *(argument.format(tmp=tmp_path) for argument in arguments), "--url", server.url)
    assert done.returncode == code, done.stderr
    assert wanted in (done.stderr if code else done.stdout)
    assert done.stderr.count("\n") == (1 if code else 0)


def test_models_and_top_tell_of_a_running_server(server):
    assert run("infer", "linear", "--url", server.url)[0].returncode == 0
    listed, _ = run("models", "--url", server.url, "--json")
    rows = {(row["model"], row["version"]): row for row in json.loads(listed.stdout)}
    two = rows["linear", "2"]
    assert (two["state"], two["default"], len(two["sha256"])) == ("ready", True, 64)
    assert two["memory_bytes"] >= two["file_bytes"] > 0
    shown, _ = run("top", "--url", server.url)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "linear" in shown.stdout
    assert "P99.9" in shown.stdout
    assert run("top", "--window", "1h")[0].returncode == 2


@pytest.mark.parametrize("command", ["models", "top"])
def test_what_is_no_server_is_unreachable(command):
    done, _ = run(command, "--url", "http://127.0.0.1:1")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
