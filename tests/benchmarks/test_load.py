import itertools

import load
import pytest
from load import Point, Run, quietest
from processes import Usage, others

H2LOAD = """finished in 1.97s, 101522.84 req/s, 7.45MB/s
requests: 200000 total, 200000 started, 200000 done, {succeeded} succeeded, 0 failed, 0 errored, 0 timeout
traffic: 14.69MB (15400410) total, 1.72MB (1800190) headers (space savings 90.00%), {data} data
"""
WRK = "  2 threads\nRESULT requests=1000 duration_us=2000000 p50_us=300 p99_us=620 p999_us=900 non2xx={non2xx} errors={errors}\n"


def run(others=0.0, cpu_us=1.0):
    return Run(cpu_us, 1.0, others)


def test_h2load_tells_its_rate():
    assert load.h2load_rate(H2LOAD.format(succeeded=200000, data="12.2MB (12800000)"), 200000, 32) == 101522.84


@pytest.mark.parametrize(("succeeded", "data"), [(199999, "12.2MB (12800000)"), (200000, "6.1MB (6399999)"), (200000, "0B (0)")])
def test_h2load_with_failures_or_without_data_is_an_error(succeeded, data):
    with pytest.raises(RuntimeError):
        load.h2load_rate(H2LOAD.format(succeeded=succeeded, data=data), 200000, 32)


def test_wrk_tells_requests_and_latencies():
    result = load.wrk_result(WRK.format(non2xx=0, errors=0))
    assert (result["requests"], result["duration_us"], result["p99_us"]) == (1000, 2e6, 620)


@pytest.mark.parametrize(("non2xx", "errors"), [(1, 0), (0, 1)])
def test_wrk_with_failures_is_an_error(non2xx, errors):
    with pytest.raises(RuntimeError, match="not all succeeded"):
        load.wrk_result(WRK.format(non2xx=non2xx, errors=errors))


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 501), (0.99, 991), (0.999, 1000)])
def test_percentiles_are_values_that_were_seen(share, wanted):
    assert load.percentile(range(1, 1001), share) == wanted


def test_a_disturbed_run_is_repeated_until_a_quiet_one():
    runs = map(run, itertools.chain([0.5, 0.04, 0.01], itertools.repeat(0.0)))
    assert quietest(5, lambda: next(runs)).others == 0.01


def test_without_a_quiet_run_the_least_disturbed_one_is_kept_and_says_so():
    runs = map(run, [0.5, 0.04, 0.2])
    kept = quietest(3, lambda: next(runs))
    assert (kept.others, kept.quiet) == (0.04, False)


def test_medians_are_taken_figure_by_figure():
    assert load.median([Run(3, 10, 0), Run(1, 30, 0.02), Run(2, 20, 0.01)]) == Run(2, 20, 0.01)


def test_a_run_is_held_against_the_one_beside_it_and_not_against_that_of_other_seconds():
    ours, theirs = ([Run(1, 1, 0, p50_us=one) for one in some] for some in ((102, 102, 204, 204, 100), (100, 100, 200, 200, 200)))
    assert load.ratio_beside(ours, theirs) == pytest.approx(1.02)
    assert load.ratio_beside([], theirs) == 0


def test_a_disturbed_run_does_not_count_beside_quiet_ones():
    assert load.median([run(0.5, 9.0), run(0.0, 1.0), run(0.0, 3.0)]).cpu_us == 2.0
    assert load.median([run(0.5, 9.0), run(0.4, 1.0), run(0.6, 3.0)]).cpu_us == 3.0


def test_in_flight_counts_streams_of_all_connections():
    assert Point("grpc32", "h2load", "unary.grpc", "/", connections=4, streams=8).in_flight == 32


def test_others_are_what_neither_server_nor_client_used():
    before = Usage(clock=100.0, machine=50.0, server=10.0, client=5.0)
    after = Usage(clock=102.0, machine=53.4, server=12.0, client=6.0)
    assert others(before, after, cores=2) == pytest.approx(0.4 / 4)


def test_others_are_never_less_than_nothing():
    before, after = Usage(0.0, 0.0, 0.0, 0.0), Usage(1.0, 1.0, 0.6, 0.5)
    assert others(before, after, cores=2) == 0.0
