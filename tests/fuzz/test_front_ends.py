"""The front ends against mutated connections; `make fuzz` runs it under AddressSanitizer. Not part of the default run."""

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


@pytest.mark.long
def test_no_bytes_of_a_client_break_a_front_end(tmp_path, capfd):
    progress = tmp_path / "run"
    progress.write_bytes(bytes(8))
    seconds = 0 if RUN else 60 * MINUTES
    command = [sys.executable, "-m", "fuzz.drive", str(SEED), RUN or "0", str(seconds), str(progress)]
    with capfd.disabled():
        code = subprocess.run(command, cwd=Path(__file__).parent.parent, check=False).returncode
    if code:
        run = struct.unpack("<q", progress.read_bytes())[0]
        given = case(SEED, run)
        saved = Path(f"fuzz-{SEED}-{run}.bin").absolute()
        saved.write_bytes(given.data)
        pytest.fail(f"exit code {code} in {saved} ({'HTTP/2' if given.http2 else 'HTTP/1.1'}): {given.data[:2000]!r}\n"
                    f"again: make fuzz SEED={SEED} RUN={run}", pytrace=False)
