"""Runs one batch. One that fails is run again by halves, so that only the guilty request fails.

While that happens, batches are as large as is cheapest then: see culprits.
A request leaves here with its answer or its status set.
"""

from libc.stdint cimport int32_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view

from batchmill.core.batch cimport gather, scatter
from batchmill.core.batcher cimport moved_share
from batchmill.core.clock cimport now_ns
from batchmill.core.culprits cimport limit_rows, note_failed_run, note_rows, note_too_large
from batchmill.core.histogram cimport VersionStats, add
from batchmill.core.ort cimport OrtModel, OrtRunOptions, new_run_options, run, set_terminate, shrink_arena_after
from batchmill.core.predictor cimport expected_ns, find, learn, width_of
from batchmill.core.queue cimport earlier, is_dead
from batchmill.core.status cimport Status, kDeadlineExceeded, kInternal, kResourceExhausted

cdef extern from * nogil:
    string to_string "std::to_string"(int64_t)

cdef int64_t DRIFT_FROM_NS = 1000000        # shorter waits say nothing about the predictor
cdef double DRIFT_KEPT = 0.9375


# The options of a run: its time limit, and whether the runtime's arena shrinks after it.
cdef const OrtRunOptions* begin_run(ModelVersion* version, Scratch* scratch, int64_t now) noexcept nogil:
    """Null: the run has none."""
    cdef int64_t timeout_ns = version.run_timeout_ns.load() if scratch.is_executor else 0
    scratch.limit.shrinks = version.shrinks.load() and version.shrinks.exchange(False)
    if timeout_ns == 0 and not scratch.limit.shrinks:
        return NULL
    if scratch.limit.options == NULL:
        scratch.limit.options = new_run_options()
    if scratch.limit.options == NULL:
        return NULL
    if scratch.limit.shrinks:
        shrink_arena_after(scratch.limit.options, True)
    if timeout_ns:
        scratch.limit.lock()
        scratch.limit.ends_ns = now + timeout_ns
        scratch.limit.unlock()
    return scratch.limit.options


cdef bint end_run(Scratch* scratch) noexcept nogil:
    """Whether the run was told to end."""
    cdef bint passed
    if scratch.limit.shrinks:
        shrink_arena_after(scratch.limit.options, False)
    scratch.limit.lock()
    passed = scratch.limit.passed
    if passed:
        set_terminate(scratch.limit.options, False)
    scratch.limit.passed = False
    scratch.limit.ends_ns = 0
    scratch.limit.unlock()
    return passed


cdef void end_overdue(Scratch* scratch, int64_t now) noexcept nogil:
    scratch.limit.lock()
    if scratch.limit.ends_ns and scratch.limit.ends_ns <= now and not scratch.limit.passed:
        scratch.limit.passed = True
        set_terminate(scratch.limit.options, True)
    scratch.limit.unlock()


# Runs.
cdef const int32_t* all_of_them(Scratch* scratch, size_t count) noexcept nogil:
    """0, 1, 2 ...: the inputs are in the signature's order, and all outputs are computed."""
    while scratch.indices.size() < count:
        scratch.indices.push_back(<int32_t> scratch.indices.size())
    return scratch.indices.data()


cdef void stamp(InferRequest* request, int64_t gathered, int64_t ran, int64_t written) noexcept nogil:
    while request != NULL:
        request.times.gathered, request.times.computed, request.times.encoded = gathered, ran, written
        request = request.next


cdef bint any_refused(InferRequest* request) noexcept nogil:
    while request != NULL:
        if not request.status.ok():
            return True
        request = request.next
    return False


cdef bint run_once(ModelVersion* version, InferRequest* batch, int64_t rows, int64_t count, Scratch* scratch,
                   Status* status) noexcept nogil:
    """Gathers, runs and scatters. False: status says why, and no request was touched."""
    cdef bint done
    cdef int width = width_of(batch.inputs, version.first_axis())
    cdef int64_t began = now_ns(), gathered, ran, written
    cdef const OrtRunOptions* options
    if not gather(version, batch, count, scratch):
        status.set(kResourceExhausted, b"OUT_OF_MEMORY", string(b"no memory for the batch"))
        return False
    gathered = now_ns()
    options = begin_run(version, scratch, gathered)
    done = run(<OrtModel*> version.model, scratch.inputs.data(), all_of_them(scratch, version.inputs.size()), version.inputs.size(),
               all_of_them(scratch, version.outputs.size()), version.outputs.size(), &scratch.outputs, status, options)
    if not done:
        note_failed_run(&version.culprits, <double> (now_ns() - gathered), expected_ns(find(&version.times, width), rows))
    if options != NULL and end_run(scratch) and not done:
        status.set(kDeadlineExceeded, b"RUN_TIMEOUT", string(b"the run took longer than run_timeout_ms, "))
        status.message.append(to_string(version.run_timeout_ns.load() // 1000000))
    if done:
        ran = now_ns()
        done = scatter(version, batch, rows, scratch, status)
        if done:
            written = now_ns()
            learn(version.times.made(width), rows, <double> (ran - gathered), written)
            version.stats_of(scratch.thread).count_batch(rows, count, gathered - began, ran - gathered, written - ran)
            if version.padding.get() != NULL:
                add(version.stats_of(scratch.thread).padding_bytes, scratch.padding_bytes)
            stamp(batch, gathered, ran, written)
            tell_breaker(version, count, status[0], written)
            if any_refused(batch):      # its outputs were too large: the arena has grown to hold them, and would stay so
                version.shrinks.store(True)
    scratch.outputs.clear()
    return done


# So many rows have run, of which so many requests are guilty.
cdef void look_for_culprits(ModelVersion* version, InferRequest* batch, int64_t rows, int64_t guilty) noexcept nogil:
    if guilty == 0 and not version.culprits.any():
        return
    note_rows(&version.culprits, rows, guilty)
    limit_batches(version, batch)


cdef void limit_batches(ModelVersion* version, InferRequest* batch) noexcept nogil:
    limit_rows(&version.culprits, find(&version.times, width_of(batch.inputs, version.first_axis())), version.max_batch_size.load(),
               now_ns())


# What predictions turned out to be. Threads may overwrite each other's corrections: another follows.
cdef void correct_drift(ModelVersion* version, const InferRequest* first) noexcept nogil:
    """By the wait of the batch's first request, where one of some length was predicted. Who is served now came long ago, maybe with another
    drift: held against that one, the same error would be corrected again and again. Sums, for a mean of ratios would let a wait of 10 ms
    in the place of 1 ms weigh more than many long ones that were right.
    """
    if first.predicted_wait_ns >= DRIFT_FROM_NS:
        version.waited_ns.store(version.waited_ns.load() * DRIFT_KEPT + <double> (first.times.started - first.times.queued))
        version.predicted_ns.store(version.predicted_ns.load() * DRIFT_KEPT + <double> first.predicted_wait_ns)


cdef void correct_slack(ModelVersion* version, const Taken& taken, int64_t started) noexcept nogil:
    """A batch that should have ended in time and did not makes the next ones smaller, one that did makes them larger. Not one that had
    twice the time that it should have taken: what held it up would have held up a smaller one.
    """
    cdef const InferRequest* first = taken.batch
    cdef int64_t due = earlier(first.answer_by_ns, first.objective_ns)
    cdef double left = <double> (due - started)
    cdef bint late = first.times.encoded > due
    if due == 0 or taken.expected_ns > left or (late and 2 * taken.expected_ns < left):
        return
    version.slack_share.store(moved_share(version.slack_share.load(), late, version.target.load()))


cdef InferRequest* run_batch(ModelVersion* version, Taken taken, Scratch* scratch, InferRequest** failed) noexcept nogil:
    cdef InferRequest* request = taken.batch
    cdef InferRequest* last = NULL
    cdef VersionStats* stats = version.stats_of(scratch.thread)
    cdef int64_t now = now_ns(), waited = 0
    cdef Status status
    cdef bint done
    failed[0] = NULL
    while request != NULL:
        request.times.started = now
        if request.whole == NULL or request.whole.parts == request:     # once for each request
            stats.queue.record(now - request.times.queued)
        waited = max(waited, now - request.times.queued)
        last = request
        request = request.next
    if taken.batch == NULL:
        return taken.dropped
    stats.count_close(taken.reason, taken.rows, waited)
    if not scratch.is_executor:
        add(stats.inline_batches, 1)
    correct_drift(version, taken.batch)
    done = run_once(version, taken.batch, taken.rows, taken.count, scratch, &status)
    if done:
        correct_slack(version, taken, now)
    if done or taken.count == 1 or status.code == kDeadlineExceeded:
        look_for_culprits(version, taken.batch, taken.rows, 0 if done else taken.count)
        if not done:
            fail(version, taken.batch, status)
        last.next = taken.dropped
        return taken.batch
    add(stats.batch_failures, 1)
    if not scratch.is_executor:
        failed[0] = taken.batch
        return taken.dropped
    return joined(rerun_failed(version, taken.batch, scratch), taken.dropped)


cdef void tell_breaker(ModelVersion* version, int64_t requests, const Status& status, int64_t now) noexcept nogil:
    """How runs of so many requests ended."""
    cdef string_view reason = string_view(status.reason)
    cdef bint invalid = reason == string_view(b"RUN_FAILED")
    cdef bint failed = status.code == kInternal or reason == string_view(b"RUN_TIMEOUT") or reason == string_view(b"RUN_OUT_OF_MEMORY")
    if version.breaker.on.load():
        version.breaker.record(requests, requests if failed else 0, requests if invalid else 0, now)


# What is left of a failed batch.
cdef void fail(ModelVersion* version, InferRequest* request, const Status& status) noexcept nogil:
    cdef string prefix = version.name
    cdef int64_t requests = 0
    prefix.append(b"/").append(version.version).append(b": ")
    while request != NULL:
        requests += 1
        request.status = status
        request.status.message.assign(prefix + status.message)
        request = request.next
    tell_breaker(version, requests, status, now_ns())


cdef InferRequest* joined(InferRequest* first, InferRequest* second) noexcept nogil:
    cdef InferRequest* last = first
    if first == NULL:
        return second
    while last.next != NULL:
        last = last.next
    last.next = second
    return first


cdef InferRequest* rerun_failed(ModelVersion* version, InferRequest* batch, Scratch* scratch) noexcept nogil:
    cdef InferRequest* request = batch
    cdef int64_t rows = 0
    while request != NULL:
        rows += request.rows
        request = request.next
    batch = rerun_halves(version, batch, scratch)
    if not any_refused(batch):
        note_too_large(&version.culprits, rows, now_ns())
        limit_batches(version, batch)
    return batch


cdef InferRequest* rerun(ModelVersion* version, InferRequest* batch, Scratch* scratch) noexcept nogil:
    """Runs these requests once more, without those whose deadline has passed meanwhile; by halves when they fail."""
    cdef InferRequest* request = batch
    cdef InferRequest* following
    cdef InferRequest* dead = NULL
    cdef InferRequest* alive = NULL
    cdef InferRequest** end = &alive
    cdef int64_t rows = 0, count = 0, now = now_ns()
    cdef Status status
    cdef bint done
    while request != NULL:
        following = request.next
        if is_dead(request, now):
            request.next = dead
            dead = request
        else:
            end[0] = request
            end = &request.next
            rows += request.rows
            count += 1
        request = following
    end[0] = NULL
    if alive == NULL:
        return dead
    done = run_once(version, alive, rows, count, scratch, &status)
    if done or count == 1 or status.code == kDeadlineExceeded:
        look_for_culprits(version, alive, rows, 0 if done else count)
        if not done:
            fail(version, alive, status)
        return joined(alive, dead)
    return joined(rerun_halves(version, alive, scratch), dead)


cdef InferRequest* rerun_halves(ModelVersion* version, InferRequest* batch, Scratch* scratch) noexcept nogil:
    cdef InferRequest* middle = batch
    cdef InferRequest* end = batch.next
    cdef InferRequest* second
    while end != NULL and end.next != NULL:     # end goes two steps for each of middle's
        middle = middle.next
        end = end.next.next
    second = middle.next
    middle.next = NULL
    return joined(rerun(version, batch, scratch), rerun(version, second, scratch))
