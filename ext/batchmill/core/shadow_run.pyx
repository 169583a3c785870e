"""Runs a batch of a shadow, and has the answers compared. Time is that of the processor: the thread is often put off in a run."""

from libc.math cimport log
from libc.stdint cimport int64_t, uint64_t
from libcpp.string cimport string

from batchmill.core.batch cimport begin_slices, gather, slice_outputs
from batchmill.core.clock cimport now_ns
from batchmill.core.histogram cimport add
from batchmill.core.message cimport Mirror
from batchmill.core.mirror cimport unsettle
from batchmill.core.ort cimport OrtModel, run, set_terminate
from batchmill.core.predictor cimport Estimate, expected_ns, kKnots, learn, width_of
from batchmill.core.router cimport ModelVersion
from batchmill.core.runner cimport all_of_them
from batchmill.core.shadow_figures cimport compare_answers, count_error
from batchmill.core.status cimport Status, kDeadlineExceeded, kResourceExhausted

cdef extern from * nogil:
    """
    #include <time.h>
    #include "executor.hpp"
    static inline int64_t batchmill_own_ns() {
        timespec now;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
    }
    """
    int64_t thread_ns "batchmill_own_ns"()


cdef int64_t own_ns() noexcept nogil:
    return thread_ns()


cdef void settle_back(Shadow* shadow, InferRequest* request) noexcept nogil:
    if shadow.version.padding.get() != NULL:
        unsettle(shadow.version.padding.get(), request)


cdef bint begin_run(ShadowLine* line, ModelVersion* version) noexcept nogil:
    """False: the thread shall end."""
    cdef int64_t timeout_ns = version.run_timeout_ns.load()
    cdef bint goes_on
    line.lock_run()
    goes_on = not line.stopping.load()
    line.passed = False
    line.run_ends_cpu_ns = own_ns() + timeout_ns if timeout_ns else (<int64_t> 1 << 62)
    line.unlock_run()
    return goes_on


cdef bint end_run(ShadowLine* line) noexcept nogil:
    """Whether it was told to end."""
    cdef bint passed
    line.lock_run()
    line.run_ends_cpu_ns = 0
    passed = line.passed
    if passed:
        set_terminate(line.options, False)
    line.unlock_run()
    return passed


cdef int64_t run_once(ShadowLine* line, ModelVersion* version, InferRequest* batch, int64_t count, Scratch* scratch,
                      Status* status) noexcept nogil:
    """The time of the processor that it took, ns, with scratch.outputs; 0: it failed, and status says why."""
    cdef int64_t began
    cdef bint done
    if not gather(version, batch, count, scratch):
        status.set(kResourceExhausted, b"OUT_OF_MEMORY", string(b"no memory for the batch"))
        return 0
    if not begin_run(line, version):
        status.set(kResourceExhausted, b"STOPPED", string(b"the server stops"))
        return 0
    began = own_ns()
    done = run(<OrtModel*> version.model, scratch.inputs.data(), all_of_them(scratch, version.inputs.size()), version.inputs.size(),
               all_of_them(scratch, version.outputs.size()), version.outputs.size(), &scratch.outputs, status, line.options)
    began = own_ns() - began
    if end_run(line) and not done:
        status.set(kDeadlineExceeded, b"RUN_TIMEOUT", string(b"the run took longer than run_timeout_ms"))
    return max(<int64_t> 1, began) if done else 0


cdef void measure(Shadow* shadow, const InferRequest* first, int64_t rows, int64_t took, Curve* curve) noexcept nogil:
    """Against what the version that answered was expected to take for as many rows, if that is known from runs of about that size."""
    cdef Estimate known
    cdef Mirror* mirror = first.mirror.get()
    cdef int at, below = 0
    cdef double expected
    for at in range(kKnots):
        curve.knots[at].store(mirror.run_ns[at])
    while below + 1 < kKnots and <int64_t> 2 << below <= rows:
        below += 1
    if mirror.run_ns[below] == 0 or (rows != <int64_t> 1 << below and (below + 1 >= kKnots or mirror.run_ns[below + 1] == 0)):
        return
    known.curve, known.scale = curve, 1
    expected = expected_ns(known, rows)
    if expected > 0:
        shadow.log_ratio.put(log(<double> took / expected))


cdef bint compare_batch(Shadow* shadow, InferRequest* batch, int64_t rows, Scratch* scratch, Status* status) noexcept nogil:
    cdef InferRequest* request = batch
    cdef int64_t first = 0, all_rows = rows if batch.next != NULL else -1
    if not begin_slices(shadow.version, batch, rows, scratch, status):
        return False
    while request != NULL:
        if slice_outputs(shadow.version, request, first, all_rows, scratch):
            settle_back(shadow, request)
            compare_answers(shadow, request, scratch.sliced)
        else:
            settle_back(shadow, request)
            add(shadow.errors, 1)
        first += request.rows
        request = request.next
    return True


cdef void run_batch(ShadowLine* line, Shadow* shadow, InferRequest* batch, int64_t rows, int64_t count, Scratch* scratch,
                    Curve* curve) noexcept nogil:
    cdef ModelVersion* version = shadow.version
    cdef InferRequest* request = batch
    cdef InferRequest* following
    cdef Status status
    cdef int width = width_of(batch.inputs, version.first_axis())
    cdef int64_t took = run_once(line, version, batch, count, scratch, &status)
    if took and compare_batch(shadow, batch, rows, scratch, &status):
        learn(version.times.made(width), max(<int64_t> 1, rows), <double> took, now_ns())
        measure(shadow, batch, max(<int64_t> 1, rows), took, curve)
        add(shadow.batches, 1)
        add(shadow.rows, <uint64_t> rows)
    elif count == 1:
        settle_back(shadow, batch)
        count_error(shadow, status)
    else:
        while request != NULL:
            following = request.next
            request.next = NULL
            run_batch(line, shadow, request, request.rows, 1, scratch, curve)
            request.next = following
            request = following
    scratch.outputs.clear()


cdef void end_overdue_shadow(ShadowLine* line) noexcept nogil:
    if not line.started.load() or not line.try_lock_run():
        return
    if line.run_ends_cpu_ns and not line.passed and line.cpu_ns() > line.run_ends_cpu_ns:
        line.passed = True
        set_terminate(line.options, True)
    line.unlock_run()
