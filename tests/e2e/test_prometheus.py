"""/metrics as Prometheus itself reads it: promtool's linter, and a scrape (make metrics-test brings both)."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

from . import models
from .server import ServerProcess, free_port
from .test_behaviour import post, tensor

pytestmark = pytest.mark.long


def tool(name):
    found = shutil.which(name)
    assert found, f"{name} is not installed: make metrics-test"
    return found


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A server with every kind of series: Triton's names, both outcomes, an unknown model."""
    registry = tmp_path_factory.mktemp("served") / "registry"
    models.identity(registry, "INT32", [2, 2], "fixed")
    models.linear(registry)
    with ServerProcess(registry, "--triton-metrics") as process:
        for _ in range(20):
            assert post(process, "fixed", [tensor("x", "INT32", [2, 2], [1, 2, 3, 4])])[0] == 200
        assert post(process, "fixed", [tensor("x", "INT32", [2], [1, 2])])[0] == 400
        assert post(process, "nobody", [tensor("x", "INT32", [1], [1])])[0] == 404
        yield process


def test_promtool_finds_nothing_wrong(asked):
    found = subprocess.run([tool("promtool"), "check", "metrics"], input=asked.get("/metrics")[1], capture_output=True)
    # Triton's names have units and endings of their own.
    complaints = [line for line in (found.stdout + found.stderr).decode().splitlines() if not line.startswith("nv_inference_")]
    assert complaints == []


def test_prometheus_scrapes_what_was_counted(asked, tmp_path):
    (tmp_path / "prometheus.yml").write_text(json.dumps({
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "batchmill", "static_configs": [{"targets": [asked.address]}]}],
    }))
    port = free_port()
    command = [tool("prometheus"), f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"]

    def query(expression):
        url = f"http://127.0.0.1:{port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]["result"]

    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        found = []
        while not found and time.monotonic() < end:
            time.sleep(0.2)
            try:
                found = query('batchmill_requests_total{model="fixed",outcome="ok"}')
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
        assert [one["value"][1] for one in found] == ["20"]
        assert query('up{job="batchmill"}')[0]["value"][1] == "1"
        assert query('nv_inference_request_success{model="fixed"}')[0]["value"][1] == "20"
        assert query('batchmill_version_loads_total{model="fixed",outcome="ready"}')[0]["value"][1] == "1"
        quantile = query('histogram_quantile(0.5, sum by (le) (batchmill_request_duration_seconds_bucket{model="fixed"}))')
        assert 0 < float(quantile[0]["value"][1]) < 1
    finally:
        process.terminate()
        process.wait(20)
