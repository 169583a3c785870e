"""How many runs at once, and how many threads each."""

import pytest

from batchmill.registry.parallel import Measured, Threads, choose, told

MS = 1e6


def at(rows, narrow_ms, narrow_rate, wide_ms, wide_rate):
    return Measured(rows, narrow_ms * MS, narrow_rate, wide_ms * MS, wide_rate)


@pytest.mark.parametrize(("measured", "latency_ms", "wide"), [
    ([at(1, 40, 50, 20, 50)], 0, True),
    ([at(1, 40, 100, 20, 95)], 0, True),  # as many within a twentieth
    ([at(1, 40, 100, 20, 94)], 0, False),
    ([at(1, 40, 50, 20, 60), at(8, 300, 53, 150, 54)], 0, True),
    ([at(1, 40, 50, 20, 60), at(8, 300, 53, 200, 40)], 0, False),  # at every size
    ([at(1, 40, 50, 20, 40), at(8, 300, 53, 150, 60)], 0, False),
    ([at(1, 40, 50, 20, 40)], 60, True),  # half of the objective is for the wait: only wide keeps it
    ([at(1, 40, 50, 20, 40)], 40, True),
    ([at(1, 40, 50, 20, 40)], 39, False),  # neither keeps it: then the most rows
    ([at(1, 40, 50, 20, 40)], 80, False),  # both do
])  # fmt: skip
def test_wide_where_it_costs_no_throughput_or_alone_keeps_the_objective(measured, latency_ms, wide):
    chosen = choose(measured, 4, latency_ms)
    assert (chosen.wide, chosen.count) == ((True, 4) if wide else (False, 1))


@pytest.mark.parametrize(("instances", "threads", "wanted"), [
    (2, choose([at(1, 40, 41.2, 30, 35)], 2), "2 instances x 1 thread: 41.2 rows/s beside 35 wide"),
    (1, choose([at(1, 40, 441, 20, 450)], 4), "1 instance x 4 threads: 450 rows/s beside 441 narrow"),
    (1, choose([at(1, 40, 50, 20, 40)], 4, 60), "1 instance x 4 threads: a run takes 20 ms beside 40 narrow, of 60 ms"),
    (2, Threads(), "2 instances x 1 thread"),
])  # fmt: skip
def test_it_is_told_with_the_figures_that_decided(instances, threads, wanted):
    assert told(instances, threads) == wanted
