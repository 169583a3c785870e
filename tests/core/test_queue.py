"""The queue against a list."""

from hypothesis import given
from hypothesis import strategies as st

from batchmill.core import probe
from reference import queue as reference

ROWS, SHAPES, TIMES = st.integers(0, 9), st.sampled_from([(), (3,), (4,), (3, 2)]), st.integers(0, 20)
PUT = st.tuples(st.just("put"), ROWS, SHAPES, st.integers(1, 20), TIMES)
TAKE = st.tuples(st.just("take"), st.integers(1, 12), TIMES)
CANCEL = st.tuples(st.just("cancel"), st.integers(0, 30))


@given(st.integers(1, 20), st.lists(PUT | TAKE | CANCEL, max_size=40))
def test_the_queue_equals_its_obvious_twin(max_rows, steps):
    queue, twin = probe.Queue(max_rows), reference.Queue(max_rows)
    for number, (step, *arguments) in enumerate(steps):
        if step == "put":
            assert queue.put(number, *arguments) == twin.put(number, *arguments)
        elif step == "take":
            assert queue.take(*arguments) == twin.take(*arguments)
        elif any(one.number == arguments[0] for one in twin.waiting):
            queue.cancel(*arguments)
            twin.cancel(*arguments)
        assert (queue.rows, queue.oldest_ns) == (twin.rows, twin.oldest_ns)


def test_an_empty_queue_takes_one_request_of_any_size():
    queue = probe.Queue(4)
    assert queue.put(1, 100, (), 1, 0)
    assert not queue.put(2, 1, (), 1, 0)
    assert queue.take(8, 5) == ([1], 100, [])


def test_what_is_cancelled_or_late_is_never_run():
    queue = probe.Queue(100)
    for number, deadline in enumerate((0, 10, 11, 0)):
        queue.put(number, 1, (), 1, deadline)
    queue.cancel(3)
    assert queue.take(8, 10) == ([0, 2], 2, [1, 3])
