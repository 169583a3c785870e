"""Pieces of memory that a thread takes and gives back: each has its bytes for itself, and no more than a bound is kept."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from batchmill.core.probe import Pieces

LARGEST, STEP, KEPT = 1024, 64, 8 << 20
SIZES = st.one_of(st.integers(0, 2 * LARGEST), st.sampled_from([1 << 16, 1 << 20]))


class Pool(RuleBasedStateMachine):
    """The twin is a dictionary of bytes."""

    numbers = Bundle("numbers")

    def __init__(self):
        super().__init__()
        self.pool, self.held, self.count = Pieces(), {}, 0

    @rule(target=numbers, size=SIZES, zeroed=st.booleans())
    def take(self, size, zeroed):
        self.count += 1
        assert self.pool.take(self.count, 1, size, zeroed)
        if zeroed:
            assert self.pool.holds(self.count, bytes(size))
        self.write(self.count, size)
        return self.count

    def write(self, number, size):
        self.held[number] = bytes([number % 251]) * size
        self.pool.write(number, self.held[number])

    @rule(number=numbers, size=SIZES)
    def grow(self, number, size):
        kept = self.held[number][:size]
        self.pool.grow(number, size)
        assert self.pool.holds(number, kept)
        self.write(number, size)

    @rule(number=consumes(numbers))
    def give(self, number):
        del self.held[number]
        self.pool.give(number)

    @invariant()
    def nobody_wrote_into_anothers(self):
        assert all(self.pool.holds(number, data) for number, data in self.held.items())
        assert 0 <= self.pool.kept <= KEPT


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=50, stateful_step_count=40)


def test_what_was_given_back_is_taken_again_and_a_peak_is_not_kept():
    pool, count = Pieces(), 2 * KEPT // LARGEST
    for number in range(count):
        assert pool.take(number, 1, LARGEST, False)
    for number in range(count):
        pool.give(number)
    assert pool.kept in (0, KEPT)       # 0: with the address sanitizer, which is to see every piece
    assert pool.take(0, 1, LARGEST - STEP + 1, False)
    assert pool.kept in (0, KEPT - LARGEST)


def test_what_no_machine_has_is_refused():
    pool = Pieces()
    assert not pool.take(0, 2**33, 2**33, True)
    assert not pool.take(0, 1, 2**64 - 8, False)
