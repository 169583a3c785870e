"""How far a socket's reader is behind what comes, and who is refused for it."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import probe

MS = 1_000_000
CHUNK = 32 << 10


def flooded(arriving, served, steps, step_ns=MS):
    """Bytes come and are read at two rates (bytes/ms). (socket, bytes read, bytes left, now_ns), and how long the first that was read had waited."""
    waiting, reads, ages = deque(), [(0, 0, 0, MS)], [0]
    for now_ns in range(2 * MS, 2 * MS + steps * step_ns, step_ns):
        waiting.append([now_ns - step_ns // 2, arriving])
        first, read = waiting[0][0], 0
        while waiting and read < served:
            part = min(served - read, waiting[0][1])
            read += part
            waiting[0][1] -= part
            if not waiting[0][1]:
                waiting.popleft()
        reads.append((0, read, sum(size for _, size in waiting), now_ns))
        ages.append(now_ns - first if waiting else 0)
    return reads, ages


@pytest.mark.parametrize(("arriving", "served"), [(2 * CHUNK, CHUNK), (CHUNK + CHUNK // 4, CHUNK), (10 * CHUNK, CHUNK)])
def test_the_age_of_what_is_read_is_told_by_what_has_come_since(arriving, served):
    reads, ages = flooded(arriving, served, 200)
    found = [first for first, _ in probe.ages(reads)]
    assert found[50:] == pytest.approx(ages[50:], rel=0.1, abs=2 * MS)


def rounds(sockets, count):
    """Each socket is read once in a round, a ms after the one before it, and is empty then."""
    return [(socket, 100, 0, (1 + turn * sockets + socket) * MS) for turn in range(count) for socket in range(sockets)]


def test_where_sockets_take_turns_the_first_byte_of_each_has_waited_for_a_round_and_the_last_for_nothing():
    found = probe.ages(rounds(16, 20))
    assert found[-16:] == [(16 * MS, 0)] * 16


def test_who_was_quiet_for_long_has_waited_for_a_round_at_most():
    busy = rounds(16, 20)
    now_ns = busy[-1][-1] + 10**12
    seldom = [(16, 100, 0, now_ns + turn * 10**12 + MS) for turn in range(10)]
    told = probe.ages([(16, 0, 0, 1), *busy, *sorted([(*one[:3], one[3] + now_ns + turn * 10**12) for turn in range(10) for one in busy] + seldom, key=lambda one: one[3])])
    assert max(first for first, _ in told[-200:]) < 20 * MS


def test_who_was_quiet_and_sends_much_at_once_has_waited_since_a_round_before_it_was_found():
    """Though little came on average."""
    busy = rounds(16, 20)
    now_ns = busy[-1][-1] + 10**12
    burst = [(16, CHUNK, 4 * CHUNK, now_ns), (16, CHUNK, 3 * CHUNK, now_ns + 16 * MS), (16, CHUNK, 0, now_ns + 32 * MS)]
    found = probe.ages([(16, 0, 0, 1), *busy, *burst])[-3:]
    assert [first // MS for first, _ in found] == pytest.approx([16, 32, 48], abs=2)


def test_what_is_left_to_read_is_the_age_of_the_last_byte():
    reads, _ = flooded(2 * CHUNK, CHUNK, 100)
    (first, last), (_, read, waiting, _) = probe.ages(reads)[-1], reads[-1]
    assert last == pytest.approx(first * waiting / (read + waiting), rel=0.01)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, CHUNK), st.integers(0, 1 << 40), st.integers(0, 1 << 40)), max_size=50))
def test_nothing_is_older_than_the_last_time_all_was_read(steps):
    now_ns, drained_ns, reads, longest = 1, {}, [], []
    for socket, read, waiting, passed in steps:
        now_ns += passed
        reads.append((socket, read, waiting, now_ns))
        longest.append(now_ns - drained_ns[socket] if socket in drained_ns else now_ns)
        if not waiting:
            drained_ns[socket] = now_ns
    assert all(0 <= last <= first <= most for (first, last), most in zip(probe.ages(reads), longest, strict=True))


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


@pytest.mark.parametrize(("behind_ms", "expected"), [(66, ""), (67, "DEADLINE_UNMEETABLE")])
def test_who_has_waited_for_a_round_only_is_refused_when_two_thirds_of_his_time_are_gone(behind_ms, expected):
    now_ns = 10**12
    assert probe.behind(behind_ms * MS, now_ns, now_ns + (100 - behind_ms) * MS, 0, keeps_up=True) == expected
