"""Forty changes of eight models while all of them are asked: what `benchmarks/changes.py` does a thousand times under load."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_no_request_fails_and_no_retired_version_answers_while_versions_come_and_go(tmp_path):
    # A process of its own, for its protos are not those of Triton's client.
    done = subprocess.run([sys.executable, "changes.py", "--changes", "40", "--load", "0", "--settle", "3", "--server-core", "", "--client-core", "", "--check",
                           "--json", tmp_path / "changes.json"], cwd=BENCHMARKS, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASS") == 6
