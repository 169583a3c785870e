"""The server's settings: their ranges, and what they make of the machine."""

import pytest

from batchmill.config import MIB, ServerConfig, detect_cores, detect_memory_bytes


@pytest.mark.parametrize(("given", "wanted"), [
    ({"port": 65536}, "--port: 65536 given, 0 to 65535 wanted"),
    ({"grpc_port": -1}, "--grpc-port: -1 given, 0 to 65535 wanted"),
    ({"metrics_port": 70000}, "--metrics-port: 70000 given, 0 to 65535 wanted"),
    ({"port": 0, "grpc_port": 0}, "nothing to listen on"),
    ({"io_threads": 0}, "--io-threads: 0 given, 1 to 16 wanted"),
    ({"io_threads": 17}, "--io-threads: 17 given, 1 to 16 wanted"),
    ({"executor_threads": 65}, "--executor-threads: 65 given, 1 to 64 wanted"),
    *[({name: given}, f"--{name.replace('_', '-')}: {given} given, 1 to 2147483647 wanted") for given in (0, 2**31) for name in (
        "max_body_mib", "max_response_mib", "max_pending_mib", "max_connections", "max_streams", "max_header_kib", "header_timeout_ms",
        "idle_timeout_secs", "max_resets", "max_resets_per_s", "cold_calls", "cold_mib",
    )],
    *[({name: given}, f"--{name.replace('_', '-')}: {given} given, 0 to 2147483647 wanted") for given in (-1, float("inf"), float("nan")) for name in (
        "lame_duck_secs", "exit_timeout_secs", "min_body_rate",
    )],
    ({"cpu_budget": 0}, "--cpu-budget: 0 given, more than 0, at most 4096 wanted"),
    ({"cpu_budget": float("nan")}, "--cpu-budget: nan given"),
    ({"server_name": ""}, "--server-name: '' given, 1 to 200 characters wanted"), ({"server_name": "a\nb"}, "--server-name: 'a\\nb' given"),
])
def test_a_setting_out_of_range_is_told(given, wanted):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is asked for below)
        ServerConfig(**given)
    assert str(caught.value).startswith(wanted)


@pytest.mark.parametrize(("given", "io_threads", "executors"), [
    ({"cpu_budget": 0.5}, 1, 1), ({"cpu_budget": 7.2}, 1, 8), ({"cpu_budget": 16}, 2, 16), ({"cpu_budget": 4096}, 16, 64),
    ({"cpu_budget": 2, "io_threads": 3, "executor_threads": 5}, 3, 5),
])
def test_threads_follow_from_the_budget_unless_they_are_given(given, io_threads, executors):
    config = ServerConfig(**given)
    assert (config.io_thread_count(), config.executor_count()) == (io_threads, executors)


def test_pending_bytes_are_what_is_given_or_a_part_of_the_memory():
    assert ServerConfig(max_pending_mib=3).pending_bytes() == 3 * MIB
    assert MIB <= ServerConfig().pending_bytes() <= 4096 * MIB


@pytest.mark.parametrize(("files", "cores"), [
    ({"cpu.max": "50000 100000\n"}, 0.5), ({"cpu.max": "max 100000\n"}, None), ({"cpu.max": "rubbish"}, None), ({}, None),
    ({"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "100000"}, 0.25),
    ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
])
def test_the_cgroups_quota_limits_the_cores(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert detect_cores(tmp_path) == (cores or detect_cores(tmp_path / "nothing"))


@pytest.mark.parametrize(("text", "limit"), [("1048576\n", 1048576), ("max\n", None), ("9" * 20, None)])
def test_the_cgroups_limit_limits_the_memory(tmp_path, text, limit):
    (tmp_path / "memory.max").write_text(text)
    assert detect_memory_bytes(tmp_path) == (limit or detect_memory_bytes(tmp_path / "nothing"))
