"""A line of the log for each event, whatever is in it."""

import io
import json
import logging

import pytest

from batchmill import logs


@pytest.fixture
def stream():
    """What the log has written so far."""
    logger = logging.getLogger("batchmill")
    before = [*logger.handlers], logger.level, logger.propagate
    yield io.StringIO()
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.parametrize("value", ["plain", "two\nlines", "\u00e9", "\udcff", "\x1b[31m"])
def test_every_value_is_one_line_of_json(stream, value):
    logs.configure("info", "json", stream)
    logs.Log("batchmill.test").info("event_told", path=value)
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["path"] == value
