"""The batching policy without a server around it: run times, the queue, and all of it together. For tests."""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp.unordered_map cimport unordered_map
from libcpp.vector cimport vector

from batchmill.core.admission cimport Ahead, Entry, Terms, judge, kTaken, predict
from batchmill.core.batcher cimport Size, limits_of, size_of
from batchmill.core.culprits cimport cheapest_rows, limit_rows, note_too_large
from batchmill.core.entrance cimport enters, set_deadline
from batchmill.core.executor cimport ExecutorPool
from batchmill.core.histogram import CLOSE_REASONS
from batchmill.core.histogram cimport CloseReason, kPreferredSizes
from batchmill.core.message cimport InferRequest, NativeVersion
from batchmill.core.predictor cimport (
    Curve as NativeCurve, Estimate, RunTimes, expected_ns, find, guarded_ns, is_fresh, kKnots, learn, recall, row_ns, width_of,
)
from batchmill.core.queue cimport RequestQueue, Rules, Taken, put, sweep, take
from batchmill.core.rehearsal cimport fill
from batchmill.core.router cimport Culprits, ModelVersion, VersionPointer
from batchmill.core.runner cimport correct_drift, correct_slack, stamp
from batchmill.core.tensor cimport TensorView
from batchmill.core.turns cimport ended, line_up, next_turn, rules_of, started

ctypedef InferRequest* RequestPointer   # Cython takes no '*' inside a nested template


def sizes(runs, int64_t max_batch_size) -> list:
    """What batches may have at most after each of these, 0: any: (now, rows that failed together and not in parts, or 0)."""
    cdef Culprits state
    cdef Estimate unknown = Curve().known(1)
    told = []
    for now, rows in runs:
        if rows:
            note_too_large(&state, rows, now)
        if state.any():
            limit_rows(&state, unknown, max_batch_size, now)
        told.append(state.most_rows.load())
    return told


cdef class Curve:
    """Run times by rows of one width."""

    cdef NativeCurve curve

    cdef Estimate known(self, double scale):
        cdef Estimate known
        known.curve, known.scale = &self.curve, scale
        return known

    def learn(self, int64_t rows, double run_ns, int64_t now_ns=0) -> None:
        learn(&self.curve, rows, run_ns, now_ns)

    def recall(self, knots, double spread) -> None:
        recall(&self.curve, knots, spread)

    def is_fresh(self, int64_t now_ns) -> bool:
        return is_fresh(self.known(1), now_ns)

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

    def cheapest_rows(self, int64_t max_rows, double share, double cost) -> int:
        """culprits.cheapest_rows()."""
        return cheapest_rows(self.known(1), max_rows, share, cost)

    def judge(self, int64_t rows, int64_t ahead_rows, int64_t alike_rows, double ahead_ns, int64_t most_rows, int32_t parallel,
              double busy_ns, double drift, int64_t max_wait_ns, int64_t start_by_ns, int64_t finish_by_ns, int64_t objective_ns,
              bint fresh) -> tuple:
        """admission.predict() and judge(): (verdict, wait_ns, run_ns)."""
        cdef Terms terms
        cdef Ahead ahead
        cdef Entry entry
        terms.known, terms.most_rows, terms.parallel, terms.busy_ns = self.known(1), most_rows, parallel, busy_ns
        terms.drift, terms.max_wait_ns, terms.row_ns = drift, max_wait_ns, row_ns(terms.known)
        ahead.rows, ahead.alike, ahead.work_ns = ahead_rows, alike_rows, ahead_ns
        entry = predict(rows, ahead, terms, True)
        return VERDICTS[<int> judge(entry, ahead, terms, start_by_ns, finish_by_ns, objective_ns, fresh)], entry.wait_ns, entry.run_ns


VERDICTS = ("taken", "too many", "too long", "unmeetable", "hopeless")


cdef class Queue:
    """The queue of one version. Requests are known by the numbers their maker gives them."""

    cdef RequestQueue queue
    cdef RunTimes times
    cdef Terms terms
    cdef dict requests

    def __cinit__(self, int64_t max_rows, int32_t priority_levels=0, int32_t default_priority=0, bint delays=False, int64_t each_ns=0,
                  int64_t max_wait_ns=0):
        """each_ns: what every row of a run costs; 0: unknown."""
        self.queue.max_rows.store(max_rows)
        self.queue.priority_levels.store(priority_levels)
        self.queue.default_priority.store(default_priority)
        self.queue.delays.store(delays)
        self.terms.most_rows, self.terms.parallel, self.terms.busy_ns, self.terms.drift = 1, 1, 0, 1
        self.terms.max_wait_ns = max_wait_ns
        if each_ns:
            for at in range(kKnots):
                learn(self.times.made(0), 1 << at, <double> each_ns * (1 << at), 0)
            self.terms.known = find(&self.times, 0)
        self.terms.row_ns, self.terms.slack_share = each_ns, 1
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


cdef str refusal(const InferRequest* request):
    """The verdict that its status tells of."""
    if request.status.reason == b"DEADLINE_EXCEEDED":
        return "hopeless"
    if request.status.reason == b"DEADLINE_UNMEETABLE":
        return "unmeetable"
    return "too many" if b"queue.max_rows" in <bytes> request.status.message else "too long"


cdef inline int64_t number_of(InferRequest* request):
    """Of a part: its request's."""
    return <int64_t> (request.whole if request.whole != NULL else request).reply_to.stream


cdef class Policy:
    """The versions of an executor pool that has no threads: what I/O threads and executors do, a step a call, at times that are told.

    Versions are known by their place, requests by the numbers that their maker gives them, and batches by the number of their start.
    """

    cdef ExecutorPool pool
    cdef vector[VersionPointer] versions
    cdef unordered_map[int64_t, RequestPointer] requests    # that wait or run
    cdef vector[Taken] batches                              # all there ever were
    cdef vector[int64_t] began_ns                           # of each

    def __cinit__(self, int executors, int64_t turn_ns=20_000_000):
        self.pool.threads.resize(executors)     # they are only counted
        self.pool.turns.turn_ns.store(turn_ns)

    def __dealloc__(self):
        for request in self.requests:
            request.second.drop_parts()
            del request.second
        for version in self.versions:
            del version

    def add(self, bint widths, **limits) -> int:
        """A version's place. widths: what a row costs depends on its shape."""
        self.versions.push_back(new ModelVersion())
        self.versions.back().batched, self.versions.back().fast_ok = True, not widths
        self.set(self.versions.size() - 1, **limits)
        return self.versions.size() - 1

    def set(self, int version, *, int64_t max_batch_size=64, int64_t max_queue_delay_ns=0, preferred=(), int32_t instances=1,
            double weight=1, int64_t max_wait_ns=0, int64_t objective_ns=0, double target=0.99, int64_t default_timeout_ns=0,
            int64_t careful_rows=0, int64_t max_rows=4096, int32_t priority_levels=0, int32_t default_priority=0,
            bint delays=False) -> None:
        cdef ModelVersion* one = self.versions[version]
        cdef int at
        one.max_batch_size.store(max_batch_size)
        one.max_queue_delay_ns.store(max_queue_delay_ns)
        for at in range(kPreferredSizes):
            one.preferred[at].store(preferred[at] if at < len(preferred) else 0)
        one.instances.store(instances)
        one.weight.store(weight)
        one.max_wait_ns.store(max_wait_ns)
        one.objective_ns.store(objective_ns)
        one.target.store(target)
        one.default_timeout_ns.store(default_timeout_ns)
        one.culprits.most_rows.store(careful_rows)
        one.queue.max_rows.store(max_rows)
        one.queue.priority_levels.store(priority_levels)
        one.queue.default_priority.store(default_priority)
        one.queue.delays.store(delays)

    def drain(self) -> None:
        self.pool.turns.draining.store(True)

    def learn(self, int version, shape, int64_t rows, double run_ns, int64_t now_ns) -> None:
        """As if a batch of such rows had been run."""
        cdef vector[TensorView] inputs
        inputs.resize(1)
        fill(&inputs[0], b"x", b"FP32", [rows, *shape], b"")
        learn(self.versions[version].times.made(width_of(inputs, self.versions[version].first_axis())), rows, run_ns, now_ns)

    def arrive(self, int version, int64_t number, int64_t rows, shape, int64_t now_ns, int64_t deadline_ns=0, int64_t timeout_us=0,
               uint64_t priority=0) -> tuple:
        """As intake.admit(): (verdict, predicted wait if taken, ns, when to come back if not, ms)."""
        cdef ModelVersion* one = self.versions[version]
        cdef InferRequest* request = new InferRequest()
        request.inputs.resize(1)
        fill(&request.inputs[0], b"x", b"FP32", [rows, *shape], b"")
        request.version, request.rows, request.priority = <NativeVersion*> one, rows, priority
        request.times.received = request.times.queued = now_ns
        request.deadline_ns, request.timeout_us = deadline_ns, timeout_us
        request.reply_to.stream = <void*> <size_t> number       # which goes with the request wherever it goes
        set_deadline(one, request)
        if enters(&self.pool, one, request, 0, now_ns):
            self.requests[number] = request
            return "taken", request.predicted_wait_ns, 0
        told = refusal(request), 0, request.status.retry_ms
        request.drop_parts()
        del request
        return told

    def offer(self, int version) -> None:
        line_up(&self.pool.turns, self.versions[version])

    def cancel(self, int64_t number) -> None:
        """Of one that is gone already nothing is known."""
        if self.requests.count(number):
            self.requests[number].cancelled.store(True)

    def sweep(self, int version, int64_t now_ns) -> list:
        """Numbers of those that are told that nobody waits for them any more, in order."""
        return self.let_go(sweep(&self.versions[version].queue, now_ns))[1]

    def next_turn(self, int64_t now_ns) -> tuple:
        """(version or None, when to look again, why its batch is closed)."""
        cdef int64_t wait_until
        cdef CloseReason reason = CloseReason.kIdle
        cdef ModelVersion* found = next_turn(&self.pool.turns, now_ns, &wait_until, &reason)
        for place in range(self.versions.size()):
            if self.versions[place] == found:
                return place, wait_until, CLOSE_REASONS[<int> reason]
        return None, wait_until, ""

    def turn_ns(self, int version, int64_t now_ns) -> float:
        """Of rules_of(): how long its batch may keep others waiting; below 0: for any time."""
        return rules_of(&self.pool.turns, self.versions[version], True, now_ns).turn_ns

    def start(self, int version, str reason, int64_t now_ns, bint shares=True) -> tuple:
        """As executor.run_due() until the run: (batch, its numbers in order, one for each part, rows, why no more, expected ns,
        numbers of those that are told that they will not be answered).
        """
        cdef ModelVersion* one = self.versions[version]
        cdef Rules rules = rules_of(&self.pool.turns, one, shares, now_ns)
        cdef Taken taken
        one.running += 1
        taken = take(&one.queue, rules, now_ns)
        if shares:
            started(&self.pool.turns, one, taken, now_ns)
            if one.instances.load() > one.running:
                line_up(&self.pool.turns, one)
        told = self.let_go(taken.dropped)[1]
        numbers = self.numbers(taken.batch, now_ns)
        if numbers:
            correct_drift(one, taken.batch)
        self.batches.push_back(taken)
        self.began_ns.push_back(now_ns)
        why = CLOSE_REASONS[<int> taken.reason] if taken.reason != CloseReason.kIdle else reason
        return self.batches.size() - 1, numbers, taken.rows, why, taken.expected_ns, told

    def end(self, int version, int64_t batch, double run_ns, int64_t now_ns) -> tuple:
        """As run_due() from there on: numbers of those that are answered, and of those that are told that they will not be, in order."""
        self.learn_from(version, batch, run_ns, now_ns)
        told = self.let_go(self.batches[batch].batch)
        ended(&self.pool.turns, self.versions[version], self.batches[batch], self.began_ns[batch], now_ns)
        return told

    def run_here(self, int version, double run_ns, int64_t now_ns) -> tuple:
        """As executor.run_inline(), on an I/O thread: what start() and end() say."""
        cdef ModelVersion* one = self.versions[version]
        batch, *told = self.start(version, "idle", now_ns, False)
        self.learn_from(version, batch, run_ns, now_ns + <int64_t> run_ns)
        one.running -= 1
        one.expected_rows = 0
        line_up(&self.pool.turns, one)
        return batch, *told, self.let_go(self.batches[batch].batch)

    cdef learn_from(self, int version, int64_t batch, double run_ns, int64_t now_ns):
        """As runner.run_batch() after the run."""
        cdef ModelVersion* one = self.versions[version]
        cdef Taken taken = self.batches[batch]
        if taken.batch != NULL:
            learn(one.times.made(taken.width), taken.rows, run_ns, now_ns)
            stamp(taken.batch, self.began_ns[batch], now_ns, now_ns)
            correct_slack(one, taken, self.began_ns[batch])

    cdef list numbers(self, InferRequest* request, int64_t now_ns):
        found = []
        while request != NULL:
            request.times.started = now_ns
            found.append(number_of(request))
            request = request.next
        return found

    cdef tuple let_go(self, InferRequest* request):
        """As executor.complete(): (answered, failed), of a request in parts when its last part is there."""
        cdef InferRequest* following
        cdef InferRequest* whole
        answered, failed = [], []
        while request != NULL:
            following = request.next
            whole = request.whole if request.whole != NULL else request
            whole.broken.store(whole.broken.load() or not request.status.ok())
            if request == whole or whole.parts_left.fetch_sub(1) == 1:
                (failed if whole.broken.load() else answered).append(number_of(whole))
                self.requests.erase(number_of(whole))
                whole.drop_parts()
                del whole
            request = following
        return sorted(answered), sorted(failed)

    def state(self, int version) -> tuple:
        """(rows, work_ns, oldest_ns, urgent_ns, running, due, served_ns, expected_rows, last_width, busy_until_ns, drift, slack_share)."""
        cdef ModelVersion* one = self.versions[version]
        return (one.queue.rows.load(), one.queue.work_ns.load(), one.queue.oldest_ns.load(), one.queue.urgent_ns.load(), one.running,
                bool(one.due), one.served_ns, one.expected_rows, one.last_width, one.busy_until_ns.load(), one.drift(),
                one.slack_share.load())
