"""For how long an I/O thread leaves its sockets alone after it has turned callers away."""

import pytest

from batchmill.core.probe import rests

MS = 1_000_000
ONE, OTHER = 1, 2


def turned_away(wait_ms, version=ONE):
    return version, wait_ms * MS, 0


def let_in(left_ms=0, version=ONE):
    return version, None, left_ms * MS


def rest_ms(asked, requests=1, busy=True, period_ms=1000):
    (_, (rest_ns, _)) = rests([(1000 * MS, 1000 * MS, 0, busy, []), ((1000 + period_ms) * MS, (1000 + period_ms) * MS, requests, busy, asked)])
    return rest_ns / MS


@pytest.mark.parametrize(("asked", "expected"), [
    ([], 0),
    ([let_in()], 0),                            # nobody is turned away
    ([turned_away(2000)], 15),
    ([turned_away(48)], 8),                     # short beside the queue, which must not run empty
    ([turned_away(48), turned_away(24)], 4),    # the shorter one
    ([turned_away(48), let_in(24)], 4),         # who is in a hurry
    ([turned_away(48), let_in(0)], 8),          # has no deadline
])
def test_the_rest_is_short_beside_the_wait_and_the_time_that_others_have(asked, expected):
    assert rest_ms(asked) == expected


def test_where_an_executor_has_nothing_to_do_there_is_no_rest():
    assert rest_ms([turned_away(2000)], busy=False) == 0


@pytest.mark.parametrize(("requests", "period_ms", "expected"), [(1, 1, 15), (32, 1, 8), (64, 1, 4), (255, 127, 15), (256, 1000, 0), (1000, 1000, 0)])
def test_it_ends_where_some_hundred_have_come_as_fast_as_they_did_last(requests, period_ms, expected):
    assert rest_ms([turned_away(2000)], requests, period_ms=period_ms) == pytest.approx(expected, rel=0.02)


def test_callers_of_another_version_do_not_pay_for_it_for_a_while():
    turns = [(at * MS, at * MS, 1, True, [turned_away(2000), *extra]) for at, extra in [
        (1000, [let_in(version=OTHER)]), (1050, []), (1101, []), (1102, [let_in(version=ONE)])]]
    assert [rest / MS for rest, _ in rests(turns)] == [0.5, 0.5, 15, 15]


def test_what_is_read_after_a_rest_may_have_come_at_its_beginning():
    turns = [(at * MS, at * MS + MS // 2, 1, True, asked) for at, asked in [(1000, [turned_away(2000)]), (1006, []), (1010, [])]]
    assert [rested / MS for _, rested in rests(turns)] == [0, 6, 0]
