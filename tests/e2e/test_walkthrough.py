"""docs/walkthrough.md, as it is written."""

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_digits_goes_to_a_better_version_and_back_from_a_bad_one_in_two_minutes_and_by_the_commands_of_the_page():
    began = time.monotonic()
    done = subprocess.run([sys.executable, "examples/walkthrough.py"], cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 120
    ran = {re.sub(r" --plan \S+", " --plan plan.yaml", line.removeprefix("$ ")) for line in done.stdout.splitlines() if line.startswith("$ batchmill")}
    page = (ROOT / "docs" / "walkthrough.md").read_text()
    assert set(re.findall(r"^ +(batchmill .*)$", page, re.M)) == ran
    plan = (ROOT / "examples" / "walkthrough.py").read_text()
    for line in re.findall(r"^ +(?:- )?\{share.*|^ +(?:agreement|error_rate|latency_ratio|quality): \{[^}]*\}", page, re.M):
        assert line.strip() in plan
