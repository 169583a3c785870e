"""The queue, the router, the pacer, the instruments and the decoder of divisions without a server around them. For tests and benchmarks."""

import os

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libcpp.string cimport string
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from batchmill.core.admission cimport Ahead, Entry, Terms, judge, kTaken, predict
from batchmill.core.batcher cimport Size, limits_of, size_of
from batchmill.core.clock cimport now_ns as clock_ns
from batchmill.core.exposition cimport text_of
from batchmill.core.intake cimport IoThread, Shared, count
from batchmill.core.histogram import CLOSE_REASONS
from batchmill.core.histogram cimport CloseReason, VersionStats, add
from batchmill.core.message cimport InferRequest, NativeVersion
from batchmill.core.pacer cimport Pacer as NativePacer, begin, end, look, read_account
from batchmill.core.predictor cimport (
    Curve as NativeCurve, Estimate, RunTimes, expected_ns, find, guarded_ns, is_fresh, kKnots, learn, recall,
)
from batchmill.core.queue cimport RequestQueue, Rules, Taken, put, sweep, take
from batchmill.core.reactor cimport Server
from batchmill.core.rehearsal cimport fill, view
from batchmill.core.runner cimport stamp
from batchmill.core.router cimport (
    ModelRoute, ModelVersion, RouteTable, Version, VersionPointer, pick as pick_version,
)
from batchmill.core.tensor cimport TensorView

cdef extern from "trap.hpp" namespace "batchmill" nogil:
    int native_division_bytes "batchmill::division_bytes"(const uint8_t* code, int* bits)


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


def pick(routes, bytes model, bytes version, bytes label) -> bytes:
    """The version that a request gets. routes: (model, versions, standard version or b"", {label: version}) each. Raises LookupError."""
    cdef RouteTable* table = new RouteTable()
    cdef vector[VersionPointer] made
    cdef VersionPointer one
    cdef ModelRoute* route
    cdef InferRequest* request = new InferRequest()
    cdef pair[string, VersionPointer] entry
    try:
        for name, versions, standard, labels in routes:
            route = new ModelRoute()
            route.name = name
            for number in versions:
                entry.first, entry.second = number, new ModelVersion()
                entry.second.version = number
                made.push_back(entry.second)
                route.versions.push_back(entry)
                if number == standard:
                    route.standard = entry.second
                for key, wanted in labels.items():
                    if wanted == number:
                        entry.first = key
                        route.labels.push_back(entry)
            table.insert(route)
        request.model_name, request.model_version, request.label = view(model), view(version), view(label)
        if not pick_version(table, request):
            raise LookupError((<bytes> request.status.message).decode())
        assert (<ModelVersion*> request.version).leases.load() == 1
        return (<ModelVersion*> request.version).version
    finally:
        del request
        del table
        for one in made:
            del one


cdef class Pacer:
    """The pacer of the calling thread, whose account is kept in a file of the caller's."""

    cdef NativePacer pacer

    def __cinit__(self, str account, int64_t now_ns):
        begin(&self.pacer, now_ns)
        if self.pacer.account >= 0:
            os.close(self.pacer.account)
        self.pacer.account = os.open(account, os.O_RDONLY | os.O_CLOEXEC)
        self.pacer.seen = read_account(self.pacer.account)

    def __dealloc__(self):
        end(&self.pacer)

    def look(self, int64_t now_ns) -> bool:
        """Whether there is a pacing thread by now."""
        look(&self.pacer, now_ns)
        return self.pacer.made


cdef class Lease:
    """A request that has been given its version by a server's route table and is not answered yet. LookupError: none for it."""

    cdef InferRequest* request

    def __cinit__(self, Server server, bytes model, bytes version=b"", bytes label=b""):
        self.request = new InferRequest()
        self.request.model_name, self.request.model_version, self.request.label = view(model), view(version), view(label)
        if not pick_version(server.shared.table.load(), self.request):
            raise LookupError((<bytes> self.request.status.message).decode())

    def __dealloc__(self):
        self.end()
        del self.request

    def is_on(self, Version version) -> bool:
        """Whether that is the version it was given."""
        return version.native == <ModelVersion*> self.request.version

    def end(self) -> None:
        """The answer is out."""
        if self.request.version != NULL:
            (<ModelVersion*> self.request.version).leases.fetch_sub(1)
            self.request.version = NULL


def division_bytes(bytes code) -> tuple:
    """(bytes, bits of the operand) of the x86 integer division at the start of code; (0, ...): it is something else."""
    cdef int bits = 0
    cdef bytes whole = code + bytes(16)
    return native_division_bytes(<const uint8_t*> <const char*> whole, &bits), bits


def metrics_text(versions, bint triton) -> bytes:
    """What a scrape tells of (name, version, requests, batches) each: requests of (thread, code, reason, protocol, decode_ns, queue_ns,
    total_ns, bytes_in, bytes_out), batches of (thread, rows, requests, assembly_ns, compute_ns, encode_ns, close reason, wait_ns).
    protocol: 0 gRPC, 1 REST.
    """
    cdef vector[VersionPointer] made
    cdef VersionStats* stats
    cdef VersionPointer one
    cdef int protocol
    kept = versions     # reasons are borrowed
    try:
        for name, number, requests, batches in kept:
            one = new ModelVersion()
            made.push_back(one)
            one.name, one.version = <bytes> name, <bytes> number
            for thread, code, reason, protocol, decode_ns, queue_ns, total_ns, bytes_in, bytes_out in requests:
                stats = one.stats_of(thread)
                stats.decode.record(decode_ns)
                stats.queue.record(queue_ns)
                add(stats.outcome[<int> code], 1)
                add(stats.bytes_in, bytes_in)
                add(stats.bytes_out, bytes_out)
                if code:
                    stats.count_reason(<const char*> <bytes> reason)
                else:
                    stats.total[protocol].record(total_ns)
                    add(stats.queue_ns, queue_ns)
            for thread, rows, count, assembly_ns, compute_ns, encode_ns, reason, wait_ns in batches:
                one.stats_of(thread).count_batch(rows, count, assembly_ns, compute_ns, encode_ns)
                one.stats_of(thread).count_close(<CloseReason> <int> reason, rows, wait_ns)
        return text_of(made, triton)
    finally:
        for one in made:
            del one


def record(int64_t batches, int64_t rows, bint instruments) -> None:
    """What the data plane measures and counts of so many batches, of requests of one row: the same calls, the clock's among them.

    Without instruments: the loops alone. For benchmarks, which time it.
    """
    cdef Shared* shared = new Shared()
    cdef IoThread* thread = new IoThread()
    cdef ModelVersion* version = new ModelVersion()
    cdef InferRequest* request
    cdef vector[InferRequest*] requests
    cdef int64_t _batch, row
    thread.shared = shared
    for row in range(rows):
        requests.push_back(new InferRequest())
        requests.back().version = <NativeVersion*> version
        if row:
            requests[row - 1].next = requests[row]
    with nogil:
        for _batch in range(batches):
            thread.sink.now_ns = clock_ns()
            request = requests[0]
            while request != NULL:
                if instruments:
                    record_admission(thread, version, request)
                request = request.next
            request = requests[0]
            while request != NULL:
                if instruments:
                    record_start(version, request, thread.sink.now_ns)
                request = request.next
            if instruments:
                record_run(version, requests[0], rows)
            request = requests[0]
            while request != NULL:
                if instruments:
                    count(thread, request)
                request = request.next
    for row in range(rows):
        del requests[row]
    del version
    del thread
    del shared


# As in intake.admit, runner.run_batch and runner.run_once.
cdef void record_admission(IoThread* thread, ModelVersion* version, InferRequest* request) noexcept nogil:
    cdef int64_t now = clock_ns()
    request.times.received = thread.sink.now_ns
    request.times.queued = now
    version.stats_of(thread.index).decode.record(now - thread.busy_since_ns)
    thread.busy_since_ns = now


cdef void record_start(ModelVersion* version, InferRequest* request, int64_t now) noexcept nogil:
    request.times.started = now
    version.stats_of(0).queue.record(now - request.times.queued)


cdef void record_run(ModelVersion* version, InferRequest* batch, int64_t rows) noexcept nogil:
    cdef int64_t began = clock_ns(), gathered = clock_ns(), ran = clock_ns(), written = clock_ns()
    version.stats_of(0).count_batch(rows, rows, gathered - began, ran - gathered, written - ran)
    stamp(batch, gathered, ran, written)
