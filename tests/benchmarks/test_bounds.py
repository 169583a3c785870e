import bounds
import pytest
from bounds import OURS, Promise, judge, needed

YARDSTICKS = {
    ("floor_h2", "grpc1"): 20.0, ("floor_h2", "grpc8"): 8.0, ("floor_h2", "grpc32"): 6.0, ("floor_h2", "grpc128"): 4.0,
    ("floor_h2", "grpc-each32"): 12.0, ("floor", "rest-binary32"): 7.0, ("grpcio_echo", "grpc32"): 150.0, ("baseline_grpcio", "grpc32"): 210.0,
    ("onnxruntime", "row1"): 3.0, ("onnxruntime", "row8"): 0.6, ("onnxruntime", "row32"): 0.3,
}


def limits(point):
    return [promise.limit for promise in judge({**YARDSTICKS, (OURS, point): 1.0}, {}) if promise.point == point]


@pytest.mark.parametrize(("point", "wanted"), [
    ("grpc1", [1.3 * 20 + 3]),
    ("grpc8", [1.75 * 8 + 0.6]),
    ("grpc32", [1.75 * 6 + 0.6, 150 / 25, 210 / 30]),
    ("grpc128", [1.75 * 4 + 0.6]),
    ("grpc-each32", [1.5 * 12 + 0.6]),
    ("stream500", [6 / 3 + 0.3]),
    ("rest-binary32", [2 * 7 + 0.6]),
    ("rest-json32", [3 * 7 + 0.6]),
    ("rest-binary128", []),
])
def test_a_limit_is_the_weighted_sum_of_its_yardsticks(point, wanted):
    assert limits(point) == pytest.approx(wanted)


def test_a_promise_without_its_yardstick_is_not_judged():
    assert judge({(OURS, "grpc32"): 5.0, ("grpcio_echo", "grpc32"): 150.0}, {}) == [Promise("grpc32", "U(32) / 25", 5.0, 6.0)]


def test_a_point_needs_the_yardsticks_of_its_bounds_and_no_more():
    assert needed(["rest-json32"], baseline=False) == {(OURS, "rest-json32"), ("floor", "rest-binary32"), ("onnxruntime", "row8")}
    assert (bounds.BASELINE, "grpc32") not in needed(["grpc32"], baseline=False)
    assert (bounds.BASELINE, "grpc32") in needed(["grpc32"], baseline=True)


def test_the_spread_of_latencies_is_promised_where_the_cost_is():
    assert [promise.point for promise in judge({}, {"grpc8": 2.0, "rest-binary128": 9.0})] == ["grpc8"]
    assert [promise.kept for promise in judge({}, {"grpc8": 4.1})] == [False]


def test_heavy_models_may_lose_three_hundredths():
    assert bounds.heavy("resnet", 97.0, 100.0).kept
    assert not bounds.heavy("resnet", 96.9, 100.0).kept


def test_the_tail_may_double_or_be_a_millisecond():
    assert bounds.tail(busy_us=999.0, idle_us=100.0).kept
    assert bounds.tail(busy_us=1800.0, idle_us=900.0).kept
    assert not bounds.tail(busy_us=1801.0, idle_us=900.0).kept


def test_a_start_may_take_as_long_as_the_imports_of_others():
    assert [promise.kept for promise in bounds.startup(0.20, 90.0, 0.20)] == [True, True]
    assert [promise.kept for promise in bounds.startup(0.21, 90.1, 0.20)] == [False, False]


def test_instruments_may_take_a_fiftieth_of_the_floor():
    assert bounds.instruments("rest-binary32", 0.10, 5.0).kept
    assert not bounds.instruments("rest-binary32", 0.11, 5.0).kept


def test_many_models_may_cost_what_is_written_and_no_more():
    fine = dict(bounds.MANY)
    assert all(promise.kept for promise in bounds.many_models(fine, 1.1, 2000.0, 1000.0))
    assert not any(promise.kept for promise in bounds.many_models({name: most * 1.01 for name, most in fine.items()}, 1.11, 1001.0, 400.0))


def test_version_changes_may_lose_nothing_and_leave_nothing():
    fine = {"failed": 0, "of a wrong version": 0, "leases": 0, "more MiB": 20.0, "more descriptors": 0, "more threads": 0}
    assert all(promise.kept for promise in bounds.changes(fine, {"gRPC": 1.5}))
    assert not any(promise.kept for promise in bounds.changes({name: most + 1 for name, most in fine.items()}, {"gRPC": 1.51}))


def test_figures_agree_when_counts_are_the_same_and_latencies_but_for_the_transport():
    assert [promise.kept for promise in bounds.agreement({"ok": (5, 5)}, {"p50": (1100.0, 100.0, 951.0)})] == [True, True]
    assert [promise.kept for promise in bounds.agreement({"ok": (5, 4)}, {"p50": (1100.0, 100.0, 949.0)})] == [False, False]


def test_the_one_knob_has_at_least_the_goodput_of_the_best_grid_setting():
    assert bounds.one_knob("mlp", 100.0, 100.0).kept
    assert not bounds.one_knob("mlp", 99.9, 100.0).kept


def test_a_lone_request_may_take_a_twentieth_more_than_without_batching():
    assert bounds.lone("mlp", "default", 1.05).kept
    assert not bounds.lone("mlp", "default", 1.051).kept


def test_mixed_lengths_bring_half_as_much_again_as_the_timer():
    assert bounds.mixed_lengths("encoder2", "goodput", 150.0, 100.0).kept
    assert not bounds.mixed_lengths("encoder2", "goodput", 149.0, 100.0).kept


def test_an_overload_may_cost_what_is_written_and_no_more():
    fine = dict(bounds.OVERLOAD)
    assert all(promise.kept for promise in bounds.overload("mlp", 0.9, fine))
    assert not any(promise.kept for promise in bounds.overload("mlp", 0.899, {name: most * 1.01 for name, most in fine.items()}))
    assert [bounds.overload_memory("mlp", mib).kept for mib in (20.0, 20.1)] == [True, False]


def test_where_a_server_of_the_lowest_price_has_less_left_nearly_that_is_promised():
    assert bounds.left_by_reading(10, 0.01) == pytest.approx(0.9 / 0.99)
    assert [bounds.left_by_reading(*case) for case in [(1, 0.5), (10, 0.1), (20, 0.1), (2, 1.0)]] == [1.0, 0.0, 0.0, 0.0]
    kept = [[promise.kept for promise in bounds.overload("mlp", goodput, {}, left)]
            for goodput, left in [(0.9, 0.95), (0.899, 0.95), (0.761, 0.8), (0.759, 0.8)]]
    assert kept == [[True], [False], [True], [False]]


def test_a_neighbour_may_cost_twice_the_own_p99_and_a_batch():
    assert [promise.kept for promise in bounds.neighbour("mlp", 14.0, 2.0, 10.0, 0.0)] == [True, True]
    assert [promise.kept for promise in bounds.neighbour("mlp", 14.1, 2.0, 10.0, 0.001)] == [False, False]


def test_poison_harms_nobody_and_costs_less_than_a_third():
    assert [promise.kept for promise in bounds.poison(70.0, 100.0, 0)] == [True, True]
    assert [promise.kept for promise in bounds.poison(69.9, 100.0, 1)] == [False, False]


def test_good_versions_may_be_rolled_back_as_often_as_declared_and_every_bad_one_must_be():
    promises = bounds.rollouts({"equal": 0.05, "better": 0.06, "slow": 1.0, "wrong": 0.99}, {"equal", "better"}, 0.05)
    assert {promise.point: promise.kept for promise in promises} == {"equal": True, "better": False, "slow": True, "wrong": False}
