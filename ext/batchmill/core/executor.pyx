"""The shared pool: takes a batch of whichever version is due, runs it, completes it.

A batch that fails is run again by halves, so only the guilty request fails. A request leaves here with its answer or
its status set, and its lease still held: the I/O thread that delivers it ends the lease last.
"""

from libc.stdint cimport int32_t, uint64_t
from libcpp.string cimport string

from batchmill.core.batch cimport gather, scatter
from batchmill.core.batcher cimport BatchLimits, LastBatch, Plan, plan
from batchmill.core.clock cimport now_ns
from batchmill.core.histogram cimport VersionStats, add
from batchmill.core.ort cimport OrtModel, run
from batchmill.core.queue cimport Taken, take
from batchmill.core.router cimport kSizeClasses
from batchmill.core.status cimport Status, kInternal, kResourceExhausted

cdef extern from * nogil:
    """
    #include "executor.hpp"
    struct batchmill_worker { batchmill::ExecutorPool* pool; int slot; };
    """
    cdef cppclass Worker "batchmill_worker":
        ExecutorPool* pool
        int slot

cdef extern from "<pthread.h>" nogil:
    int pthread_create(pthread_t*, void*, void* (*)(void*) noexcept nogil, void*)
    int pthread_join(pthread_t, void**)

cdef int64_t INLINE_NS = 60000            # predicted run time up to which an I/O thread runs a batch itself
cdef int64_t OVERRUN_NS = 1000000         # a run there that takes longer ends it ...
cdef int64_t OVERRUN_PAUSE_NS = 1000000000  # ... for a second: the machine may just have been busy


cdef inline int size_class(int64_t rows) noexcept nogil:
    cdef int found = 0
    while rows > 1 and found < kSizeClasses - 1:
        rows = (rows + 1) >> 1
        found += 1
    return found


cdef int64_t predicted_ns(ModelVersion* version, int64_t rows) noexcept nogil:
    """The smoothed run time of the next size class up that was measured; 0: unknown.

    A class that was not measured is guessed from a smaller one as if time grew in proportion: never too low.
    """
    cdef int wanted = size_class(rows), at
    cdef int64_t found
    for at in range(wanted, -1, -1):
        found = version.run_ns[at].load()
        if found:
            return found << (wanted - at)
    return 0


cdef void measured(ModelVersion* version, int64_t rows, int64_t run_ns) noexcept nogil:
    cdef int at = size_class(rows)
    cdef int64_t before = version.run_ns[at].load()
    version.run_ns[at].store(run_ns if before == 0 else before + (run_ns - before) // 8)


cdef const int32_t* all_of_them(Scratch* scratch, size_t count) noexcept nogil:
    """0, 1, 2 ...: the inputs are in the signature's order, and all outputs are computed."""
    while scratch.indices.size() < count:
        scratch.indices.push_back(<int32_t> scratch.indices.size())
    return scratch.indices.data()


cdef void run_part(ModelVersion* version, InferRequest* batch, int64_t rows, int64_t count, Scratch* scratch) noexcept nogil:
    """Runs the requests linked by next; on failure halves them until the guilty stand alone."""
    cdef Status status
    cdef bint done = False
    cdef int64_t before, half, half_rows = 0
    cdef InferRequest* second
    cdef InferRequest* last
    cdef VersionStats* stats = version.stats_of(scratch.thread)
    if not gather(version, batch, count, scratch):
        status.set(kResourceExhausted, b"OUT_OF_MEMORY", string(b"no memory for the batch"))
    else:
        before = now_ns()
        done = run(<OrtModel*> version.model, scratch.inputs.data(), all_of_them(scratch, version.inputs.size()), version.inputs.size(),
                   all_of_them(scratch, version.outputs.size()), version.outputs.size(), &scratch.outputs, &status, NULL)
        if done:
            before = now_ns() - before
            measured(version, rows, before)
            stats.compute.record(before)
            add(stats.batches, 1)
            add(stats.rows, <uint64_t> rows)
            add(stats.compute_ns, <uint64_t> (before * count))
            done = scatter(version, batch, rows, scratch)
            if not done:
                status.set(kInternal, b"WRONG_ROWS", string(b"the model's outputs do not have the batch's rows"))
        scratch.outputs.clear()
    if done:
        return
    if count == 1:
        batch.status = status
        return
    half = 1
    last = batch
    half_rows = batch.rows
    while half < count // 2:
        last = last.next
        half_rows += last.rows
        half += 1
    second = last.next
    last.next = NULL
    run_part(version, batch, half_rows, half, scratch)
    run_part(version, second, rows - half_rows, count - half, scratch)
    last.next = second


cdef InferRequest* run_batch(ModelVersion* version, Taken taken, Scratch* scratch) noexcept nogil:
    """All requests that were taken, answered or failed, linked by next."""
    cdef InferRequest* request = taken.batch
    cdef InferRequest* last = NULL
    cdef VersionStats* stats = version.stats_of(scratch.thread)
    cdef int64_t now = now_ns()
    while request != NULL:
        request.times.started = now
        stats.queue.record(now - request.times.queued)
        add(stats.queue_ns, <uint64_t> (now - request.times.queued))
        last = request
        request = request.next
    if taken.batch != NULL:
        run_part(version, taken.batch, taken.rows, taken.count, scratch)
        last.next = taken.dropped
        return taken.batch
    return taken.dropped


cdef void complete(ExecutorPool* pool, InferRequest* answered) noexcept nogil:
    """Hands answers to their I/O threads: one push for each run of requests of one thread."""
    cdef InferRequest* first
    cdef InferRequest* last
    while answered != NULL:
        first = last = answered
        while last.next != NULL and last.next.reply_to.io_thread == first.reply_to.io_thread:
            last = last.next
        answered = last.next
        pool.completions[first.reply_to.io_thread].push(first, last)


cdef Plan plan_of(ModelVersion* version, int64_t now) noexcept nogil:
    cdef BatchLimits limits
    cdef LastBatch last
    cdef int64_t rows = version.queue.rows.load()
    limits.max_batch_size = version.max_batch_size
    limits.max_queue_delay_ns = version.max_queue_delay_ns
    last.rows = version.last_rows
    last.ended_ns = version.last_ended_ns
    last.run_ns = predicted_ns(version, rows) if version.last_rows > 1 else 0
    return plan(rows, version.queue.oldest_ns.load(), now, limits, last)


cdef void offer_locked(ExecutorPool* pool, ModelVersion* version) noexcept nogil:
    if not version.due and version.running < version.instances and version.queue.rows.load() > 0:
        version.due = True
        pool.due.push_back(version)


cdef void offer(ExecutorPool* pool, ModelVersion* version) noexcept nogil:
    pool.lock()
    offer_locked(pool, version)
    pool.unlock()
    pool.notify()


cdef ModelVersion* next_due(ExecutorPool* pool, int64_t* wait_until) noexcept nogil:
    """Removes and returns the due version whose oldest row is oldest; NULL and a time when all of them linger."""
    cdef size_t index = 0
    cdef ModelVersion* version
    cdef ModelVersion* found = NULL
    cdef int64_t now = now_ns()
    cdef Plan decision
    wait_until[0] = 0
    while index < pool.due.size():
        version = pool.due[index]
        if version.queue.rows.load() == 0:      # an I/O thread took them
            version.due = False
            pool.due[index] = pool.due.back()
            pool.due.pop_back()
            continue
        decision = plan_of(version, now)
        if not decision.close:
            if wait_until[0] == 0 or decision.wait_until_ns < wait_until[0]:
                wait_until[0] = decision.wait_until_ns
        elif found == NULL or version.queue.oldest_ns.load() < found.queue.oldest_ns.load():
            found = version
        index += 1
    if found != NULL:
        index = 0
        while pool.due[index] != found:
            index += 1
        pool.due[index] = pool.due.back()
        pool.due.pop_back()
        found.due = False
    return found


cdef void after_batch(ExecutorPool* pool, ModelVersion* version, int64_t rows) noexcept nogil:
    """With the pool's mutex held: gives the instance back and lines the version up again."""
    version.running -= 1
    version.last_rows = rows
    version.last_ended_ns = now_ns()
    offer_locked(pool, version)


cdef void* work(void* argument) noexcept nogil:
    cdef Worker* worker = <Worker*> argument
    cdef ExecutorPool* pool = worker.pool
    cdef Scratch* scratch = new Scratch(worker.slot)
    cdef ModelVersion* version
    cdef Taken taken
    cdef int64_t until
    cdef bint more
    pool.lock()
    while not pool.stopping:
        version = next_due(pool, &until)
        if version == NULL:
            pool.wait(until)
            continue
        version.running += 1
        pool.unlock()
        taken = take(&version.queue, version.max_batch_size, now_ns())
        if version.instances > 1 and version.queue.rows.load() > 0:
            offer(pool, version)
        complete(pool, run_batch(version, taken, scratch))
        pool.lock()
        after_batch(pool, version, taken.rows)
        more = pool.due.size() > 1
        if more:
            pool.notify()
    pool.unlock()
    del scratch
    del worker
    return NULL


cdef InferRequest* run_inline(ExecutorPool* pool, ModelVersion* version, Scratch* scratch) noexcept nogil:
    cdef int64_t rows = version.queue.rows.load(), predicted, now
    cdef Taken taken
    cdef InferRequest* answered
    if not version.fast_ok or rows == 0:
        return NULL
    if rows > version.max_batch_size:
        rows = version.max_batch_size
    predicted = predicted_ns(version, rows)
    if predicted == 0 or predicted > INLINE_NS:
        return NULL
    now = now_ns()
    if now < version.inline_again_ns.load():
        return NULL
    pool.lock()
    if version.running >= version.instances:
        pool.unlock()
        return NULL
    version.running += 1
    pool.unlock()
    taken = take(&version.queue, version.max_batch_size, now)
    answered = run_batch(version, taken, scratch)
    if now_ns() - now > OVERRUN_NS:
        version.inline_again_ns.store(now + OVERRUN_PAUSE_NS)
    pool.lock()
    after_batch(pool, version, 0)       # no linger: the callers come back to this very thread
    pool.unlock()
    return answered


cdef bint start(ExecutorPool* pool, int threads, int first_slot) noexcept nogil:
    cdef int index
    cdef Worker* worker
    cdef pthread_t thread
    for index in range(threads):
        worker = new Worker()
        worker.pool = pool
        worker.slot = first_slot + index
        if pthread_create(&thread, NULL, work, worker):
            del worker
            return False
        pool.threads.push_back(thread)
    return True


cdef void stop(ExecutorPool* pool) noexcept nogil:
    cdef size_t index
    pool.lock()
    pool.stopping = True
    pool.unlock()
    pool.notify_all()
    for index in range(pool.threads.size()):
        pthread_join(pool.threads[index], NULL)
    pool.threads.clear()
