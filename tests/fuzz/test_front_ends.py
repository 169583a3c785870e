"""The front ends against mutated connections, and routes against mutated requests; `make fuzz` runs both for long under AddressSanitizer."""

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz.inputs import case

MINUTES = float(os.environ.get("BATCHMILL_FUZZ_MINUTES", "5"))
SEED = int(os.environ.get("BATCHMILL_FUZZ_SEED") or time.time())
RUN = os.environ.get("BATCHMILL_FUZZ_RUN")  # this one alone


def drive(module: str, seconds: float, progress: Path) -> tuple[int, int]:
    """The exit code, and the run that was at hand."""
    progress.write_bytes(bytes(8))
    command = [sys.executable, "-m", module, str(SEED), RUN or "0", str(seconds), str(progress)]
    code = subprocess.run(command, cwd=Path(__file__).parent.parent, check=False).returncode
    return code, struct.unpack("<q", progress.read_bytes())[0]


@pytest.mark.long
def test_no_bytes_of_a_client_break_a_front_end(tmp_path, capfd):
    with capfd.disabled():
        code, run = drive("fuzz.drive", 0 if RUN else 60 * MINUTES, tmp_path / "run")
    if code:
        given = case(SEED, run)
        saved = Path(f"fuzz-{SEED}-{run}.bin").absolute()
        saved.write_bytes(given.data)
        pytest.fail(f"exit code {code} in {saved} ({'HTTP/2' if given.http2 else 'HTTP/1.1'}): {given.data[:2000]!r}\n"
                    f"again: make fuzz SEED={SEED} RUN={run}", pytrace=False)


def fails_in_routes(seconds: float, progress: Path) -> str:
    code, run = drive("fuzz.routed", seconds, progress)
    return f"exit code {code} in run {run}: python -m fuzz.routed {SEED} {run} 0 FILE" if code else ""


def test_some_requests_break_no_route(tmp_path):
    assert not fails_in_routes(3, tmp_path / "run")


@pytest.mark.long
def test_no_request_breaks_a_route(tmp_path, capfd):
    with capfd.disabled():
        assert not fails_in_routes(0 if RUN else 60 * MINUTES, tmp_path / "run")
