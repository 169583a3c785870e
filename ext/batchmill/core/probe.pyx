"""The router, the pacer, the instruments and the decoder of divisions without a server around them. For tests and benchmarks."""

import os

from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp, memcpy
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from batchmill.core.clock cimport now_ns as clock_ns
from batchmill.core.culprits cimport note_failed_run, note_rows
from batchmill.core.exposition cimport text_of
from batchmill.core.entrance cimport is_behind
from batchmill.core.front cimport PiecePool
from batchmill.core.intake cimport Ages, Backlog, Collecting, IoThread, ReadingRound, Shared, count
from batchmill.core.histogram cimport CloseReason, VersionStats, add
from batchmill.core.inline_runs cimport is_watched, may_run, note_run
from batchmill.core.message cimport InferRequest, NativeVersion
from batchmill.core.notes cimport HeaderNotes
from batchmill.core.pacer cimport Pacer as NativePacer, begin, end, look, read_account
from batchmill.core.reactor cimport Server
from batchmill.core.rehearsal cimport view
from batchmill.core.runner cimport stamp
from batchmill.core.router cimport (
    Culprits, InlineRuns, ModelRoute, ModelVersion, RouteLabel, RouteTable, Shadow, Version, VersionPointer, pick as pick_version,
)

cdef extern from "trap.hpp" namespace "batchmill" nogil:
    int native_division_bytes "batchmill::division_bytes"(const uint8_t* code, int* bits)


def ages(reads) -> list:
    """For how long the first and the last byte of each read have waited, ns.

    reads: (socket, bytes read, bytes that were still there, now_ns).
    """
    cdef vector[Backlog] backlogs
    cdef ReadingRound round
    cdef Ages found
    told = []
    backlogs.resize(1 + max([socket for socket, *_ in reads], default=0))
    for socket, read, waiting, now in reads:
        found = backlogs[<size_t> socket].ages(read, waiting, now, round)
        told.append((found.first_ns, found.last_ns))
    return told


def behind(int64_t behind_ns, int64_t now_ns, int64_t deadline_ns, int64_t max_wait_ns, bint keeps_up=False) -> str:
    """Why a request is refused that was read so long after it had come; "": it is not. keeps_up: its socket was read empty."""
    cdef ModelVersion version
    cdef InferRequest request
    request.behind_ns, request.deadline_ns = behind_ns, deadline_ns
    version.max_wait_ns.store(max_wait_ns)
    return (<bytes> request.status.reason).decode() if is_behind(&version, &request, keeps_up, 0, now_ns) else ""


def rests(turns) -> list:
    """For how long an I/O thread leaves its sockets alone after each of its turns, ns.

    turns: (when it began to read, when the turn was over, requests read, whether all executors are busy, what became of them). Of that, for
    each: (a version's number, the predicted wait that it was turned away for, or None, the time it has left, or 0).
    """
    cdef Collecting collecting
    told = []
    for began, over, requests, busy, asked in turns:
        collecting.begin_reading(began)
        for version, wait, left in asked:
            if wait is None:
                collecting.let_in(<void*> <size_t> version, left, over)
            else:
                collecting.turn_away(<void*> <size_t> version, wait)
        collecting.end_turn(requests, busy, over)
        told.append((max(0, collecting.until_ns - over), collecting.rested_ns))
    return told


cdef class Pieces:
    """A pool of pieces; of each the caller knows the number, and the bytes that it wrote into it."""

    cdef PiecePool pool
    cdef dict places

    def __cinit__(self):
        self.places = {}

    def __dealloc__(self):
        for place in self.places.values():
            self.pool.give(<void*> <size_t> place)

    @property
    def kept(self) -> int:
        return self.pool.kept()

    def take(self, number, size_t pieces, size_t size, bint zeroed) -> bool:
        """False: there is no memory."""
        cdef void* piece = self.pool.take_zeroed(pieces, size) if zeroed else self.pool.take(pieces * size)
        if piece != NULL:
            self.places[number] = <size_t> piece
        return piece != NULL

    def grow(self, number, size_t size) -> None:
        self.places[number] = <size_t> self.pool.grow(<void*> <size_t> self.places[number], size)

    def give(self, number) -> None:
        self.pool.give(<void*> <size_t> self.places.pop(number))

    def write(self, number, bytes data) -> None:
        memcpy(<void*> <size_t> self.places[number], <const char*> data, len(data))

    def holds(self, number, bytes data) -> bool:
        return memcmp(<void*> <size_t> self.places[number], <const char*> data, len(data)) == 0


def inline_runs(runs, bint busy=False) -> list:
    """Of runs on an I/O thread that want to begin, ns: (now, what is predicted, what it would take by the clock, of the thread's own time).

    busy: all executors are. "executor" where it may not, else whether its own time was looked at: "watched" or "unwatched".
    """
    cdef InlineRuns state
    cdef bint watched
    told = []
    for now, predicted, took, own in runs:
        if not may_run(&state, predicted, busy, now):
            told.append("executor")
            continue
        watched = is_watched(state, now)
        note_run(&state, now, took, own if watched else 0)
        told.append("watched" if watched else "unwatched")
    return told


def culprits(runs) -> tuple:
    """(share of rows that is guilty, cost of a failed run) after these: (rows, guilty of them, how far each failed run got)."""
    cdef Culprits state
    for rows, guilty, failed in runs:
        note_rows(&state, rows, guilty)
        for part in failed:
            note_failed_run(&state, part * 1000.0, 1000.0)
    return state.share.load(), state.cost.load()


def pick(routes, bytes model, bytes version, bytes label) -> bytes:
    """The version that a request gets. routes: (model, versions, standard version or b"", {label: version}) each. Raises LookupError."""
    cdef RouteTable* table = new RouteTable()
    cdef vector[VersionPointer] made
    cdef VersionPointer one
    cdef ModelRoute* route
    cdef InferRequest* request = new InferRequest()
    cdef pair[string, VersionPointer] entry
    cdef RouteLabel named
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
            for named.name, named.number in labels.items():
                named.version = NULL
                for entry in route.versions:
                    if entry.first == named.number:
                        named.version = entry.second
                route.labels.push_back(named)
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
    """A request that has been given its version by a server's route table and is not answered yet. LookupError: none for it.

    headers, parameters: (name, value) each, for rules of the route.
    """

    cdef InferRequest* request

    def __cinit__(self, Server server, bytes model, bytes version=b"", bytes label=b"", *, headers=(), parameters=()):
        cdef const RouteTable* table = server.shared.table.load()
        cdef HeaderNotes notes
        cdef pair[string_view, string_view] entry
        self.request = new InferRequest()
        self.request.model_name, self.request.model_version, self.request.label = view(model), view(version), view(label)
        for name, value in headers:
            notes.take_watched(table.watched, view(name), view(value))
        for name, value in parameters:
            entry.first, entry.second = view(name), view(value)
            self.request.texts_given.push_back(entry)
        self.request.notes = &notes
        given = pick_version(table, self.request)
        self.request.notes = NULL
        self.request.texts_given.clear()
        if not given:
            raise LookupError((<bytes> self.request.status.message).decode())

    def __dealloc__(self):
        self.end()
        del self.request

    def is_on(self, Version version) -> bool:
        """Whether that is the version it was given."""
        return version.native == <ModelVersion*> self.request.version

    def end(self) -> None:
        """The answer is out."""
        end_of(self.request)


cdef void end_of(InferRequest* request) noexcept:
    """As if it had been answered; its shadows do not run it."""
    cdef int at
    if request.version != NULL:
        (<ModelVersion*> request.version).leases.fetch_sub(1)
        request.version = NULL
    if request.is_mirrored():
        for at in range(request.mirror.get().count):
            (<Shadow*> request.mirror.get().shadows[at]).let_go()
        request.mirror.get().count = 0


def versions_of(Server server, bytes model, keys) -> list:
    """The number of the version that each key is given by a server's route table; "": none."""
    cdef const RouteTable* table = server.shared.table.load()
    cdef InferRequest* request = new InferRequest()
    cdef NativeVersion* last = NULL
    cdef bytes key
    cdef str number = ""
    found = []
    try:
        for key in keys:
            request.model_name, request.route_key = view(model), view(key)
            if pick_version(table, request) and request.version != last:
                last, number = request.version, (<ModelVersion*> request.version).version.decode()
            found.append(number if request.version != NULL else "")
            end_of(request)
            request.reset()
        return found
    finally:
        del request


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
