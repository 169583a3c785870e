"""What is done over and over: at once or later, again after each end, and on after a fault."""

import asyncio
import contextlib

import pytest

from batchmill.periodic import every

LONG = 3600.0


def acts(seconds, act, **options):
    """Runs it until it is cancelled, or for a few turns of the loop."""

    async def run():
        task = asyncio.create_task(every(seconds, act, "look", **options))
        for _ in range(20):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())


@pytest.mark.parametrize(("options", "wanted"), [({}, 1), ({"at_once": False}, 0)])
def test_the_first_is_at_once_unless_it_is_to_wait(options, wanted):
    times = []
    acts(LONG, lambda: times.append(0), **options)
    assert len(times) == wanted


def test_a_fault_is_told_and_the_next_one_is_taken(caplog):
    outcomes = iter([ValueError("one"), None, ValueError("two")])
    seen = []

    def act():
        seen.append(outcome := next(outcomes, None))
        if outcome:
            raise outcome

    acts(0, act)
    assert len(seen) > 3
    assert [record.getMessage() for record in caplog.records] == ["look_fault"] * 2


def test_one_that_takes_its_time_is_waited_for():
    seen = []

    async def act():
        seen.append("begins")
        await asyncio.sleep(0)
        seen.append("ends")

    acts(0, act)
    assert seen[:4] == ["begins", "ends"] * 2
