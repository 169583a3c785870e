"""The runtime's messages: all that are few, some of those that are many, and the rest counted."""

from __future__ import annotations

import logging

from batchmill.observe.runtime_log import BURST, RuntimeLog


def told(caplog, periods):
    """(message, suppressed) of what is logged; periods: what take() returns, one call after the other."""
    waiting = iter(periods)
    log = RuntimeLog(lambda: next(waiting))
    with caplog.at_level(logging.WARNING, "batchmill"):
        for _ in periods:
            log.tell()
    return [(record.fields["message"], record.fields.get("suppressed", 0)) for record in caplog.records]


def test_few_messages_are_all_told(caplog):
    assert told(caplog, [(["a", "b"], 0), ([], 0), (["c"], 0)]) == [("a", 0), ("b", 0), ("c", 0)]


def test_after_a_burst_one_message_a_period_is_told_and_the_others_are_counted(caplog):
    flood = [f"m{number}" for number in range(30)]
    lines = told(caplog, [(flood, 5), (["x", "y"], 0), (["z"], 0)])
    assert lines == [(f"m{number}", 0) for number in range(BURST)] + [("x", 30 + 5 - BURST), ("z", 1)]


def test_a_burst_is_possible_again_after_a_quiet_time(caplog):
    flood = [str(number) for number in range(BURST)]
    assert len(told(caplog, [(flood, 0)] + [([], 0)] * BURST + [(flood, 0)])) == 2 * BURST
