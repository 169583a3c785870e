"""What an I/O thread does for its front ends: decode, route, check, queue; and the pool of requests.

infer() never answers before it returns: what it refuses goes to the thread's answered list, delivered after the events.
"""

from cython.operator cimport dereference as deref
from libc.stdint cimport int32_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core cimport json_codec, pb_request
from batchmill.core.bridge cimport ColdQueue, drop, kCancel, kCompressed, kHalfClose, kInferred, kMessage, kOpen
from batchmill.core.clock cimport now_ns
from batchmill.core.entrance cimport enters, is_behind, set_deadline
from batchmill.core.executor cimport offer, run_inline, send_on_errand
from batchmill.core.fallback cimport Taking, kAgain, take_fallback
from batchmill.core.front cimport ColdCall, ColdReply
from batchmill.core.histogram cimport VersionStats, add
from batchmill.core.message cimport Encoding, Errand
from batchmill.core.mirror cimport hand_in, look_for_pressure
from batchmill.core.notes cimport Coding
from batchmill.core.queue cimport earlier
from batchmill.core.router cimport pick, ready
from batchmill.core.signature cimport check
from batchmill.core.status cimport Status, http_status_of, kDeadlineExceeded, kInvalidArgument, kOk, kResourceExhausted, kUnavailable

cdef size_t INLINE_JSON_BYTES = 64 << 10
cdef size_t COMPRESS_BYTES = 1 << 10    # a smaller answer fits into a packet as it is


cdef InferRequest* take_request(void* self) noexcept nogil:
    cdef IoThread* thread = <IoThread*> self
    cdef InferRequest* request = thread.free_requests
    if request == NULL:
        return take_returned(thread)
    thread.free_requests = request.next
    request.next = NULL
    return request


cdef InferRequest* take_returned(IoThread* thread) noexcept nogil:
    """One that shadows have done with, the last one first, or a new one. Made ready only now: to do so early reads it twice from afar."""
    cdef InferRequest* request = thread.returned if thread.returned != NULL else thread.home.take()
    if request == NULL:
        return new InferRequest()
    thread.returned = request.next
    if request.next != NULL:
        request.next.fetch()
    request.fetch_held()
    request.reset()
    return request


cdef void set_free(IoThread* thread, InferRequest* request) noexcept nogil:
    request.reset()
    request.next = thread.free_requests
    thread.free_requests = request


cdef void free_returned(IoThread* thread) noexcept nogil:
    cdef InferRequest* request
    cdef InferRequest* following
    if thread.returned == NULL:
        thread.returned = thread.home.take()
    request = thread.returned
    thread.returned = NULL
    while request != NULL:
        following = request.next
        set_free(thread, request)
        request = following


cdef void recycle_request(void* self, InferRequest* request) noexcept nogil:
    cdef IoThread* thread = <IoThread*> self
    cdef ModelVersion* version = <ModelVersion*> request.version
    cdef ShadowLine* shadows = &thread.shared.shadows
    if request.charged_bytes:
        thread.shared.budget.give(request.charged_bytes)
    if version != NULL and shadows.active.load():
        look_for_pressure(shadows, request, version, thread.sink.now_ns)
    if not (request.is_mirrored() and hand_in(shadows, request, version, thread.shared.budget, thread.sink.now_ns)):
        set_free(thread, request)
    if version != NULL:
        version.leases.fetch_sub(1)     # last: after it the version may be destroyed


cdef void answer_later(IoThread* thread, InferRequest* request) noexcept nogil:
    request.next = NULL
    if thread.answered == NULL:
        thread.answered = request
    else:
        thread.answered_last.next = request
    thread.answered_last = request


cdef bint takes_long(const InferRequest* request) noexcept nogil:
    """Whether it would hold this thread up to decode it here."""
    if request.coding != Coding.kIdentity:
        return True
    if request.encoding == Encoding.kProto:
        return False
    return (request.body.size if request.json_size < 0 else <size_t> request.json_size) > INLINE_JSON_BYTES


cdef bint decode(InferRequest* request) noexcept nogil:
    cdef bint decoded = request.errand == Errand.kDecode        # by an executor, meanwhile
    request.errand = Errand.kNone
    if not request.status.ok():
        return False
    if request.encoding == Encoding.kProto:
        return pb_request.parse(request)
    if not decoded and not json_codec.parse(request, request.body.data, request.body.size, request.json_size):
        return False
    name_by_path(request)
    return True


cdef void name_by_path(InferRequest* request) noexcept nogil:
    request.model_name = string_view(request.path_model.data(), request.path_model.size())
    request.model_version = string_view(request.path_version.data(), request.path_version.size())
    if request.path_label.size():
        request.label = string_view(request.path_label.data(), request.path_label.size())


cdef bint refuse_body(IoThread* thread, InferRequest* request) noexcept nogil:
    """Always False. What is wrong with a body, unless its path names no model: then that is said."""
    cdef Status told
    if request.encoding == Encoding.kJson and request.status.code == kInvalidArgument:
        told = request.status
        name_by_path(request)
        if pick(thread.table, request):
            (<ModelVersion*> request.version).leases.fetch_sub(1)
            request.version = NULL
            request.status = told
    return False


cdef bint admit(IoThread* thread, InferRequest* request) noexcept nogil:
    if not decode(request):
        return refuse_body(thread, request)
    return (pick(thread.table, request) and enters_version(thread, request)) or falls_back(thread, request)


cdef bint falls_back(IoThread* thread, InferRequest* request) noexcept nogil:
    """Whether another version is to answer what has failed, or was refused. What is constant has been answered then. When none can, the
    first failure is told.
    """
    cdef Status told
    cdef Taking taken
    if request.status.ok() or not request.routed:
        return False
    told = request.status
    while True:
        taken = take_fallback(thread.table, request, thread.index)
        if taken != kAgain:
            return False
        if enters_version(thread, request):
            return True
        request.status = told


cdef bint keeps_away(ModelVersion* version, InferRequest* request, int64_t now) noexcept nogil:
    cdef string text
    if not version.breaker.on.load() or version.breaker.admits(now):
        return False
    text = string(b"the breaker of version ").append(version.version).append(b" of model \"").append(version.name)
    text.append(b"\" is open: its runs keep failing")
    request.status.set(kUnavailable, b"BREAKER_OPEN", text)
    request.status.retry_ms = 1 + version.breaker.closed_for_ns(now) // 1000000
    return True


cdef bint enters_version(IoThread* thread, InferRequest* request) noexcept nogil:
    """The queue of its version, which it has a lease on."""
    cdef ModelVersion* version = <ModelVersion*> request.version
    cdef int64_t due, now
    if not check(version, request):
        return False
    set_deadline(version, request)
    if request.deadline_ns and request.deadline_ns <= thread.sink.now_ns:
        request.status.set(kDeadlineExceeded, b"DEADLINE_EXCEEDED", string(b"the deadline has passed"))
        return False
    if keeps_away(version, request, thread.sink.now_ns):
        return False
    if thread.flooded and is_behind(version, request, thread.keeps_up, thread.shared.limits.busy_status, thread.sink.now_ns):
        return False
    now = now_ns()
    request.times.queued = now
    version.stats_of(thread.index).decode.record(now - thread.busy_since_ns)
    if request.routed and request.fallback.empty():
        add(version.stats_of(thread.index).routed, 1)
    thread.busy_since_ns = now
    if not enters(&thread.shared.pool, version, request, thread.shared.limits.busy_status, now):
        if request.status.code == kResourceExhausted:
            thread.collecting.turn_away(version, request.predicted_wait_ns)
        return False
    due = earlier(request.deadline_ns, request.answer_by_ns)
    thread.collecting.let_in(version, due - now if due else 0, now)
    if thread.touched.size() == 0 or thread.touched.back() != version:
        thread.touched.push_back(version)
    return True


cdef void infer(void* self, InferRequest* request) noexcept nogil:
    cdef IoThread* thread = <IoThread*> self
    request.reply_to.socket = thread.current
    thread.taken_in += 1
    thread.shared.in_flight.fetch_add(1)
    if takes_long(request):
        request.errand = Errand.kDecode
        send_on_errand(&thread.shared.pool, request)
    elif not admit(thread, request):
        answer_later(thread, request)


cdef InferRequest* take_completions(IoThread* thread) noexcept nogil:
    cdef InferRequest* request = thread.completions.take()
    cdef InferRequest* following
    cdef InferRequest* answered = NULL
    cdef InferRequest** end = &answered
    while request != NULL:
        following = request.next
        if request.errand != Errand.kDecode:
            if falls_back(thread, request):
                request = following
                continue
            end[0] = request
            end = &request.next
        elif not admit(thread, request):
            answer_later(thread, request)
        request = following
    end[0] = NULL
    return answered


cdef void expire(IoThread* thread, InferRequest* request) noexcept nogil:
    if request.answer_by_ns < thread.sink.now_ns and request.status.ok():
        request.status.set(kDeadlineExceeded, b"DEADLINE_EXCEEDED", string(b"the deadline passed while the request was served"))


cdef bint compresses(IoThread* thread, InferRequest* request) noexcept nogil:
    if request.errand == Errand.kCompress:      # done: answer_coding says how
        return False
    if not request.status.ok() or request.response.size - request.response_start < COMPRESS_BYTES:
        request.answer_coding = Coding.kIdentity
        return False
    request.errand = Errand.kCompress
    send_on_errand(&thread.shared.pool, request)
    return True


cdef void run_touched(IoThread* thread) noexcept nogil:
    cdef ModelVersion* version
    cdef InferRequest* answered
    cdef InferRequest* following
    cdef size_t index = 0
    while index < thread.touched.size():        # what falls back touches another one
        version = thread.touched[index]
        index += 1
        while version.queue.rows.load() > 0:
            answered = run_inline(&thread.shared.pool, version, thread.scratch)
            if answered == NULL:
                offer(&thread.shared.pool, version)
                break
            while answered != NULL:
                following = answered.next
                if answered.reply_to.io_thread != thread.index:
                    thread.shared.pool.completions[answered.reply_to.io_thread].push(answered, answered)
                elif not falls_back(thread, answered):
                    answer_later(thread, answered)
                answered = following
    thread.touched.clear()


cdef const char* peer_of(InferRequest* request) noexcept nogil:
    cdef Socket* socket = <Socket*> request.reply_to.socket
    if socket != NULL:
        return socket.peer
    return (<ColdCall*> request.reply_to.stream).peer.c_str()


cdef void count(IoThread* thread, InferRequest* request) noexcept nogil:
    cdef ModelVersion* version = <ModelVersion*> request.version
    cdef VersionStats* stats
    cdef int64_t took
    cdef int32_t code = <int32_t> request.status.code
    thread.shared.in_flight.fetch_sub(1)
    request.times.answered = thread.sink.now_ns
    if thread.access_log.wants():
        thread.access_log.put(deref(request), peer_of(request))
    if version == NULL:
        thread.shared.outcome[code].fetch_add(1)
        return
    stats = version.stats_of(thread.index)
    took = request.times.answered - request.times.received
    add(stats.outcome[code], 1)
    stats.last_ns.store(request.times.answered)
    add(stats.bytes_in, request.body.size)
    add(stats.bytes_out, request.response.size - request.response_start)
    if code == <int32_t> kOk:
        stats.total[<int> request.encoding].record(took)
        add(stats.queue_ns, <uint64_t> (request.times.started - request.times.queued))
    else:
        add(stats.failed_ns, <uint64_t> took)
        stats.count_reason(request.status.reason)


# Inferences that Python wants for its calls. They belong to no socket.
cdef void infer_for(IoThread* thread, ColdReply* part) noexcept nogil:
    cdef InferRequest* request = take_request(thread)
    request.encoding = Encoding.kJson
    request.path_model.swap(part.model)
    request.path_version.swap(part.version)
    request.path_label.swap(part.label)
    request.json_size = part.json_size
    request.deadline_ns = part.deadline_ns
    request.max_response_bytes = thread.shared.limits.max_response_bytes
    request.times.received = thread.sink.now_ns
    request.reply_to.stream = part.call
    request.reply_to.connection = request.reply_to.socket = NULL
    request.reply_to.io_thread = thread.index
    part.call.refs.fetch_add(1)
    thread.current = NULL
    if not thread.shared.budget.cover(&request.charged_bytes, <int64_t> part.data.size()):
        request.status.set(kUnavailable, b"PENDING_BYTES", string(b"too many bytes of requests are held: try again"))
    elif not request.body.append(part.data.data(), part.data.size()):
        request.status.set(kUnavailable, b"NO_MEMORY", string(b"no memory for the request"))
    if request.status.ok():
        infer(thread, request)
    else:
        thread.shared.in_flight.fetch_add(1)
        answer_later(thread, request)


cdef void hand_up(IoThread* thread, InferRequest* request) noexcept nogil:
    cdef ColdCall* call = <ColdCall*> request.reply_to.stream
    cdef ColdQueue* queue = &thread.shared.cold_queue
    cdef int status = 200
    cdef string answer
    if request.status.ok():
        answer.assign(<const char*> request.response.data + request.response_start, request.response.size - request.response_start)
    else:
        status = http_status_of(request.status)
        answer = request.status.message
    if not queue.push(call, kInferred, answer, status, request.json_size):
        queue.push(call, kInferred, string(), 503, -1)      # one without bytes always gets through
    recycle_request(thread, request)
    drop(call)


# Cold calls.
cdef cpp_bool cold_open(void* self, ColdCall* call) noexcept nogil:
    cdef IoThread* thread = <IoThread*> self
    call.reply_to.socket = thread.current
    return thread.shared.cold_queue.push(call, kOpen, string())


cdef cpp_bool cold_message(void* self, ColdCall* call, const uint8_t* data, size_t size, cpp_bool compressed) noexcept nogil:
    return (<IoThread*> self).shared.cold_queue.push(call, kCompressed if compressed else kMessage, string(<const char*> data, size))


cdef void cold_end(void* self, ColdCall* call) noexcept nogil:
    (<IoThread*> self).shared.cold_queue.push(call, kHalfClose, string())


cdef void cold_cancel(void* self, ColdCall* call) noexcept nogil:
    (<IoThread*> self).shared.cold_queue.push(call, kCancel, string())
    drop(call)


cdef int is_ready(void* self, string_view model, string_view version) noexcept nogil:
    cdef IoThread* thread = <IoThread*> self
    cdef bint serving = thread.shared.ready.load() and not thread.shared.draining.load()
    cdef int known
    if model.size() == 0:
        return 1 if serving else 0
    known = ready(thread.table, model, version)
    return 0 if known > 0 and thread.shared.draining.load() else known


cdef void connect_sink(IoThread* thread) noexcept nogil:
    thread.sink.self = thread
    thread.sink.take = take_request
    thread.sink.recycle = recycle_request
    thread.sink.infer = infer
    thread.sink.cold_open = cold_open
    thread.sink.cold_message = cold_message
    thread.sink.cold_end = cold_end
    thread.sink.cold_cancel = cold_cancel
    thread.sink.ready = is_ready
    thread.sink.limits = &thread.shared.limits
    thread.sink.budget = &thread.shared.budget
    thread.sink.draining = &thread.shared.draining
    thread.sink.io_thread = thread.index
    thread.sink.now_ns = now_ns()
