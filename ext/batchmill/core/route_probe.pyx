"""Requests through a front end, the decoder and the router, and their answers back, without queue and run, on the calling thread.

For benchmarks and tests.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.string cimport memset
from libcpp cimport bool as cpp_bool
from libcpp.atomic cimport atomic
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from batchmill.core cimport http1, http2
from batchmill.core.batch cimport write_answer
from batchmill.core.clock cimport now_ns
from batchmill.core.front cimport Limits, Sink
from batchmill.core.histogram cimport add
from batchmill.core.http1_parser cimport Http1Connection
from batchmill.core.http2_reply cimport reply as http2_reply
from batchmill.core.http2_stream cimport Http2Connection
from batchmill.core.intake cimport decode
from batchmill.core.message cimport InferRequest
from batchmill.core.reactor cimport Server
from batchmill.core.router cimport ModelVersion, RouteTable, pick
from batchmill.core.tensor cimport Buffer, DataType, MemoryBudget, TensorView

cdef int FRAME_HEAD = 9     # bytes of an HTTP/2 frame before its payload, the last four of them are its stream

cdef cppclass World:
    const RouteTable* table     # a server's
    MemoryBudget budget
    TensorView output           # what all are answered: eight floats
    float[8] floats
    InferRequest* free          # the one that goes round
    InferRequest* asked         # what the front end has handed over
    int64_t refused


cdef InferRequest* take(void* self) noexcept nogil:
    cdef World* world = <World*> self
    cdef InferRequest* request = world.free
    world.free = NULL
    return request if request != NULL else new InferRequest()


# As in intake.recycle_request.
cdef void recycle(void* self, InferRequest* request) noexcept nogil:
    cdef World* world = <World*> self
    cdef ModelVersion* version = <ModelVersion*> request.version
    if request.charged_bytes:
        world.budget.give(request.charged_bytes)
    request.reset()
    if world.free == NULL:
        world.free = request
    else:
        del request
    if version != NULL:
        version.leases.fetch_sub(1)


# As in intake.admit and intake.enters_version, but for what is about queues.
cdef void infer(void* self, InferRequest* request) noexcept nogil:
    cdef World* world = <World*> self
    cdef ModelVersion* version
    world.asked = request
    if not (decode(request) and pick(world.table, request)):
        world.refused += 1
        return
    version = <ModelVersion*> request.version
    if request.routed and request.fallback.empty():
        add(version.stats_of(0).routed, 1)
    write_answer(version, request, &world.output, 1)
    add(version.stats_of(0).outcome[<int32_t> request.status.code], 1)


cdef void name_stream(uint8_t* frames, size_t size, int32_t stream) noexcept nogil:
    """Of all of them."""
    cdef size_t at = 0
    while at + FRAME_HEAD <= size:
        frames[at + 5], frames[at + 6] = <uint8_t> (stream >> 24), <uint8_t> (stream >> 16)
        frames[at + 7], frames[at + 8] = <uint8_t> (stream >> 8), <uint8_t> stream
        at += FRAME_HEAD + (frames[at] << 16 | frames[at + 1] << 8 | frames[at + 2])


cdef class Passage:
    """One connection over which requests come to the route tables of servers that are not started.

    opening: what the client sends first over HTTP/2, perhaps with a request on stream 1, which has no answer; empty: it speaks HTTP/1.1.
    """

    cdef World* world
    cdef Sink* sink
    cdef Limits* limits
    cdef atomic[cpp_bool]* draining
    cdef Http1Connection* one
    cdef Http2Connection* two
    cdef int32_t stream         # the last that the client opened

    def __cinit__(self, bytes opening):
        cdef string_view peer = string_view(b"probe")
        self.world, self.sink, self.limits, self.draining = new World(), new Sink(), new Limits(), new atomic[cpp_bool]()
        self.world.output.name, self.world.output.dtype = string_view(b"y"), DataType.kFp32
        self.world.output.shape.rank, self.world.output.shape.dims[0], self.world.output.shape.dims[1] = 2, 1, 8
        memset(self.world.floats, 0, sizeof(self.world.floats))
        self.world.output.data, self.world.output.size = <const uint8_t*> self.world.floats, sizeof(self.world.floats)
        self.sink.self = self.world
        self.sink.take, self.sink.recycle, self.sink.infer = take, recycle, infer
        self.sink.limits, self.sink.budget, self.sink.draining = self.limits, &self.world.budget, self.draining
        self.sink.now_ns = now_ns()
        if opening:
            self.stream = 1
            self.two = http2.open_connection(self.sink, peer, False)
            self.pass_on(<const uint8_t*> <const char*> opening, len(opening))
        else:
            self.one = http1.open_connection(self.sink, peer, False)

    def __dealloc__(self):
        if self.two != NULL:
            http2.abandon(self.two)
        if self.one != NULL:
            http1.abandon(self.one)
        del self.world.free
        del self.world, self.sink, self.limits, self.draining

    def ask(self, Server server, list requests, int64_t count) -> None:
        """Sends so many, those that are given in turns; over HTTP/2 they are the frames of one stream each. The server's versions count
        what they are given. ValueError: one was refused.
        """
        cdef vector[string] given = requests
        cdef int64_t number
        cdef string* request
        self.world.table = server.shared.table.load()
        self.sink.watched = &self.world.table.watched if self.world.table.watched.names.size() else NULL
        self.world.refused = 0
        with nogil:
            for number in range(count):
                request = &given[<size_t> number % given.size()]
                if self.two != NULL:
                    self.stream += 2
                    name_stream(<uint8_t*> request.data(), request.size(), self.stream)
                self.pass_on(<const uint8_t*> request.data(), request.size())
        if self.world.refused:
            raise ValueError(f"{self.world.refused} requests were refused")

    cdef void pass_on(self, const uint8_t* data, size_t size) noexcept nogil:
        cdef World* world = self.world
        cdef Buffer* out
        cdef size_t start
        world.asked = NULL
        if self.two != NULL:
            http2.feed(self.two, data, size)
        else:
            http1.feed(self.one, data, size)
        if world.asked == NULL:
            world.refused += 1
        elif self.two != NULL:
            http2_reply(self.two, world.asked)
            http2.produce(self.two)
            self.two.out_sent = self.two.out.size
        else:
            http1.reply(self.one, world.asked)
            out = http1.output(self.one, &start)
            http1.wrote(self.one, out.size - start)
