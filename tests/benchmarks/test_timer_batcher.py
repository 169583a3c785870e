import asyncio

import limit
import models
import numpy as np
import pytest
from timer_batcher import TimerBatcher

NEVER_US = 3600e6


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return limit.session_of(models.write(tmp_path_factory.mktemp("models"), "encoder2"))


def finished(session, max_batch_size, delay_us, lengths, passes=20):
    """Which of the requests, of so many tokens each, are answered after some turns of the event loop; the answers are checked."""
    async def ask_all():
        batcher = TimerBatcher(session, max_batch_size, delay_us)
        rows = [models.row("encoder2", tokens) for tokens in lengths]
        asked = [asyncio.ensure_future(batcher.infer(row)) for row in rows]
        for _ in range(passes):
            await asyncio.sleep(0)
        done = [task.done() for task in asked]
        for row, task in zip(rows, asked, strict=True):
            if task.done():
                np.testing.assert_allclose(task.result()["embedding"], session.run(None, row)[0], rtol=1e-3, atol=1e-5)
            task.cancel()
        return done

    return asyncio.run(ask_all())


def test_a_batch_that_is_not_full_waits_for_its_timer(session):
    assert finished(session, 4, NEVER_US, [8, 8, 8]) == [False] * 3


def test_a_full_batch_runs_at_once(session):
    assert finished(session, 2, NEVER_US, [8, 8, 8]) == [True, True, False]


def test_a_request_of_another_shape_makes_the_batch_run(session):
    assert finished(session, 4, NEVER_US, [8, 8, 16]) == [True, True, False]


def test_without_batching_nothing_waits(session):
    assert finished(session, 1, NEVER_US, [8, 16, 8]) == [True] * 3


def test_a_timer_that_has_passed_makes_the_batch_run(session):
    assert finished(session, 4, 0, [8, 8]) == [True, True]
