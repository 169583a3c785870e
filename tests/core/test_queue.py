"""The queue against a list."""

from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import policy_probe
from reference import queue as reference
from reference.admission import Terms
from reference.predictor import KNOTS, Curve

ROWS, SHAPES, TIMES = st.integers(0, 9), st.sampled_from([(), (3,), (4,), (3, 2)]), st.integers(0, 20)
DEADLINES = TIMES | st.just(0) | st.integers(2 * 10**9, 2 * 10**9 + 20)     # some about as late as that of those who have none
PUT = st.tuples(st.just("put"), ROWS, SHAPES, st.integers(1, 20), DEADLINES, st.integers(0, 5), st.sampled_from([None, 0, 3]),
                TIMES | st.just(2 * 10**6))     # what the answer may be later than the start: None: nothing; when it comes
TAKE = st.tuples(st.just("take"), st.integers(1, 12), TIMES)
CANCEL = st.tuples(st.just("cancel"), st.integers(0, 30))
SWEEP = st.tuples(st.just("sweep"), TIMES)


def twins(max_rows, levels, default, delays, row_ns, max_wait_ns):
    """A queue and its twin, to whom every row of a run costs row_ns."""
    curve = Curve()
    for at in range(KNOTS if row_ns else 0):
        curve.learn(2**at, row_ns * 2**at)
    terms = Terms(curve, row_ns=row_ns, max_wait_ns=max_wait_ns)
    return policy_probe.Queue(max_rows, levels, default, delays, row_ns, max_wait_ns), reference.Queue(max_rows, levels, default, delays), terms


def numbers(requests):
    return [one.number for one in requests]


@given(st.integers(1, 40), st.integers(0, 3), st.integers(1, 3), st.booleans(), st.integers(0, 4), st.sampled_from([0, 30]),
       st.lists(PUT | TAKE | CANCEL | SWEEP, max_size=60))
def test_the_queue_equals_its_obvious_twin(max_rows, levels, default, delays, row_ns, max_wait_ns, steps):
    queue, twin, terms = twins(max_rows, levels, default, delays, row_ns, max_wait_ns)
    for number, (step, *arguments) in enumerate(steps):
        if step == "put":
            rows, shape, queued_ns, deadline_ns, priority, later, now_ns = arguments
            answer_by_ns = deadline_ns + later if deadline_ns and later is not None else 0
            verdict, *_ = twin.put(reference.Waiting(number, rows, shape, queued_ns, deadline_ns, priority, answer_by_ns), terms, now_ns)
            assert queue.put(number, rows, shape, queued_ns, deadline_ns, priority, answer_by_ns, now_ns) == verdict
        elif step == "take":
            max_batch_size, now_ns = arguments
            taken = twin.take(reference.Rules(max_batch_size, lambda _: terms.curve), now_ns)
            assert queue.take(*arguments) == (numbers(taken.batch), taken.rows, taken.reason, sorted(numbers(taken.dropped)))
        elif step == "sweep":
            assert queue.sweep(*arguments) == sorted(numbers(twin.sweep(*arguments)))
        else:
            for one in twin.waiting:
                if one.number == arguments[0]:
                    queue.cancel(one.number)
                    one.cancelled = True
        assert (queue.rows, queue.work_ns, queue.oldest_ns, queue.urgent_ns) == (twin.rows, twin.work_ns, twin.oldest_ns, twin.urgent_ns)


def test_an_empty_queue_takes_one_request_of_any_size():
    queue = policy_probe.Queue(4)
    assert queue.put(1, 100, (), 1, 0) == "taken"
    assert queue.put(2, 1, (), 1, 0) == "too many"
    assert queue.take(8, 5) == ([1], 100, "full", [])


def test_what_is_cancelled_or_late_is_never_run():
    queue = policy_probe.Queue(100)
    for number, deadline in enumerate((0, 10, 11, 0)):
        queue.put(number, 1, (), 1, deadline)
    queue.cancel(3)
    assert queue.take(8, 10) == ([2, 0], 2, "idle", [1, 3])


def test_another_shape_flushes_no_batch_and_waits_for_no_more_than_its_turn():
    queue = policy_probe.Queue(1000)
    for number in range(100):
        queue.put(number, 1, (number % 4,), number + 1, 0)
    taken = [queue.take(32, 200)[0] for _ in range(4)]
    assert taken == [[*range(first, 100, 4)] for first in range(4)]


def test_the_earliest_deadline_is_first_and_who_has_none_is_not_forgotten():
    second = 10**9
    queue = policy_probe.Queue(100)
    for number, (queued, deadline) in enumerate([(1, 0), (2, 5 * second), (3, 1 * second), (4, 0), (5, 2 * second)]):
        queue.put(number, 1, (), queued, deadline)
    assert queue.take(8, 10)[0] == [2, 4, 0, 3, 1]


def test_a_low_priority_waits_longer_but_never_for_ever():
    step = reference.PRIORITY_STEP_NS
    queue = policy_probe.Queue(10_000, 3, 2)
    queue.put(0, 1, (), 1, 0, 3)
    for number in range(1, 400):
        queue.put(number, 1, (), 1 + number * step // 100, 0, 1)
    order = [queue.take(1, 10)[0][0] for _ in range(400)]
    assert order.index(0) == 199    # as if it had come two steps later
    assert [one for one in order if one] == [*range(1, 400)]


def test_a_thousand_cancels_leave_no_place_taken():
    queue = policy_probe.Queue(1000)
    for number in range(1000):
        queue.put(number, 1, (number % 3,), 1, 0)
        queue.cancel(number)
    assert queue.sweep(5) == [*range(1000)]
    assert (queue.rows, queue.work_ns, queue.urgent_ns) == (0, 0, 0)
    assert queue.put(1000, 1000, (), 1, 0) == "taken"


def test_a_full_queue_makes_room_by_dropping_those_for_whom_nobody_waits():
    queue = policy_probe.Queue(8)
    for number in range(8):
        queue.put(number, 1, (), 1, 0)
    queue.cancel(3)
    assert queue.put(8, 1, (), 1, 0, now_ns=10**7) == "taken"
    assert queue.take(16, 10) == ([0, 1, 2, 4, 5, 6, 7, 8], 8, "idle", [3])


def test_who_cannot_be_served_in_time_is_refused_on_arrival_and_who_is_more_urgent_than_those_who_wait_is_not():
    ms = 10**6
    queue = policy_probe.Queue(1000, each_ns=ms)
    for number in range(100):
        assert queue.put(number, 1, (), 1, 0) == "taken"
    assert queue.put(100, 1, (), 2, 50 * ms, answer_by_ns=50 * ms) == "taken"      # goes before all of them
    for number in range(101, 140):
        queue.put(number, 1, (), 2, 50 * ms, answer_by_ns=50 * ms)
    assert queue.put(150, 30, (), 2, 60 * ms, answer_by_ns=60 * ms) == "unmeetable"
    assert queue.put(151, 1, (), 2, 60 * ms, answer_by_ns=60 * ms) == "taken"


def test_who_waited_longer_than_the_queue_allows_is_delayed_where_that_is_wanted_and_refused_otherwise():
    for delays, expected in ((False, ([1], [0])), (True, ([1, 0], []))):
        queue = policy_probe.Queue(10, delays=delays)
        queue.put(0, 1, (), 1, 5)
        queue.put(1, 1, (), 2, 0)
        batch, _, _, dropped = queue.take(8, 10)
        assert (batch, dropped) == expected
