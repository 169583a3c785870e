import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("name", ["serve", "heavy", "tail", "instruments", "many_models", "changes", "agreement", "startup", "batching", "rollouts", "shadow"])
def test_a_benchmark_tells_its_options(name):
    told = subprocess.run([sys.executable, f"{name}.py", "--help"], cwd=BENCHMARKS, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "--check" in told.stdout
