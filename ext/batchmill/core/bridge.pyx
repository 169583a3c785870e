"""Cold calls up to Python and their answers down.

The data plane hands up what is not hot; a Python handler answers on the event loop. Up goes through one bounded queue and
an eventfd, down through one queue for each I/O thread. Of each call Python sees one ColdCall object.
"""

import os

from libcpp.utility cimport pair

from batchmill.core.front cimport ColdReplyKind, HeaderList

OPEN, MESSAGE, END, CANCEL, COMPRESSED, INFERRED = kOpen, kMessage, kHalfClose, kCancel, kCompressed, kInferred


cdef class ColdCall:
    """A call that Python answers: start() once, write() any number of times, finish() once. After the caller has gone they do nothing."""

    def __init__(self):
        raise TypeError("calls come from Bridge.take()")

    def __dealloc__(self):
        if self.native != NULL:
            if not self.ended:
                self.bridge.queue.ended()
            drop(self.native)

    @property
    def is_grpc(self) -> bool:
        return self.native.grpc

    @property
    def method(self) -> str:
        return self.native.method.decode("latin-1")

    @property
    def target(self) -> str:
        return self.native.target.decode("latin-1")

    @property
    def peer(self) -> str:
        return self.native.peer.decode("latin-1")

    @property
    def headers(self) -> list:
        return [(header.first, header.second) for header in self.native.headers]

    @property
    def body(self) -> bytes:
        return self.native.body

    @property
    def deadline_ns(self) -> int:
        return self.native.deadline_ns

    @property
    def cancelled(self) -> bool:
        return self.native.cancelled.load()

    @property
    def pending(self) -> int:
        """Bytes written that the connection has not taken: how far the caller is behind."""
        return self.native.pending.load()

    cdef void send(self, ColdReply* part):
        self.native.refs.fetch_add(1)
        part.call = self.native
        self.bridge.replies[self.native.reply_to.io_thread].push(part)

    def start(self, int status, headers) -> None:
        """Sends the status and headers (gRPC: status 200 and initial metadata). headers: (name, value) byte pairs."""
        cdef ColdReply* part = new ColdReply()
        part.kind = ColdReplyKind.kHeaders
        part.status = status
        fill(&part.headers, headers)
        self.send(part)

    def write(self, bytes data) -> None:
        """Sends a part of the body, or one gRPC message without its prefix."""
        cdef ColdReply* part = new ColdReply()
        part.kind = ColdReplyKind.kData
        part.data = data
        self.native.pending.fetch_add(len(data))
        self.send(part)

    def infer(self, str model, str version, str label, bytes body, int64_t json_size=-1, int64_t deadline_ns=0) -> None:
        """Has the data plane run an inference for this call; its answer comes by Bridge.take().

        body: as of a REST request, json_size of it JSON (-1: all of it). deadline_ns: monotonic; 0: none.
        """
        cdef ColdReply* part = new ColdReply()
        part.kind = ColdReplyKind.kInfer
        part.model, part.version, part.label = model.encode(), version.encode(), label.encode()
        part.data = body
        part.json_size, part.deadline_ns = json_size, deadline_ns
        self.send(part)

    def finish(self, trailers=()) -> None:
        """Ends the answer. trailers: for gRPC at least (b"grpc-status", b"0")."""
        cdef ColdReply* part
        if self.ended:
            return
        part = new ColdReply()
        part.kind = ColdReplyKind.kEnd
        fill(&part.headers, trailers)
        self.send(part)
        self.ended = True
        self.bridge.queue.ended()
        self.bridge.calls.pop(<size_t> self.native, None)


cdef int fill(HeaderList* target, given) except -1:
    cdef pair[string, string] header
    for name, value in given:
        header.first, header.second = name, value
        target.push_back(header)
    return 0


cdef class Bridge:
    """The Python end of the cold queue. fileno() is readable when take() has something."""

    def fileno(self) -> int:
        return self.queue.wake_fd

    @property
    def open_calls(self) -> int:
        return self.queue.open_calls

    def take(self) -> list:
        """All events that wait: (call, kind, payload).

        payload: the bytes of a MESSAGE or a COMPRESSED one; of INFERRED (HTTP status, size of the JSON or -1, body or error text).
        """
        cdef ColdEvent event
        cdef ColdCall call
        events = []
        try:
            os.eventfd_read(self.queue.wake_fd)
        except BlockingIOError:
            pass
        while self.queue.pop(&event):
            call = self.calls.get(<size_t> event.call)
            if call is None:
                if event.kind != kOpen:     # finished by Python before its last events came
                    drop(event.call)
                    continue
                call = ColdCall.__new__(ColdCall)
                call.native = event.call
                call.bridge = self
                self.calls[<size_t> event.call] = call
            else:
                drop(event.call)
            if event.kind == kCancel:
                self.calls.pop(<size_t> event.call, None)
            payload = None
            if event.kind in (kMessage, kCompressed):
                payload = <bytes> event.payload
            elif event.kind == kInferred:
                payload = event.status, event.json_size, <bytes> event.payload
            events.append((call, event.kind, payload))
        return events
