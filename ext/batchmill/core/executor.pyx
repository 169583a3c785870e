"""The shared pool: takes a batch of whichever version is due, runs it, completes it.

Beside batches it does what would hold an I/O thread up: it parses large and compressed bodies, compresses answers, and reruns what is
left of failed batches.
A request's lease outlives its stay here: the I/O thread that delivers it ends the lease last.
"""

from libc.stdint cimport int64_t

from batchmill.core cimport json_codec
from batchmill.core.clock cimport now_ns, thread_ns
from batchmill.core.compression cimport compress_answer, decompress_body
from batchmill.core.histogram cimport CloseReason
from batchmill.core.inline_runs cimport is_watched, may_run, note_run
from batchmill.core.message cimport Encoding, Errand
from batchmill.core.notes cimport Coding
from batchmill.core.ort cimport delete_run_options
from batchmill.core.parts cimport join
from batchmill.core.predictor cimport Estimate, expected_ns, find, is_confirmed
from batchmill.core.queue cimport Rules, Taken, sweep, take
from batchmill.core.router cimport Place
from batchmill.core.runner cimport end_overdue, rerun_failed, run_batch
from batchmill.core.threads cimport pthread_join, pthread_t, start_thread
from batchmill.core.turns cimport ended, line_up, next_turn, rules_of, started, step_out

cdef extern from * nogil:
    """
    #include "executor.hpp"
    struct batchmill_worker { batchmill::ExecutorPool* pool; int slot; };
    """
    cdef cppclass Worker "batchmill_worker":
        ExecutorPool* pool
        int slot


cdef void complete(ExecutorPool* pool, InferRequest* answered) noexcept nogil:
    """Hands answers to their I/O threads: one push for each run of requests of one thread."""
    cdef InferRequest* first
    cdef InferRequest* last
    answered = join(answered)
    while answered != NULL:
        first = last = answered
        while last.next != NULL and last.next.reply_to.io_thread == first.reply_to.io_thread:
            last = last.next
        answered = last.next
        pool.completions[first.reply_to.io_thread].push(first, last)


cdef void offer(ExecutorPool* pool, ModelVersion* version) noexcept nogil:
    pool.lock()
    line_up(&pool.turns, version)
    pool.unlock()
    pool.notify()


cdef bint forget(ExecutorPool* pool, ModelVersion* version) noexcept nogil:
    cdef bint idle
    pool.lock()
    idle = version.running == 0 and version.queue.rows.load() == 0
    if idle:
        step_out(&pool.turns, version)      # an I/O thread took the rows it was offered for
    pool.unlock()
    return idle


cdef void run_errand(ExecutorPool* pool, InferRequest* request) noexcept nogil:
    """The request goes back to its I/O thread as it would have been there; what is wrong with it is in its status."""
    if request.errand == Errand.kCompress:
        compress_answer(request)
        return
    if request.coding != Coding.kIdentity and not decompress_body(request, pool.max_body_bytes, pool.budget):
        return
    if request.encoding == Encoding.kJson:
        json_codec.parse(request, request.body.data, request.body.size, request.json_size)


cdef bint do_odd_job(ExecutorPool* pool, Scratch* scratch) noexcept nogil:
    """With the pool's mutex held, and held again after. False: there is none."""
    cdef InferRequest* request
    cdef FailedBatch failed
    if pool.errands.size():
        request = pool.errands.front()
        pool.errands.pop_front()
        pool.unlock()
        request.next = NULL
        run_errand(pool, request)
        complete(pool, request)
    elif pool.failed.size():
        failed = pool.failed.front()
        pool.failed.pop_front()
        pool.unlock()
        complete(pool, rerun_failed(failed.version, failed.requests, scratch))
    else:
        return False
    pool.lock()
    return True


cdef void run_due(ExecutorPool* pool, ModelVersion* version, CloseReason reason, Scratch* scratch) noexcept nogil:
    """With the pool's mutex held, and held again after."""
    cdef Taken taken
    cdef InferRequest* failed
    cdef int64_t now = now_ns()
    cdef Rules rules = rules_of(&pool.turns, version, True, now)
    version.running += 1
    pool.unlock()
    taken = take(&version.queue, rules, now)
    if taken.reason == CloseReason.kIdle:
        taken.reason = reason
    pool.lock()
    started(&pool.turns, version, taken, now)
    if version.instances.load() > version.running:
        line_up(&pool.turns, version)
        pool.notify()
    pool.unlock()
    if taken.dropped != NULL:       # told at once, not after a run that they are no part of
        complete(pool, taken.dropped)
        taken.dropped = NULL
    complete(pool, run_batch(version, taken, scratch, &failed))
    pool.lock()
    ended(&pool.turns, version, taken, now, now_ns())
    if pool.turns.due.size() > 1:
        pool.notify()


cdef void* work(void* argument) noexcept nogil:
    cdef Worker* worker = <Worker*> argument
    cdef ExecutorPool* pool = worker.pool
    cdef Scratch* scratch = new Scratch(worker.slot)
    cdef ModelVersion* version
    cdef int64_t until
    cdef CloseReason reason
    cdef bint odd_job_first = True      # they take turns with batches: neither waits for all of the others
    scratch.is_executor = True
    pool.lock()
    pool.scratches.push_back(scratch)
    while not pool.stopping:
        if odd_job_first and do_odd_job(pool, scratch):
            odd_job_first = False
            continue
        odd_job_first = True
        version = next_turn(&pool.turns, now_ns(), &until, &reason)
        if version != NULL:
            run_due(pool, version, reason, scratch)
        elif not do_odd_job(pool, scratch):
            pool.wait(until)
    pool.unlock()
    del worker
    return NULL


cdef void send_on_errand(ExecutorPool* pool, InferRequest* request) noexcept nogil:
    pool.lock()
    pool.errands.push_back(request)
    pool.unlock()
    pool.notify()


cdef void end_overdue_runs(ExecutorPool* pool, int64_t now) noexcept nogil:
    cdef size_t index
    pool.lock()
    for index in range(pool.scratches.size()):
        end_overdue(pool.scratches[index], now)
    pool.unlock()


cdef void sweep_queue(ExecutorPool* pool, ModelVersion* version, int64_t now) noexcept nogil:
    complete(pool, sweep(&version.queue, now))


cdef int32_t parallel_of(ExecutorPool* pool, ModelVersion* version) noexcept nogil:
    return max(1, min(version.instances.load(), <int32_t> pool.threads.size()))


cdef bint runs_inline(ExecutorPool* pool, ModelVersion* version, int64_t now) noexcept nogil:
    """Whether an I/O thread shall run what waits: where that is fixed, or else where the run is known to be short."""
    cdef Estimate known
    cdef Place place = version.place.load()
    if place != Place.kAuto or version.max_queue_delay_ns.load():
        return place == Place.kIoThread
    if not version.fast_ok:
        return False
    known = find(&version.times, 0)
    return is_confirmed(known) and may_run(
        &version.inline_runs, expected_ns(known, min(version.queue.rows.load(), version.max_batch_size.load())), pool.is_busy(), now)


cdef InferRequest* run_inline(ExecutorPool* pool, ModelVersion* version, Scratch* scratch) noexcept nogil:
    cdef int64_t now = now_ns(), cpu = 0
    cdef Taken taken
    cdef FailedBatch failed
    cdef InferRequest* answered
    cdef bint watched
    cdef Rules rules
    if version.queue.rows.load() == 0 or not runs_inline(pool, version, now):
        return NULL
    pool.lock()
    if version.running >= version.instances.load():
        pool.unlock()
        return NULL
    version.running += 1
    rules = rules_of(&pool.turns, version, False, now)
    pool.unlock()
    watched = is_watched(version.inline_runs, now)
    if watched:
        cpu = thread_ns()
    taken = take(&version.queue, rules, now)
    answered = run_batch(version, taken, scratch, &failed.requests)
    note_run(&version.inline_runs, now, now_ns() - now, thread_ns() - cpu if watched else 0)
    pool.lock()
    version.running -= 1
    version.expected_rows = 0           # no linger: the callers come back to this very thread
    line_up(&pool.turns, version)
    if failed.requests != NULL:
        failed.version = version
        pool.failed.push_back(failed)
    pool.unlock()
    if failed.requests != NULL:
        pool.notify()
    return join(answered)


cdef bint start(ExecutorPool* pool, int threads, int first_slot) noexcept nogil:
    cdef int index
    cdef Worker* worker
    cdef pthread_t thread
    for index in range(threads):
        worker = new Worker()
        worker.pool = pool
        worker.slot = first_slot + index
        if not start_thread(&thread, work, worker, b"executor", first_slot + index):
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
        pthread_join(pool.threads[index], NULL)     # they stay in the list: an I/O thread may still count them
    pool.lock()     # ... and looks for overdue runs
    for index in range(pool.scratches.size()):
        if pool.scratches[index].limit.options != NULL:
            delete_run_options(pool.scratches[index].limit.options)
        del pool.scratches[index]
    pool.scratches.clear()
    pool.unlock()
