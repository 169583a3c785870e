"""What is measured at load and what is not, with a clock and sessions made up."""

import gc
import threading
import time
import weakref

import pytest

from batchmill.backends import Tuning
from batchmill.registry.settings import ModelSettings
from batchmill.registry.sweep import Case, Quiet, Sweep

MS = 1e6
DEFAULTS = ModelSettings()


class Clock(threading.local):
    """Each thread has its own: as if there were a core for each."""

    now = 0.0

    def __call__(self):
        return self.now


class Session:
    """A run takes so long for every row."""

    def __init__(self, clock, row_secs):
        self.inputs, self.outputs, self.memory_bytes = [("x", "FP32", [-1, 4], ["n", ""])], [], 0
        self.clock, self.row_secs, self.fed = clock, row_secs, []

    def run(self, feed, outputs=None):
        rows = feed["x"][1][0]
        self.fed.append(rows)
        self.clock.now += rows * self.row_secs
        return {}


class Memory(dict):
    measured = dict.get
    keep_measured = dict.__setitem__


class Loads:
    """Loads wide sessions."""

    def __init__(self, clock, row_secs):
        self.clock, self.row_secs, self.made, self.asked = clock, row_secs, [], []

    def __call__(self, intra_op_threads):
        self.asked.append(intra_op_threads)
        if self.row_secs is None:
            raise RuntimeError("no memory")
        session = Session(self.clock, self.row_secs)
        self.made.append(weakref.ref(session))
        return session


def settled(narrow_ms=40.0, wide_ms=30.0, *, wide_threads=2, busy=False, memory=None, settings=DEFAULTS, batched=True, loads=None, sweep=None,
            clock=None, warm_up_ms=None):
    """(what was settled, loads, memory) of a model whose rows take so long in a run with one thread and in a wide one."""
    clock, memory = clock or Clock(), Memory() if memory is None else memory
    loads = loads or Loads(clock, wide_ms and wide_ms / 1000)
    sweep = sweep or Sweep(2, wide_threads, memory, lambda: busy, clock)
    narrow = Session(clock, narrow_ms / 1000)
    with sweep.quiet.loading():
        model, threads, alone_ns = sweep.settle(Case("m/1 abc", narrow, settings, batched, (warm_up_ms or narrow_ms) * MS), loads)
    assert (model is narrow) != threads.wide
    return threads, alone_ns, loads, memory


def test_narrow_is_kept_and_the_wide_session_dropped_where_wide_serves_fewer_rows():
    threads, alone_ns, loads, _ = settled(40, 30)
    assert (threads.wide, threads.count, threads.why, alone_ns) == (False, 1, "50 rows/s beside 33.3 wide", 40 * MS)
    gc.collect()
    assert [session() for session in loads.made] == [None]


def test_wide_is_taken_where_it_serves_as_many_and_its_run_time_is_told():
    threads, alone_ns, loads, _ = settled(40, 20)
    assert (threads.wide, threads.count, threads.why) == (True, 2, "50 rows/s beside 50 narrow")
    assert alone_ns == pytest.approx(20 * MS)
    assert loads.asked == [0]


def test_an_objective_that_only_wide_keeps_decides():
    threads, *_ = settled(40, 30, settings=ModelSettings(tuning=Tuning(latency_ms=70)))
    assert threads.wide


def test_more_rows_are_measured_where_rows_share_batches_and_fit_into_the_time():
    sizes = {(batched, narrow_ms): [one.rows for one in next(iter(settled(narrow_ms, 3, batched=batched)[3].values()))]
             for batched, narrow_ms in ((True, 4), (True, 20), (True, 40), (False, 4))}
    assert sizes == {(True, 4): [1, 8], (True, 20): [1, 2], (True, 40): [1], (False, 4): [1]}


@pytest.mark.parametrize(("options", "why"), [
    ({"narrow_ms": 1.9}, "a run takes 1.9 ms"),
    ({"narrow_ms": 1001}, "a run takes 1001 ms"),
    ({"narrow_ms": 0}, "not measured: it was not warmed up"),
    ({"busy": True}, "not measured: the server is busy"),
    ({"wide_threads": 1}, ""),
    ({"settings": ModelSettings(intra_op_threads=1)}, ""),
    ({"settings": ModelSettings(execution_providers=("CUDAExecutionProvider",))}, ""),
])  # fmt: skip
def test_nothing_is_loaded_or_measured_where_nothing_is_to_be_gained_or_disturbed(options, why):
    threads, _, loads, memory = settled(**options)
    assert (threads.wide, threads.count, threads.why, loads.asked, memory) == (False, 1, why, [], {})


def test_a_small_model_stays_narrow_though_its_warm_up_was_disturbed_and_wide_seemed_as_fast():
    threads, alone_ns, *_ = settled(0.5, 0.1, warm_up_ms=3)
    assert (threads.wide, threads.why) == (False, "a run takes 0.5 ms")
    assert alone_ns == pytest.approx(0.5 * MS)


def test_threads_that_are_asked_for_are_what_is_told():
    assert settled(settings=ModelSettings(intra_op_threads=3))[0].count == 3


@pytest.mark.parametrize("wide_ms", [20, 30])
def test_what_was_measured_before_is_taken_at_once_though_the_server_is_busy(wide_ms):
    before, _, _, memory = settled(40, wide_ms)
    again, _, loads, _ = settled(40, wide_ms, memory=memory, busy=True)
    assert again == before
    assert loads.asked == [0] * before.wide


def test_a_wide_session_that_cannot_be_had_leaves_it_narrow():
    threads, *_ = settled(wide_ms=None)
    assert threads.why == "not measured: no memory"


def test_a_start_ends_measuring_after_its_time_and_a_load_later_does_not():
    clock, memory = Clock(), Memory()
    sweep = Sweep(2, 2, memory, lambda: False, clock)
    loads = Loads(clock, 0.6)

    def why():
        memory.clear()
        return settled(1000, sweep=sweep, loads=loads, memory=memory, clock=clock)[0].why

    found = [why() for _ in range(10)]
    measured = sum(one.endswith("wide") for one in found)
    assert 3 <= measured < 10
    assert found[measured:] == ["not measured: all models of a start have 5 s for it"] * (10 - measured)
    sweep.starting = False
    assert why().endswith("wide")


def test_a_thousand_small_models_cost_a_start_nothing():
    clock = Clock()
    sweep, loads, began = Sweep(2, 2, Memory(), lambda: False, clock), Loads(clock, 1), time.monotonic()
    for _ in range(1000):
        settled(0.05, sweep=sweep, loads=loads, clock=clock)
    assert (loads.asked, clock.now) == ([], 0)
    assert time.monotonic() - began < 1


def test_who_measures_is_alone_and_the_others_go_on_after():
    quiet, order = Quiet(), []
    loading, measuring = threading.Event(), threading.Event()

    def other():
        with quiet.loading():
            loading.set()
            measuring.wait(10)
            order.append("loaded")
        with quiet.loading():
            order.append("loads again")

    thread = threading.Thread(target=other)
    thread.start()
    loading.wait(10)
    with quiet.loading():
        with quiet.alone(0) as alone:
            assert not alone
        measuring.set()
        with quiet.alone(10) as alone:
            assert alone
            order.append("measured")
    thread.join(10)
    assert order[0] == "loaded"
    assert sorted(order[1:]) == ["loads again", "measured"]


def test_two_that_would_measure_take_turns():
    quiet, inside, seen = Quiet(), [], []

    def one():
        with quiet.loading(), quiet.alone(10) as alone:
            inside.append(1)
            seen.append((alone, len(inside)))
            time.sleep(0.01)
            inside.pop()

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen == [(True, 1)] * 4
