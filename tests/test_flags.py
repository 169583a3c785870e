"""Where a setting of the server comes from, and mistakes in it told in one line with the right exit code."""

import pytest

from batchmill import cli, flags
from batchmill.errors import BatchmillError


def settings(arguments=(), environment=None):
    return flags.settings(vars(cli.parser().parse_args(["serve", "registry", *arguments])), environment or {})


@pytest.mark.parametrize(("flag", "variable", "file", "wanted"), [
    (4, 3, 2, 4), (None, 3, 2, 3), (None, None, 2, 2), (None, None, None, 64), (4, None, 2, 4), (4, 3, None, 4),
])
def test_flag_over_variable_over_file_over_default(tmp_path, flag, variable, file, wanted):
    path = tmp_path / "server.yaml"
    path.write_text(f"max-body-mib: {file}\n" if file else "")
    arguments = ["--config", str(path)] + ([] if flag is None else ["--max-body-mib", str(flag)])
    assert settings(arguments, {} if variable is None else {"BATCHMILL_MAX_BODY_MIB": str(variable)}).max_body_mib == wanted


@pytest.mark.parametrize(("arguments", "environment", "wanted"), [
    (["--strict-readiness"], {"BATCHMILL_STRICT_READINESS": "off"}, True),
    (["--no-strict-readiness"], {"BATCHMILL_STRICT_READINESS": "on"}, False),
    ([], {"BATCHMILL_STRICT_READINESS": "yes"}, True), ([], {"BATCHMILL_STRICT_READINESS": "0"}, False), ([], {}, False),
])
def test_switches_have_two_sides(arguments, environment, wanted):
    assert settings(arguments, environment).strict_readiness is wanted


def test_values_become_what_the_field_is():
    got = settings(["--uds", "/tmp/x", "--lame-duck-secs", "0.5", "--busy-status", "503", "--host", "::1"])
    assert (str(got.uds), got.lame_duck_secs, got.busy_status, got.host) == ("/tmp/x", 0.5, 503, "::1")


def test_the_file_may_be_named_by_a_variable(tmp_path):
    (tmp_path / "server.yaml").write_text("port: 7\nstrict_readiness: true\n")
    got = settings([], {"BATCHMILL_CONFIG": str(tmp_path / "server.yaml")})
    assert (got.port, got.strict_readiness) == (7, True)


@pytest.mark.parametrize(("arguments", "environment", "file", "wanted"), [
    ([], {}, "", ()), (["--load-model", "a", "--load-model", "b,c"], {}, "", ("a", "b,c")), ([], {"BATCHMILL_LOAD_MODEL": "a,b"}, "", ("a", "b")),
    ([], {}, "load-model: [a, b]", ("a", "b")), ([], {}, "load-model: a", ("a",)), (["--load-model", "*"], {"BATCHMILL_LOAD_MODEL": "a"}, "load-model: b", ("*",)),
])
def test_models_to_load_are_named_one_by_one(tmp_path, arguments, environment, file, wanted):
    (tmp_path / "server.yaml").write_text(file)
    assert settings(["--model-control", "explicit", "--config", str(tmp_path / "server.yaml"), *arguments], environment).load_model == wanted


@pytest.mark.parametrize(("arguments", "environment", "wanted"), [
    (["--load-model", "a"], {}, "--load-model: needs --model-control explicit, auto given"),
    (["--port", "x"], {}, "--port: 'x' given, a whole number wanted"),
    (["--port", "65536"], {}, "--port: 65536 given, 0 to 65535 wanted"),
    (["--cpu-budget", "two"], {}, "--cpu-budget: 'two' given, a number wanted"),
    (["--busy-status", "500"], {}, "--busy-status: '500' given, one of 429, 503 wanted"),
    (["--log-level", "loud"], {}, "--log-level: 'loud' given, one of debug, info, warning, error wanted"),
    ([], {"BATCHMILL_PORT": "x"}, "BATCHMILL_PORT: 'x' given, a whole number wanted"),
    ([], {"BATCHMILL_STRICT_READINESS": "maybe"}, "BATCHMILL_STRICT_READINESS: 'maybe' given, true or false wanted"),
    (["--no-such-flag"], {}, "unrecognized arguments: --no-such-flag"),
    (["--port"], {}, "argument --port: expected one argument"),
    (["--config", "/nowhere"], {}, "/nowhere: "),
])
def test_a_mistake_is_a_usage_error(arguments, environment, wanted):
    with pytest.raises(BatchmillError) as caught:
        settings(arguments, environment)
    assert (str(caught.value).startswith(wanted), caught.value.exit_code) == (True, 2), str(caught.value)


def test_what_is_worked_out_from_the_machine_may_be_null_in_the_file(tmp_path):
    (tmp_path / "server.yaml").write_text("uds:\nio-threads: null\n")
    got = settings(["--config", str(tmp_path / "server.yaml")])
    assert (got.uds, got.io_threads) == (None, None)


@pytest.mark.parametrize(("content", "wanted"), [
    (b"prt: 1", ": unknown key 'prt'; did you mean 'port'?"), (b"port: [1]", ": port: [1] given, a whole number wanted"),
    (b"- 1", ": keys and values wanted"), (b"port: 1\nhost: [", ":2: "), (b"host:", ": host: None given, a text wanted"), (b"\xff\xfe\xff", ": "),
])
def test_a_mistake_in_the_file_names_it(tmp_path, content, wanted):
    path = tmp_path / "server.yaml"
    path.write_bytes(content)
    with pytest.raises(BatchmillError) as caught:
        settings(["--config", str(path)])
    assert (str(caught.value).startswith(f"{path}{wanted}"), caught.value.exit_code) == (True, 2), str(caught.value)
