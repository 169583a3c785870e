"""The batching policy without a server around it: run times, the queue. For tests."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from batchmill.core.admission cimport Ahead, Entry, Terms, judge, kTaken, predict
from batchmill.core.batcher cimport Size, limits_of, size_of
from batchmill.core.histogram import CLOSE_REASONS
from batchmill.core.message cimport InferRequest
from batchmill.core.predictor cimport Curve as NativeCurve, Estimate, RunTimes, expected_ns, find, guarded_ns, kKnots, learn
from batchmill.core.queue cimport RequestQueue, Rules, Taken, put, sweep, take
from batchmill.core.tensor cimport datatype_of, kMaxRank


cdef string_view view(bytes text):
    return string_view(<const char*> text, len(text))


cdef int fill(TensorView* tensor, bytes name, bytes datatype, shape, bytes raw) except -1:
    """Borrows name and raw."""
    cdef int axis
    if len(shape) > kMaxRank:
        raise ValueError("more than 16 dimensions")
    tensor.name, tensor.dtype = view(name), datatype_of(view(datatype))
    tensor.shape.rank = <int> len(shape)
    for axis in range(tensor.shape.rank):
        tensor.shape.dims[axis] = shape[axis]
    tensor.data, tensor.size = <const uint8_t*> <const char*> raw, len(raw)
    return 0


cdef class Curve:
    """Run times by rows of one width."""

    cdef NativeCurve curve

    cdef Estimate known(self, double scale):
        cdef Estimate known
        known.curve, known.scale = &self.curve, scale
        return known

    def learn(self, int64_t rows, double run_ns, int64_t now_ns=0) -> None:
        learn(&self.curve, rows, run_ns, now_ns)

    def expected_ns(self, int64_t rows, double scale=1) -> float:
        return expected_ns(self.known(scale), rows)

    def guarded_ns(self, int64_t rows, double scale=1) -> float:
        return guarded_ns(self.known(scale), rows)

    def state(self) -> tuple:
        """(knots, spread, row_ns, best_rows, knee_rows, next_rows)."""
        return ([self.curve.knots[at].load() for at in range(kKnots)], self.curve.spread.load(), self.curve.row_ns.load(),
                self.curve.best_rows.load(), self.curve.knee_rows.load(), self.curve.next_rows.load())

    def size_of(self, int64_t rows, int64_t max_batch_size, preferred, double slack_ns, double turn_ns) -> tuple:
        """batcher.size_of(): (rows, reason)."""
        cdef Size size = size_of(rows, limits_of(max_batch_size, 0, preferred, False), self.known(1), slack_ns, turn_ns)
        return size.rows, CLOSE_REASONS[<int> size.reason]

    def judge(self, int64_t rows, int64_t ahead_rows, double ahead_ns, int64_t most_rows, int32_t parallel, double busy_ns, double drift,
              int64_t max_wait_ns, int64_t start_by_ns, int64_t finish_by_ns, int64_t objective_ns, bint fresh) -> tuple:
        """admission.predict() and judge(): (verdict, wait_ns, run_ns)."""
        cdef Terms terms
        cdef Ahead ahead
        cdef Entry entry
        terms.known, terms.most_rows, terms.parallel, terms.busy_ns = self.known(1), most_rows, parallel, busy_ns
        terms.drift, terms.max_wait_ns = drift, max_wait_ns
        ahead.rows, ahead.work_ns = ahead_rows, ahead_ns
        entry = predict(rows, ahead, terms)
        return VERDICTS[<int> judge(entry, ahead, terms, start_by_ns, finish_by_ns, objective_ns, fresh)], entry.wait_ns, entry.run_ns


VERDICTS = ("taken", "too many", "too long", "unmeetable", "hopeless")


cdef class Queue:
    """The queue of one version. Requests are known by the numbers their maker gives them."""

    cdef RequestQueue queue
    cdef RunTimes times
    cdef Terms terms
    cdef dict requests

    def __cinit__(self, int64_t max_rows, int32_t priority_levels=0, int32_t default_priority=0, bint delays=False, int64_t row_ns=0,
                  int64_t max_wait_ns=0):
        """row_ns: what every row of a run costs; 0: unknown."""
        self.queue.max_rows.store(max_rows)
        self.queue.priority_levels.store(priority_levels)
        self.queue.default_priority.store(default_priority)
        self.queue.delays.store(delays)
        self.terms.most_rows, self.terms.parallel, self.terms.busy_ns, self.terms.drift = 1, 1, 0, 1
        self.terms.max_wait_ns = max_wait_ns
        if row_ns:
            for at in range(kKnots):
                learn(self.times.made(0), 1 << at, <double> row_ns * (1 << at), 0)
            self.terms.known = find(&self.times, 0)
        self.requests = {}

    def __dealloc__(self):
        for number in list(self.requests):
            self.drop(number)

    cdef drop(self, number):
        cdef InferRequest* request = <InferRequest*> <size_t> self.requests.pop(number)
        del request

    def put(self, number: int, int64_t rows, shape, int64_t queued_ns, int64_t deadline_ns, uint64_t priority=0, int64_t answer_by_ns=0,
            int64_t now_ns=0) -> str:
        """shape: of the one input's axes but the first. The verdict."""
        cdef InferRequest* request = new InferRequest()
        cdef TensorView tensor
        cdef Entry entry
        fill(&tensor, b"x", b"FP32", [rows, *shape], b"")
        request.inputs.push_back(tensor)
        request.rows = rows
        request.times.queued = queued_ns
        request.deadline_ns = deadline_ns
        request.answer_by_ns = answer_by_ns
        request.priority = priority
        entry = put(&self.queue, request, self.terms, now_ns)
        if entry.verdict != kTaken:
            del request
        else:
            self.requests[number] = <size_t> request
        return VERDICTS[<int> entry.verdict]

    def cancel(self, number: int) -> None:
        (<InferRequest*> <size_t> self.requests[number]).cancelled.store(True)

    def take(self, int64_t max_rows, int64_t now_ns) -> tuple:
        """(numbers of the batch in order, its rows, why no more, numbers that were dropped, in order)."""
        cdef Rules rules
        cdef Taken taken
        rules.limits = limits_of(max_rows, 0, (), False)
        rules.times = &self.times if self.terms.known.curve != NULL else NULL
        rules.first_axis, rules.slack_share, rules.turn_ns = -1, 1, -1
        taken = take(&self.queue, rules, now_ns)
        batch, dropped = self.numbers(taken.batch), self.numbers(taken.dropped)
        assert len(batch) == taken.count
        return batch, taken.rows, CLOSE_REASONS[<int> taken.reason], sorted(dropped)

    def sweep(self, int64_t now_ns) -> list:
        """Numbers of those for whom nobody waits any more, in order."""
        return sorted(self.numbers(sweep(&self.queue, now_ns)))

    cdef list numbers(self, InferRequest* request):
        cdef InferRequest* following
        known = {pointer: number for number, pointer in self.requests.items()}
        found = []
        while request != NULL:
            following = request.next
            number = known[<size_t> request]
            found.append(number)
            self.drop(number)
            request = following
        return found

    @property
    def rows(self) -> int:
        return self.queue.rows.load()

    @property
    def work_ns(self) -> int:
        return self.queue.work_ns.load()

    @property
    def oldest_ns(self) -> int:
        return self.queue.oldest_ns.load()

    @property
    def urgent_ns(self) -> int:
        return self.queue.urgent_ns.load()
