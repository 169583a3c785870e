"""Drives a front end without a socket: bytes in, bytes out, and the caller plays the rest of the server. For tests and fuzzers."""

from libc.stdint cimport int64_t, uint8_t
from libcpp cimport bool as cpp_bool
from libcpp.atomic cimport atomic
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from batchmill.core cimport http1, http2
from batchmill.core.bridge cimport drop
from batchmill.core.clock cimport now_ns
from batchmill.core.front cimport ColdCall, ColdReply, ColdReplyKind, Limits, Sink
from batchmill.core.http1_parser cimport Http1Connection
from batchmill.core.http2_exchange cimport refuse_slow
from batchmill.core.http2_reply cimport cold_reply as http2_cold_reply, reply as http2_reply
from batchmill.core.http2_stream cimport Http2Connection
from batchmill.core.message cimport Encoding, InferRequest, NativeVersion
from batchmill.core.notes cimport WatchedHeaders
from batchmill.core.router cimport ModelVersion
from batchmill.core.status cimport kInvalidArgument
from batchmill.core.tensor cimport Buffer, MemoryBudget

cdef cppclass World:
    vector[InferRequest*] infers
    vector[ColdCall*] colds
    int64_t taken, recycled
    bint full               # the queue of cold calls
    MemoryBudget* budget


cdef InferRequest* take(void* self) noexcept nogil:
    (<World*> self).taken += 1
    return new InferRequest()


cdef void recycle(void* self, InferRequest* request) noexcept nogil:
    (<World*> self).recycled += 1
    (<World*> self).budget.give(request.charged_bytes)
    del request


cdef void infer(void* self, InferRequest* request) noexcept nogil:
    (<World*> self).infers.push_back(request)


cdef cpp_bool cold_open(void* self, ColdCall* call) noexcept nogil:
    if (<World*> self).full:
        return False
    call.refs.fetch_add(1)
    (<World*> self).colds.push_back(call)
    return True


cdef cpp_bool cold_message(void* self, ColdCall* call, const uint8_t* data, size_t size, cpp_bool compressed) noexcept nogil:
    call.body.append(<const char*> data, size)
    return True


cdef void cold_end(void* self, ColdCall* call) noexcept nogil:
    pass


cdef void cold_cancel(void* self, ColdCall* call) noexcept nogil:
    drop(call)


cdef int is_ready(void* self, string_view model, string_view version) noexcept nogil:
    return -1 if model == string_view(b"nobody") else 1


cdef class Loopback:
    """One connection. feed() what a client sends; infers() and colds() list what came; answer those; sent() is what the client gets."""

    cdef World* world
    cdef Sink* sink
    cdef Limits* limits
    cdef MemoryBudget* budget
    cdef WatchedHeaders* watched
    cdef atomic[cpp_bool]* draining
    cdef ModelVersion* version
    cdef Http1Connection* one
    cdef Http2Connection* two
    cdef bint gone

    def __cinit__(self, bint http2_transport, int64_t max_body_bytes=1 << 20, int64_t max_header_bytes=32 << 10,
                  bint metrics_only=False, watched=()):
        cdef bytes name
        self.world, self.sink, self.limits = new World(), new Sink(), new Limits()
        self.budget, self.draining, self.version = new MemoryBudget(), new atomic[cpp_bool](), new ModelVersion()
        self.version.version = b"7"
        self.limits.max_body_bytes, self.limits.max_header_bytes = max_body_bytes, max_header_bytes
        self.world.budget = self.budget
        self.world.full = False
        self.sink.self = self.world
        self.sink.take, self.sink.recycle, self.sink.infer = take, recycle, infer
        self.sink.cold_open, self.sink.cold_message = cold_open, cold_message
        self.sink.cold_end, self.sink.cold_cancel, self.sink.ready = cold_end, cold_cancel, is_ready
        self.sink.limits, self.sink.budget, self.sink.draining = self.limits, self.budget, self.draining
        self.watched = new WatchedHeaders()
        for name in watched:
            self.watched.add(name)
        self.sink.watched = self.watched
        self.sink.now_ns = now_ns()
        if http2_transport:
            self.two = http2.open_connection(self.sink, string_view(b"loopback"), metrics_only)
        else:
            self.one = http1.open_connection(self.sink, string_view(b"loopback"), metrics_only)

    def __dealloc__(self):
        cdef InferRequest* request
        cdef ColdCall* call
        self.abandon()
        for request in self.world.infers:
            if request != NULL:
                self.give_back(request)
        for call in self.world.colds:
            if call != NULL:
                drop(call)
        del self.world, self.sink, self.limits, self.budget, self.watched, self.draining, self.version

    cdef give_back(self, InferRequest* request):
        if self.two != NULL:
            http2_reply(self.two, request)
            if self.two.abandoned and self.two.outstanding == 0:
                del self.two
                self.two = NULL
        else:
            if http1.reply(self.one, request):
                self.one = NULL

    def feed(self, bytes data) -> bool:
        """False: nothing more is to be sent to it."""
        if self.two != NULL:
            return http2.feed(self.two, <const uint8_t*> <const char*> data, len(data))
        return http1.feed(self.one, <const uint8_t*> <const char*> data, len(data))

    def sent(self, int64_t most=1 << 62) -> bytes:
        """What the client gets, since the last call; over HTTP/1.1 at most so many bytes."""
        cdef size_t start
        cdef Buffer* out
        if self.two != NULL:
            if not http2.produce(self.two):
                raise ConnectionError("the session is broken")
            got = (<const char*> self.two.out.data)[self.two.out_sent:self.two.out.size]
            self.two.out_sent = self.two.out.size
            return got
        out = http1.output(self.one, &start)
        got = (<const char*> out.data)[start:min(<int64_t> out.size, <int64_t> start + most)]
        http1.wrote(self.one, len(got))
        return got

    def end_input(self) -> bool:
        """The client has half-closed, over HTTP/1.1. True: it still awaits answers."""
        return http1.end_input(self.one)

    def lingers(self) -> bool:
        return http1.lingers(self.one)

    def finished(self) -> bool:
        return http2.finished(self.two) if self.two != NULL else http1.finished(self.one)

    def infers(self) -> list:
        """(model, version, label, body, json_size, is gRPC) of all inferences so far; an answered one is None."""
        cdef InferRequest* request
        found = []
        for request in self.world.infers:
            found.append(None if request == NULL else (
                request.path_model, request.path_version, request.path_label, (<const char*> request.body.data)[:request.body.size],
                request.json_size, request.encoding == Encoding.kProto))
        return found

    def cancelled(self, size_t number) -> bool:
        """Whether nobody waits for an unanswered inference any more."""
        return self.world.infers[number].cancelled.load()

    def answer(self, size_t number, bytes body, int64_t json_size=-1, at_us=()) -> None:
        """Answers inference `number` (for gRPC: the framed message). at_us: its stage times."""
        cdef InferRequest* request = self.world.infers[number]
        self.world.infers[number] = NULL
        request.version = <NativeVersion*> self.version
        request.response.append(<const char*> body, len(body))
        request.json_size = json_size
        if at_us:
            received, queued, started, gathered, computed, encoded, answered = (at * 1000 for at in at_us)
            request.times.received, request.times.queued, request.times.started = received, queued, started
            request.times.gathered, request.times.computed, request.times.encoded = gathered, computed, encoded
            request.times.answered = answered
        self.give_back(request)

    def refuse(self, size_t number, bytes text) -> None:
        cdef InferRequest* request = self.world.infers[number]
        self.world.infers[number] = NULL
        request.status.set(kInvalidArgument, b"INVALID_REQUEST", text)
        self.give_back(request)

    def colds(self) -> list:
        """(method, target, headers, body, cancelled) of all calls for Python so far."""
        cdef ColdCall* call
        return [(call.method, call.target, [(h.first, h.second) for h in call.headers], call.body, bool(call.cancelled.load()))
                for call in self.world.colds]

    def cold_answer(self, size_t number, int status, list headers, list parts, trailers=()) -> None:
        cdef ColdReply part
        self.cold_write(number, status, headers, parts)
        part.call = self.world.colds[number]
        part.kind = ColdReplyKind.kEnd
        part.headers = list(trailers)
        self.cold_part(&part)

    def cold_write(self, size_t number, int status, list headers, list parts) -> None:
        """The same, and more is to come."""
        cdef ColdReply part
        cdef ColdCall* call = self.world.colds[number]
        part.call = call
        part.kind = ColdReplyKind.kHeaders
        part.status = status
        part.headers = headers
        self.cold_part(&part)
        for data in parts:
            part.kind = ColdReplyKind.kData
            part.data = data
            call.pending.fetch_add(len(data))
            self.cold_part(&part)

    def cold_pending(self, size_t number) -> int:
        return self.world.colds[number].pending.load()

    cdef cold_part(self, ColdReply* part):
        if part.call.reply_to.stream == NULL:
            return
        if self.two != NULL:
            http2_cold_reply(self.two, part)
        else:
            http1.cold_reply(self.one, part)

    def abandon(self) -> None:
        """The socket has gone."""
        if self.gone:
            return
        self.gone = True
        if self.two != NULL:
            if http2.abandon(self.two):
                self.two = NULL
        elif self.one != NULL and http1.abandon(self.one):
            self.one = NULL

    def routing(self, size_t number) -> tuple:
        """(route key, nanoseconds until its deadline, 0: none) of an unanswered inference."""
        cdef InferRequest* request = self.world.infers[number]
        return (request.route_key.data()[:request.route_key.size()],
                request.deadline_ns - self.sink.now_ns if request.deadline_ns else 0)

    def watched_headers(self, size_t number) -> dict:
        """Those of an unanswered inference."""
        cdef InferRequest* request = self.world.infers[number]
        cdef const string* value
        found = {}
        for key, name in self.watched.names:
            value = request.notes.watched_value(key)
            if value != NULL:
                found[name] = value[0]
        return found

    # Time and load. set_now() is for both transports, what follows it for HTTP/1.1.
    def set_now(self, int64_t ns) -> None:
        self.sink.now_ns = ns

    def set_draining(self) -> None:
        self.draining.store(True)

    def drain(self, bint final) -> None:
        """A GOAWAY, over HTTP/2: the notice first, later the final one."""
        http2.drain(self.two, final)

    def set_budget(self, int64_t limit_bytes) -> None:
        """Bytes that requests may hold; see charged()."""
        self.budget.limit.store(limit_bytes)

    def charged(self) -> int:
        return self.budget.used.load()

    def fill_cold_queue(self) -> None:
        self.world.full = True

    def deadline(self) -> int:
        """Monotonic ns; 0: none."""
        return http1.next_deadline(self.one)

    def time_out(self) -> None:
        if self.two != NULL:
            refuse_slow(self.two)
        else:
            http1.on_timeout(self.one)

    def paused(self) -> bool:
        return http1.paused(self.one)

    def requests_alive(self) -> int:
        """Requests taken from the pool and not given back."""
        return self.world.taken - self.world.recycled
