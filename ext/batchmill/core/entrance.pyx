"""Whether a request enters its version's queue, and what it is told if it does not."""

from libcpp.string cimport string

from batchmill.core.admission cimport Entry, Terms, kHopeless, kTaken, kTooLong, kUnmeetable
from batchmill.core.batcher cimport BatchLimits, most_rows, price_ns
from batchmill.core.executor cimport parallel_of
from batchmill.core.parts cimport split
from batchmill.core.predictor cimport find, is_confirmed, width_of
from batchmill.core.queue cimport earlier, put
from batchmill.core.status cimport kDeadlineExceeded, kResourceExhausted
from batchmill.core.turns cimport limits_of

cdef extern from * nogil:
    string to_string "std::to_string"(int64_t)

cdef int64_t BEHIND_RETRY_MS = 1000     # as for pending bytes: nothing tells how long a flood lasts
cdef int64_t MAX_TIMEOUT_US = 1000000 * 3600 * 24 * 365


cdef void set_deadline(ModelVersion* version, InferRequest* request) noexcept nogil:
    """The earliest of the caller's deadline and the time it gives the queue. Beside it the version's objective, which ends nothing."""
    cdef int64_t budget = version.default_timeout_ns.load(), objective = version.objective_ns.load()
    request.answer_by_ns = request.deadline_ns
    request.objective_ns = request.times.received + objective if objective else 0
    if request.timeout_us > 0 and request.timeout_us < MAX_TIMEOUT_US:
        budget = request.timeout_us * 1000
    if budget and (request.deadline_ns == 0 or request.times.received + budget < request.deadline_ns):
        request.deadline_ns = request.times.received + budget


cdef Terms terms_of(ExecutorPool* pool, ModelVersion* version, const InferRequest* request, int64_t now) noexcept nogil:
    cdef Terms terms
    cdef BatchLimits limits = limits_of(&pool.turns, version)
    terms.known = find(&version.times, width_of(request.inputs, version.first_axis()))
    if not is_confirmed(terms.known):
        terms.known.curve = NULL        # what is only recalled may be wrong, and refuses nobody
    terms.most_rows = most_rows(version.queue.rows.load(), limits, terms.known)
    terms.row_ns = price_ns(limits, terms.known)
    terms.parallel = parallel_of(pool, version)
    terms.busy_ns = <double> max(0, version.busy_until_ns.load() - now) / terms.parallel
    terms.slack_share = version.slack_share.load()
    terms.drift = version.drift()
    terms.max_wait_ns = version.max_wait_ns.load()
    return terms


cdef void append_ms(string& text, double ns) noexcept nogil:
    """With one digit after the point."""
    cdef int64_t tenths = <int64_t> (ns / 100000 + 0.5)
    text.append(to_string(tenths // 10)).append(b".").append(to_string(tenths % 10)).append(b" ms")


cdef void append_budget(string& text, const char* what, double predicted_ns, const char* until, double budget_ns) noexcept nogil:
    text.append(what).append(b" cannot be met: predicted ")
    append_ms(text, predicted_ns)
    text.append(until).append(b", budget ")
    append_ms(text, budget_ns)


cdef void say_unmeetable(string& text, const InferRequest* request, const Entry& entry, int64_t now) noexcept nogil:
    cdef double answer = <double> (request.answer_by_ns - now), start = <double> (request.deadline_ns - now)
    cdef double objective = <double> (request.objective_ns - now)
    if request.answer_by_ns and entry.latest_end_ns > answer:
        append_budget(text, b"the deadline", entry.latest_end_ns, b" until the answer", answer)
    elif request.deadline_ns and entry.latest_start_ns > start:
        append_budget(text, b"the timeout of the queue (parameter timeout)" if request.timeout_us > 0 else
                      b"the timeout of the queue (queue.default_timeout_us)", entry.latest_start_ns, b" until the run", start)
    else:
        append_budget(text, b"the objective (slo.latency_ms)", entry.latest_end_ns, b" until the answer", objective)


cdef void append_ahead(string& text, const Entry& entry) noexcept nogil:
    text.append(b", ").append(to_string(entry.rows_ahead)).append(b" row ahead" if entry.rows_ahead == 1 else b" rows ahead")
    if entry.behind_a_run:
        text.append(b" and a batch that runs")


cdef void refuse_entry(InferRequest* request, ModelVersion* version, const Entry& entry, int64_t now) noexcept nogil:
    cdef string text
    cdef double budget = <double> version.max_wait_ns.load(), over = entry.wait_ns / 2
    request.predicted_wait_ns = <int64_t> entry.wait_ns
    if entry.verdict == kHopeless:
        text.append(b"the deadline cannot be met: the run alone takes ")
        append_ms(text, entry.alone_ns)
        text.append(b", budget ")
        append_ms(text, <double> (request.answer_by_ns - now))
        request.status.set(kDeadlineExceeded, b"DEADLINE_EXCEEDED", text)   # to come back later would not help
        return
    if entry.verdict == kUnmeetable:
        say_unmeetable(text, request, entry, now)
        over = entry.latest_end_ns - <double> (earlier(earlier(request.deadline_ns, request.answer_by_ns), request.objective_ns) - now)
    elif entry.verdict == kTooLong:
        over = entry.wait_ns - budget
        text.append(b"the queue of this model is full: predicted wait ")
        append_ms(text, entry.wait_ns)
        text.append(b", queue.max_wait_ms allows ")
        append_ms(text, budget)
    else:
        text.append(b"the queue of this model is full: ").append(to_string(version.queue.rows.load()))
        text.append(b" of queue.max_rows ").append(to_string(version.queue.max_rows.load())).append(b" are taken, this request has ")
        text.append(to_string(request.rows if version.batched else 1)).append(b"; predicted wait ")
        append_ms(text, entry.wait_ns)
    append_ahead(text, entry)
    if entry.verdict == kUnmeetable:
        request.status.set(kResourceExhausted, b"DEADLINE_UNMEETABLE", text)
    else:
        request.status.set(kResourceExhausted, b"QUEUE_FULL", text)
    request.status.retry_ms = 1 + <int64_t> (over / 1000000) if over > 0 else 1000


cdef bint is_behind(ModelVersion* version, InferRequest* request, bint keeps_up, int32_t busy_status, int64_t now) noexcept nogil:
    """More comes than can be read. Who has used up a third of the time he has is refused then: all who come would be served, and late, if
    that were put off until the time is nearly over. Two thirds, where his socket was read empty: he has waited for a round of all sockets,
    which does not grow by itself.
    """
    cdef int64_t due, most, wanted = request.behind_ns // 2 if keeps_up else 2 * request.behind_ns
    if request.behind_ns == 0:
        return False
    due, most = earlier(earlier(request.deadline_ns, request.answer_by_ns), request.objective_ns), version.max_wait_ns.load()
    if not ((due and due - now < wanted) or (most and request.behind_ns > most)):
        return False
    # All are told the same, which costs least to write.
    request.status.set(kResourceExhausted, b"DEADLINE_UNMEETABLE" if due else b"QUEUE_FULL",
                       string(b"the server is behind: more comes than it can read"))
    request.status.http_status, request.status.retry_ms = busy_status, BEHIND_RETRY_MS
    return True


cdef bint enters(ExecutorPool* pool, ModelVersion* version, InferRequest* request, int32_t busy_status, int64_t now) noexcept nogil:
    cdef Terms terms = terms_of(pool, version, request, now)
    cdef Entry entry
    cdef int64_t most = version.max_batch_size.load()
    if version.batched and request.rows > most:
        split(request, most)
    entry = put(&version.queue, request, terms, now)
    if entry.verdict == kTaken:
        return True
    refuse_entry(request, version, entry, now)
    if entry.verdict != kHopeless:
        request.status.http_status = busy_status
    return False
