"""The bounded queue of one model version: a sub-queue for each shape, the most urgent first, refused at once when full.

Urgency is a point in time, fixed on arrival: the deadline (earliest deadline first; Liu and Layland, 1973), or for those who have
none a fixed time after they came, which is first come, first served. Each level of priority counts as due a step later. So who
waits becomes more urgent than whoever comes later, and no level starves.
What has expired, has been cancelled or cannot be answered in time any more is dropped, never run.
"""

from libcpp.string cimport string

from batchmill.core.admission cimport Ahead, Terms, judge, kTaken, kTooMany, predict
from batchmill.core.batcher cimport Size, fitting, size_of
from batchmill.core.histogram cimport CloseReason
from batchmill.core.predictor cimport Estimate, expected_ns, find, guarded_ns, is_fresh, width_of
from batchmill.core.status cimport kCancelled, kDeadlineExceeded
from batchmill.core.sub_queues cimport Waiting, add_sub_queue, find_sub_queue, forget_empty, most_urgent, oldest, shape_hash

cdef extern from * nogil:
    """
    #include "queue.hpp"
    static inline void batchmill_lock(batchmill::RequestQueue* q) { q->mutex.lock(); }
    static inline void batchmill_unlock(batchmill::RequestQueue* q) { q->mutex.unlock(); }
    """
    void lock "batchmill_lock"(RequestQueue*)
    void unlock "batchmill_unlock"(RequestQueue*)

cdef int64_t HORIZON_NS = 2000000000        # when those are due who name no deadline
cdef int64_t PRIORITY_STEP_NS = 100000000
cdef size_t SKIPS = 8                       # requests too large for the rest of a batch that are passed over
cdef int64_t SAMPLES = 256                  # requests that are looked at to tell how many are more urgent than one
cdef int64_t SWEEP_NS = 1000000             # a full queue is not searched more often


cdef inline int64_t rows_of(const InferRequest* request) noexcept nogil:
    return request.rows if request.rows > 0 else 1


cdef int64_t urgency_of(RequestQueue* queue, const InferRequest* request) noexcept nogil:
    cdef int64_t due = earlier(request.deadline_ns, request.objective_ns)
    cdef int32_t levels = queue.priority_levels.load()
    cdef uint64_t level = request.priority
    if due == 0:
        due = request.times.queued + HORIZON_NS
    if levels == 0:
        return due
    if level == 0 or level > <uint64_t> levels:
        level = <uint64_t> queue.default_priority.load()
    return due + <int64_t> level * PRIORITY_STEP_NS


cdef void look_again(RequestQueue* queue) noexcept nogil:
    """After something was taken."""
    cdef SubQueue* top = most_urgent(queue.shapes)
    queue.mixed = queue.mixed and top != NULL
    queue.oldest_ns.store(oldest(queue.shapes, queue.mixed))
    queue.urgent_ns.store(top.top().urgency_ns if top != NULL else 0)
    forget_empty(queue.shapes)


# In.
cdef Ahead ahead_of(RequestQueue* queue, const SubQueue* own, int64_t urgency_ns) noexcept nogil:
    """The rows that are served before one that comes now, and their work. own: of its shape; NULL: nobody is.

    Of many requests only some are looked at, evenly spread.
    """
    cdef Ahead ahead = Ahead(0, 0, 0)
    cdef int64_t step = queue.requests.load() // SAMPLES + 1, at = 0
    cdef const Waiting* one
    cdef size_t index
    if urgency_ns >= queue.latest_ns:
        return Ahead(queue.rows.load(), own.rows if own != NULL else 0, <double> queue.work_ns.load())
    for index in range(queue.shapes.size()):
        while at < <int64_t> queue.shapes[index].size():
            one = &queue.shapes[index].at(<size_t> at)
            if one.urgency_ns <= urgency_ns:
                ahead.rows += rows_of(one.request) * step
                if own == &queue.shapes[index]:
                    ahead.alike += rows_of(one.request) * step
                ahead.work_ns += <double> (one.cost_ns * step)
            at += step
        at -= <int64_t> queue.shapes[index].size()
    return ahead


cdef void price(RequestQueue* queue, double each_ns) noexcept nogil:
    """Those that came before anything was known: who counted them as nothing would promise too much, and then trust no prediction."""
    cdef size_t index, at
    cdef Waiting* one
    queue.has_unpriced = False
    for index in range(queue.shapes.size()):
        for at in range(queue.shapes[index].size()):
            one = &queue.shapes[index].at(at)
            if one.cost_ns == 0:
                one.cost_ns = <int64_t> (each_ns * <double> rows_of(one.request))
                queue.count(0, 0, one.cost_ns)


cdef void enter(RequestQueue* queue, SubQueue* sub, const Waiting& one) noexcept nogil:
    cdef bint first = queue.requests.load() == 0
    one.request.next = NULL
    sub.push(one)
    sub.rows += rows_of(one.request)
    queue.count(rows_of(one.request), 1, one.cost_ns)
    queue.has_unpriced = queue.has_unpriced or one.cost_ns == 0
    if first:
        queue.latest_ns = queue.newest_ns = 0
    if one.urgency_ns < queue.latest_ns or one.request.times.queued < queue.newest_ns:
        queue.mixed = True
    queue.latest_ns = max(queue.latest_ns, one.urgency_ns)
    queue.newest_ns = max(queue.newest_ns, one.request.times.queued)
    if first or one.request.times.queued < queue.oldest_ns.load():
        queue.oldest_ns.store(one.request.times.queued)
    if first or one.urgency_ns < queue.urgent_ns.load():
        queue.urgent_ns.store(one.urgency_ns)


cdef void enter_parts(RequestQueue* queue, SubQueue* sub, const Waiting& whole, double each_ns) noexcept nogil:
    """As if they had come one right after the other."""
    cdef Waiting one = whole
    cdef InferRequest* part = whole.request.parts
    while part != NULL:
        queue.arrivals += 1
        one.number, one.request = queue.arrivals, part
        one.cost_ns = <int64_t> (each_ns * <double> part.rows)
        enter(queue, sub, one)
        part = part.next_part


cdef inline int64_t left(int64_t until_ns, int64_t now_ns) noexcept nogil:
    """0: none; a time that has passed is left the shortest."""
    return max(1, until_ns - now_ns) if until_ns else 0


cdef double slack_of(const InferRequest* first, const Estimate& known, double share, int64_t now_ns) noexcept nogil:
    """For how long its batch may run; below 0: for any time. Who would be in time alone is: as one who is late whatever is done he would
    take all that wait with him, and they would be late, too.
    """
    cdef int64_t finish_by_ns = earlier(first.answer_by_ns, first.objective_ns)
    cdef double left_ns = <double> left(finish_by_ns, now_ns), alone_ns
    if finish_by_ns == 0:
        return -1
    alone_ns = guarded_ns(known, rows_of(first))
    return alone_ns if left_ns * share < alone_ns <= left_ns else left_ns * share


cdef void narrow(RequestQueue* queue, Ahead* ahead, Terms* terms, int64_t rows, int64_t now_ns) noexcept nogil:
    """What waits does not run together when the most urgent has no time for so many: then batches are smaller, and rows cost more."""
    cdef SubQueue* sub = most_urgent(queue.shapes)
    cdef int64_t most = min(ahead.rows + rows, terms.most_rows)
    cdef double slack_ns = -1 if sub == NULL else slack_of(sub.top().request, terms.known, terms.slack_share, now_ns)
    cdef double row_ns
    if slack_ns < 0 or guarded_ns(terms.known, most) <= slack_ns:
        return
    most = fitting(most, terms.known, slack_ns)
    if most:
        row_ns = max(terms.row_ns, expected_ns(terms.known, most) / <double> most)
        ahead.work_ns *= row_ns / terms.row_ns
        terms.most_rows, terms.row_ns = most, row_ns


cdef Entry put(RequestQueue* queue, InferRequest* request, const Terms& given, int64_t now_ns) noexcept nogil:
    """An empty queue takes one request of any size: what is larger than the bound would otherwise never be served."""
    cdef int64_t rows = rows_of(request), start_by_ns
    cdef uint64_t shape
    cdef SubQueue* sub
    cdef Entry entry
    cdef Ahead ahead
    cdef Terms terms
    cdef Waiting one
    lock(queue)
    one.urgency_ns, one.number, one.request = urgency_of(queue, request), queue.arrivals + 1, request
    one.cost_ns = <int64_t> (given.row_ns * <double> rows)
    if queue.rows.load() + rows > queue.max_rows.load() and now_ns - queue.swept_ns > SWEEP_NS:
        sweep_locked(queue, now_ns)
    if queue.has_unpriced and given.row_ns > 0:
        price(queue, given.row_ns)
    shape = shape_hash(request)
    sub = find_sub_queue(queue.shapes, request, shape)
    ahead = ahead_of(queue, sub, one.urgency_ns)
    terms = given
    if terms.row_ns > 0:
        narrow(queue, &ahead, &terms, rows, now_ns)
    entry = predict(rows, ahead, terms, request.deadline_ns or request.answer_by_ns or request.objective_ns)
    if queue.requests.load() and queue.rows.load() + rows > queue.max_rows.load():
        entry.verdict = kTooMany
    else:
        # Where a timeout of the queue only delays, it refuses nobody either.
        start_by_ns = 0 if queue.delays.load() else left(request.deadline_ns, now_ns)
        entry.verdict = judge(entry, ahead, terms, start_by_ns, left(request.answer_by_ns, now_ns),
                              left(request.objective_ns, now_ns), is_fresh(terms.known, now_ns))
    if entry.verdict == kTaken:     # from here on an executor may have it
        request.predicted_wait_ns = <int64_t> (entry.wait_ns / terms.drift + 0.5)
        if sub == NULL:
            sub = add_sub_queue(queue.shapes, request, shape)
        if request.parts == NULL:
            queue.arrivals += 1
            enter(queue, sub, one)
        else:
            enter_parts(queue, sub, one, given.row_ns)
    unlock(queue)
    return entry


# Out.
cdef bint is_dead(InferRequest* request, int64_t now_ns) noexcept nogil:
    if request.is_cancelled():
        request.status.set(kCancelled, b"CANCELLED", string(b"the caller has gone"))
        return True
    if request.deadline_ns and request.deadline_ns <= now_ns:
        request.status.set(kDeadlineExceeded, b"DEADLINE_EXCEEDED", string(b"the deadline passed before the run started"))
        return True
    return False


cdef bint is_too_late(InferRequest* request, const Estimate& known, bint others_wait, int64_t now_ns) noexcept nogil:
    """Whether its run, as predicted by one that is not long ago, would end after its deadline (early drop: Nexus, SOSP 2019). Where others
    wait for the same time, who would hardly make it is no better served: half of those would be run in vain.
    """
    cdef double run_ns
    if request.answer_by_ns == 0 or not is_fresh(known, now_ns):
        return False
    run_ns = guarded_ns(known, rows_of(request)) if others_wait else expected_ns(known, rows_of(request))
    if now_ns + <int64_t> run_ns <= request.answer_by_ns:
        return False
    request.status.set(kDeadlineExceeded, b"DEADLINE_EXCEEDED", string(b"the deadline would have passed before the run ended"))
    return True


cdef void let_go(RequestQueue* queue, SubQueue* sub) noexcept nogil:
    queue.count(-rows_of(sub.top().request), -1, -sub.top().cost_ns)
    sub.rows -= rows_of(sub.top().request)
    sub.pop()


cdef void drop_top(RequestQueue* queue, SubQueue* sub, int64_t now_ns) noexcept nogil:
    """To those that are handed out unserved. Where the queue's time only delays, who has waited too long goes behind those who wait now."""
    cdef Waiting one = sub.top()
    let_go(queue, sub)
    if one.request.status.code == kDeadlineExceeded and queue.delays.load() and one.request.deadline_ns != one.request.answer_by_ns:
        one.request.status.clear()
        one.request.deadline_ns = one.request.answer_by_ns
        one.urgency_ns = earlier(one.request.answer_by_ns, now_ns + HORIZON_NS)
        enter(queue, sub, one)
        return
    one.request.next = queue.swept.load()
    queue.swept.store(one.request)


cdef void fill(RequestQueue* queue, SubQueue* sub, int64_t max_rows, int64_t now_ns, Taken* taken) noexcept nogil:
    """The batch from that sub-queue, whose top is alive. What does not fit any more waits on, and smaller ones may come before it."""
    cdef vector[Waiting] skipped
    cdef InferRequest* last = NULL
    cdef InferRequest* request
    cdef size_t index
    while sub.size() and taken.rows < max_rows and skipped.size() < SKIPS:
        request = sub.top().request
        if is_dead(request, now_ns):
            drop_top(queue, sub, now_ns)
        elif last == NULL or (not sub.alone and taken.rows + request.rows <= max_rows):
            let_go(queue, sub)
            request.next = NULL
            if last == NULL:
                taken.batch = request
            else:
                last.next = request
            last = request
            taken.rows += rows_of(request)
            taken.count += 1
        elif sub.alone:
            break
        else:
            skipped.push_back(sub.top())
            sub.pop()
    for index in range(skipped.size()):
        sub.push(skipped[index])


cdef void fill_from(RequestQueue* queue, SubQueue* sub, const Estimate& known, const Rules& rules, int64_t now_ns,
                    Taken* taken) noexcept nogil:
    cdef Size size = size_of(sub.rows, rules.limits, known, slack_of(sub.top().request, known, rules.slack_share, now_ns), rules.turn_ns)
    fill(queue, sub, size.rows, now_ns, taken)
    taken.expected_ns = expected_ns(known, taken.rows)
    taken.reason = size.reason
    if taken.reason == CloseReason.kIdle and queue.requests.load() > <int64_t> sub.size():
        taken.reason = CloseReason.kShape


cdef Taken take(RequestQueue* queue, const Rules& rules, int64_t now_ns) noexcept nogil:
    cdef Taken taken
    cdef SubQueue* sub
    cdef Estimate known
    taken.batch = NULL
    taken.rows = taken.count = taken.width = 0
    taken.expected_ns = 0
    taken.reason = CloseReason.kIdle
    lock(queue)
    sub = most_urgent(queue.shapes)
    while sub != NULL and taken.batch == NULL:
        taken.width = width_of(sub.top().request.inputs, rules.first_axis)
        if rules.times != NULL:
            known = find(rules.times, taken.width)
        if is_dead(sub.top().request, now_ns) or is_too_late(sub.top().request, known, queue.requests.load() > 1, now_ns):
            drop_top(queue, sub, now_ns)
            sub = most_urgent(queue.shapes)
        else:
            fill_from(queue, sub, known, rules, now_ns, &taken)
            if taken.batch == NULL:     # all that was there has been cancelled between two looks
                sub = most_urgent(queue.shapes)
    taken.dropped = queue.swept.exchange(NULL)
    look_again(queue)
    unlock(queue)
    return taken


cdef void sweep_locked(RequestQueue* queue, int64_t now_ns) noexcept nogil:
    cdef vector[Waiting] all
    cdef size_t index, at
    cdef SubQueue* sub
    queue.swept_ns = now_ns
    for index in range(queue.shapes.size()):
        sub = &queue.shapes[index]
        all.clear()
        for at in range(sub.size()):
            if is_dead(sub.at(at).request, now_ns):
                break
        else:
            continue
        while sub.size():       # in their order, so that it stays in order
            if is_dead(sub.top().request, now_ns):
                drop_top(queue, sub, now_ns)
            else:
                all.push_back(sub.top())
                sub.pop()
        for at in range(all.size()):
            sub.push(all[at])
    look_again(queue)


cdef InferRequest* sweep(RequestQueue* queue, int64_t now_ns) noexcept nogil:
    cdef InferRequest* found
    lock(queue)
    sweep_locked(queue, now_ns)
    found = queue.swept.exchange(NULL)
    unlock(queue)
    return found
