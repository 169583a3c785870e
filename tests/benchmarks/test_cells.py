import cells
import numpy as np
import open_loop
import pytest
from cells import Cell, carried, median, search
from open_loop import Outcome


def outcome(offered, goodput, **figures):
    names = dict.fromkeys(Outcome.__dataclass_fields__, 0.0)
    return Outcome(**{**names, "offered": offered, "goodput": goodput, **figures})


def carrying(capacity):
    """A server that answers so many a second in time, and none of what is more."""
    return lambda rate: Cell(rate, outcome(rate, min(rate, capacity)), 0.0, False)


@pytest.mark.parametrize("start", [10.0, 990.0, 40_000.0])
def test_a_search_comes_close_to_what_is_carried_from_wherever_it_starts(start):
    found = carried(search(carrying(1000), start, steps=5))
    assert 1000 / 2 ** (1 / 32) <= found <= 1000 / 0.99


def test_a_search_asks_no_more_than_the_generator_is_good_for():
    asked = search(carrying(1e9), 100_000.0, steps=5, most=250_000.0)
    assert [cell.rate for cell in asked] == [100_000.0, 200_000.0, 250_000.0]


def test_a_server_that_carries_nothing_ends_the_search():
    asked = search(carrying(0), 1000.0, steps=5)
    assert carried(asked) == 0
    assert len(asked) == cells.DOUBLINGS + 1


def test_nearly_all_good_is_not_carried():
    assert Cell(100, outcome(100, 99), 0.0, False).carried
    assert not Cell(100, outcome(100, 98.9), 0.0, False).carried


def test_a_cell_is_disturbed_by_others_and_by_a_slow_generator():
    assert Cell(1, outcome(1, 1), 0.0, False).quiet
    assert not Cell(1, outcome(1, 1), 0.05, False).quiet
    assert not Cell(1, outcome(1, 1), 0.0, True).quiet


def test_a_disturbed_cell_does_not_count_beside_quiet_ones():
    quiet, disturbed = Cell(1, outcome(9, 9), 0.0, False), Cell(1, outcome(9, 1), 0.5, False)
    assert median([quiet, disturbed, disturbed]).goodput == 9
    assert median([disturbed, disturbed]).goodput == 1


def run_of(others, lag_ms):
    results = np.zeros(10, open_loop.RESULT)
    results["taken_ns"] = lag_ms * 1e6
    return open_loop.Load(results, 0, 0.0, 0, 0, 0.0, others), others


def test_a_disturbed_run_is_repeated_and_the_least_disturbed_is_kept():
    runs = iter([run_of(0.5, 0), run_of(0.0, 2), run_of(0.01, 0), run_of(0.0, 0)])
    assert cells.least_disturbed(5, 10.0, lambda: next(runs))[1] == 0.01
    runs = iter([run_of(0.0, 2), run_of(0.4, 0), run_of(0.3, 0)])
    assert cells.least_disturbed(3, 10.0, lambda: next(runs))[1] == 0.3


def test_a_mark_says_what_disturbed_a_run():
    assert [cells.mark(run_of(*case)[0], 10.0).strip() for case in ((0.0, 0), (0.5, 0), (0.5, 2))] == ["", "DISTURBED", "GENERATOR TOO SLOW"]
