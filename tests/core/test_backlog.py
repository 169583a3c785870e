"""How far a socket's reader is behind what comes, and who is refused for it."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import probe

MS = 1_000_000
CHUNK = 32 << 10


def flooded(arriving, served, steps, step_ns=MS):
    """Bytes come and are read at two rates (bytes/ms). (bytes read, bytes left, now_ns), and how long the first that was read had waited."""
    waiting, reads, ages = deque(), [(0, 0, MS)], [0]
    for now_ns in range(2 * MS, 2 * MS + steps * step_ns, step_ns):
        waiting.append([now_ns - step_ns // 2, arriving])
        first, read = waiting[0][0], 0
        while waiting and read < served:
            part = min(served - read, waiting[0][1])
            read += part
            waiting[0][1] -= part
            if not waiting[0][1]:
                waiting.popleft()
        reads.append((read, sum(size for _, size in waiting), now_ns))
        ages.append(now_ns - first if waiting else 0)
    return reads, ages


@pytest.mark.parametrize(("arriving", "served"), [(2 * CHUNK, CHUNK), (CHUNK + CHUNK // 4, CHUNK), (10 * CHUNK, CHUNK)])
def test_the_age_of_what_is_read_is_told_by_what_has_come_since(arriving, served):
    reads, ages = flooded(arriving, served, 200)
    found = probe.ages(reads)
    assert found[50:] == pytest.approx(ages[50:], rel=0.1, abs=2 * MS)


def test_a_socket_that_is_drained_is_not_behind():
    assert probe.ages([(CHUNK, 5 * CHUNK, MS), (CHUNK, 4 * CHUNK, 2 * MS), (100, 0, 3 * MS), (CHUNK, CHUNK, 4 * MS)])[2:] == [0, MS]


@given(st.lists(st.tuples(st.integers(0, CHUNK), st.integers(0, 1 << 40), st.integers(0, 1 << 40)), max_size=50))
def test_nothing_is_older_than_the_last_time_all_was_read(steps):
    now_ns, drained_ns, reads, longest = 1, 0, [], []
    for read, waiting, passed in steps:
        now_ns += passed
        drained_ns = drained_ns if waiting else now_ns
        reads.append((read, waiting, now_ns))
        longest.append(now_ns - drained_ns if drained_ns else 0)
    assert all(0 <= age <= most for age, most in zip(probe.ages(reads), longest, strict=True))


@pytest.mark.parametrize(("behind_ms", "left_ms", "max_wait_ms", "expected"), [
    (0, 1, 1, ""),                          # read at once: the queue decides
    (30, 70, 0, ""),
    (40, 60, 0, "DEADLINE_UNMEETABLE"),     # a third of the time is gone: so it would go on
    (1999, None, 2000, ""),
    (2001, None, 2000, "QUEUE_FULL"),
    (9999, None, 0, ""),
])
def test_who_was_read_late_is_refused_while_there_is_time_to_go_elsewhere(behind_ms, left_ms, max_wait_ms, expected):
    now_ns = 10**12
    assert probe.behind(behind_ms * MS, now_ns, now_ns + left_ms * MS if left_ms else 0, max_wait_ms * MS) == expected
