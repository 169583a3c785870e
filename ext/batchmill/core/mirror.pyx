"""Keeps a request that was answered for candidates that shall answer it, too. Its tensors are not copied: it lives on as it is.

All of this happens on threads that serve callers, and takes no lock. Memory that shadows hold is no burden of callers: it leaves their
budget and counts against the shadow's own. Where callers wait or half of their budget is used, shadows get nothing.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy
from libcpp.string_view cimport string_view

from batchmill.core.message cimport Encoding, Mirror, NativeVersion
from batchmill.core.notes cimport Coding
from batchmill.core.router cimport kMostPending, Shadow
from batchmill.core.status cimport kResourceExhausted
from batchmill.core.tensor cimport total_bytes

cdef int64_t PRESSED_NS = 100000000     # for so long after a caller has waited too long, shadows are shed
cdef uint64_t PAIRED_EACH = 8           # one of so many requests keeps its lease until it has been run
cdef int64_t LONG_WAIT_NS = 20000000    # beside two runs: more than that is no matter of one batch before his own


cdef size_t varint_size(size_t value) noexcept nogil:
    cdef size_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef bint find_raw(InferRequest* request, Mirror* mirror) noexcept nogil:
    """Points the outputs to where they stand in the answer: at its end, in order. False: not all stand there raw, or will not for long."""
    cdef size_t index = mirror.outputs.size(), at = request.response.size
    cdef bint proto = request.encoding == Encoding.kProto
    cdef TensorView* output
    if request.answer_coding != Coding.kIdentity or (proto and request.typed_contents):
        return False
    if not proto and (request.json_size < 0 or <int64_t> (at - request.response_start) - request.json_size != total_bytes(
            mirror.outputs.data(), index)):
        return False
    while index > 0:
        index -= 1
        output = &mirror.outputs[index]
        at -= output.size
        output.data = request.response.data + at
        if proto:       # behind its tag and length
            at -= 1 + varint_size(output.size)
    return True


cdef void keep_answer(InferRequest* request, const TensorView* outputs, size_t count) noexcept nogil:
    cdef Mirror* mirror = request.mirror.get()
    cdef size_t index, size = 0
    cdef TensorView* output
    cdef bint raw
    mirror.outputs.assign(outputs, outputs + count)
    raw = find_raw(request, mirror)
    for index in range(count):
        size += outputs[index].name.size() + (0 if raw else outputs[index].size)
    mirror.kept = mirror.bytes.reserve(size if size else 1)
    if not mirror.kept:
        return
    for index in range(count):
        output = &mirror.outputs[index]
        # Names are the version's, which may be gone by then.
        memcpy(mirror.bytes.data + mirror.bytes.size, output.name.data(), output.name.size())
        output.name = string_view(<const char*> mirror.bytes.data + mirror.bytes.size, output.name.size())
        mirror.bytes.size += output.name.size()
        if not raw and output.size:
            memcpy(mirror.bytes.data + mirror.bytes.size, output.data, output.size)
            output.data = mirror.bytes.data + mirror.bytes.size
            mirror.bytes.size += output.size


cdef void look_for_pressure(ShadowLine* line, const InferRequest* request, ModelVersion* version, int64_t now) noexcept nogil:
    cdef int64_t waited = request.times.started - request.times.queued
    cdef bint pressed
    if request.times.started == 0:
        pressed = request.status.code == kResourceExhausted     # was refused: an answer that is too large has run
    else:
        pressed = waited > LONG_WAIT_NS + version.max_queue_delay_ns.load() + 2 * (request.times.computed - request.times.gathered)
    if pressed and line.pressed_until_ns.load() < now + PRESSED_NS // 2:
        line.pressed_until_ns.store(now + PRESSED_NS)


cdef void unsettle(const Padding* padding, InferRequest* request) noexcept nogil:
    cdef size_t index
    for index in range(padding.inputs.size()):
        if padding.inputs[index].axis:
            request.inputs[index].shape.dims[padding.inputs[index].axis] = request.length


cdef void forget_answering(Mirror* mirror) noexcept nogil:
    if mirror.answered_by != NULL:
        (<ModelVersion*> mirror.answered_by).leases.fetch_sub(1)
        mirror.answered_by = NULL


cdef bint enter(ShadowLine* line, InferRequest* request) noexcept nogil:
    cdef Mirror* mirror = request.mirror.get()
    cdef Shadow* shadow
    while mirror.at < mirror.count:
        shadow = <Shadow*> mirror.shadows[mirror.at]
        if not shadow.active.load() or line.draining.load() or line.stopping.load():
            shadow.dropped.fetch_add(1)
        elif (line.pressed_until_ns.load() > mirror.since_ns or shadow.pending.load() >= kMostPending
              or shadow.pending_bytes.load() + mirror.held_bytes > shadow.settings.max_pending_bytes):
            shadow.shed.fetch_add(1)
        else:
            shadow.pending.fetch_add(1)
            shadow.pending_bytes.fetch_add(mirror.held_bytes)
            line.send(request)
            return True
        mirror.at += 1
        shadow.let_go()
    forget_answering(mirror)
    return False


cdef void abandon(InferRequest* request, bint shed) noexcept nogil:
    cdef Mirror* mirror = request.mirror.get()
    cdef Shadow* shadow
    while mirror.at < mirror.count:
        shadow = <Shadow*> mirror.shadows[mirror.at]
        mirror.at += 1
        if shed:
            shadow.shed.fetch_add(1)
        shadow.let_go()


cdef bint hand_in(ShadowLine* line, InferRequest* request, ModelVersion* version, const MemoryBudget& budget, int64_t now) noexcept nogil:
    cdef Mirror* mirror = request.mirror.get()
    cdef uint64_t number = 0
    cdef int at
    # No answer to compare with, or that of another than whose candidates these are.
    if version == NULL or not request.status.ok() or not mirror.kept or not request.fallback.empty():
        abandon(request, False)
        return False
    for at in range(mirror.count):
        number = (<Shadow*> mirror.shadows[at]).mirrored.fetch_add(1)
    if budget.used.load() > budget.limit.load() // 2 or line.pressed_until_ns.load() > now:
        abandon(request, True)
        return False
    mirror.since_ns = now
    if number % PAIRED_EACH == 0 and (<Shadow*> mirror.shadows[0]).paired.load():
        version.leases.fetch_add(1)
        mirror.answered_by = <NativeVersion*> version
    if version.padding.get() != NULL:
        unsettle(version.padding.get(), request)
    request.forget_parts()
    request.charged_bytes = 0
    request.version = NULL      # its caller pays the lease back
    request.notes = NULL
    request.route_key = string_view()
    mirror.held_bytes = <int64_t> (sizeof(InferRequest) + request.body.capacity + request.arena.capacity + request.response.capacity
                                   + mirror.bytes.capacity)
    return enter(line, request)
