"""The pacer: only where the kernel says that a thread waits for its core is there one more thread, and it rests again."""

import os
import time

import pytest

from batchmill.core.probe import Pacer

MS, SECOND = 10**6, 10**9


def threads():
    return set(os.listdir("/proc/self/task"))


@pytest.fixture
def account(tmp_path):
    """Writes how long the kernel says that the thread has waited."""
    path = tmp_path / "schedstat"

    def write(waited_ns, ran_ns=0, runs=42):
        path.write_text(f"{ran_ns} {waited_ns} {runs}\n")
        return str(path)

    return write


def test_a_thread_that_waits_little_gets_no_pacing_thread(account):
    before, pacer = threads(), Pacer(account(0), 0)
    for turn in range(1, 20):
        account(waited_ns=turn * MS, ran_ns=turn * 90 * MS)      # 1% of the time, and not more
        assert not pacer.look(turn * 100 * MS)
    assert threads() == before


def paced(account):
    """A pacer that has seen its thread wait: (it, when it was made, the pacing thread)."""
    before, start = threads(), time.monotonic_ns()
    pacer = Pacer(account(0), start)
    account(waited_ns=2 * MS, ran_ns=40 * MS)
    assert pacer.look(start + 100 * MS)
    (made,) = threads() - before
    return pacer, start, made


def rested(made, start):
    """The switches of a pacing thread that was last needed 100 ms after the start, when it is found to rest."""
    wait_for(lambda: time.monotonic_ns() > start + 1200 * MS)
    count = switches(made)
    time.sleep(0.1)
    assert switches(made) - count <= 1
    return count


def test_a_thread_that_waits_is_paced_on_its_core_until_it_has_not_waited_for_a_second(account):
    before = threads()
    pacer, start, made = paced(account)
    wait_for(lambda: switches(made) >= 20)      # it wakes, and sleeps again
    assert len(os.sched_getaffinity(int(made))) == 1
    count = rested(made, start)
    assert 500 < count < 3000

    account(waited_ns=500 * MS, ran_ns=500 * MS)
    pacer.look(time.monotonic_ns())
    wait_for(lambda: switches(made) >= count + 20)
    assert threads() - before == {made}
    del pacer
    assert threads() == before


def test_the_time_that_the_pacing_thread_takes_is_no_reason_to_go_on_pacing(account):
    pacer, start, made = paced(account)
    for turn in range(2, 12):
        wait_for(lambda until=start + turn * 100 * MS: time.monotonic_ns() > until)
        with open(f"/proc/self/task/{made}/schedstat") as stat:
            took_ns = int(stat.read().split()[0])
        account(waited_ns=2 * MS + 10 * took_ns // 11, ran_ns=turn * 90 * MS)
        pacer.look(time.monotonic_ns())
    assert took_ns > 0
    rested(made, start)


def test_a_thread_that_is_woken_often_may_wait_a_microsecond_each_time(account):
    pacer = Pacer(account(0, runs=0), 0)
    account(waited_ns=10 * MS, ran_ns=50 * MS, runs=10_000)
    assert not pacer.look(100 * MS)
    account(waited_ns=22 * MS, ran_ns=100 * MS, runs=20_000)
    assert pacer.look(200 * MS)


def test_a_thread_that_sleeps_most_of_the_time_gets_none_however_long_it_waits(account):
    before, pacer = threads(), Pacer(account(0), 0)
    for turn in range(1, 20):
        account(waited_ns=turn * 50 * MS, ran_ns=turn * 33 * MS)
        assert not pacer.look(turn * 100 * MS)
    assert threads() == before


def test_without_an_account_nothing_is_paced(tmp_path):
    path = tmp_path / "schedstat"
    path.write_text("")
    before, pacer = threads(), Pacer(str(path), 0)
    assert not pacer.look(100 * MS)
    assert threads() == before


def switches(thread):
    with open(f"/proc/self/task/{thread}/status") as status:
        return int(status.read().split("\nvoluntary_ctxt_switches:")[1].split()[0])


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
