"""A body that comes slower than --min-body-rate, on the clock of the wall; with time that is passed in: tests/core/test_http1.py."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from e2e import faults, models, wire
from e2e.server import ServerProcess

pytestmark = pytest.mark.long
REST = "/v2/models/texts/infer"


def test_a_body_slower_than_the_least_rate_is_given_up_and_one_that_is_not_is_served(tmp_path: Path) -> None:
    models.identity(tmp_path / "registry", "BYTES", ["n"], "texts")
    with ServerProcess(tmp_path / "registry", "--min-body-rate", "1000") as server, wire.connect(server.port) as slow, wire.connect(server.port) as fine:
        sent = faults.request(REST, faults.rest_body("x", "BYTES", [1], ["x" * 30_000]))
        for number in range(30):
            with contextlib.suppress(ConnectionError):
                slow.sendall(sent[number * 100 : number * 100 + 100])
            fine.sendall(sent[number * 1500 : number * 1500 + 1500])
            time.sleep(0.5)
        assert slow.makefile("rb").readline().startswith(b"HTTP/1.1 408 ")
        assert wire.read_answer(fine.makefile("rb"))[0] == 200
