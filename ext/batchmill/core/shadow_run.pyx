"""Runs a batch of a shadow, and has the answers compared. Time is that of the processor: the thread is often put off in a run."""

from libc.math cimport log
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp.string cimport string
from libcpp.vector cimport vector

from batchmill.core.batch cimport begin_slices, gather, slice_outputs
from batchmill.core.clock cimport now_ns, thread_ns
from batchmill.core.histogram cimport add
from batchmill.core.mirror cimport unsettle
from batchmill.core.ort cimport OrtModel, run, set_terminate
from batchmill.core.predictor cimport learn, width_of
from batchmill.core.router cimport ModelVersion
from batchmill.core.runner cimport all_of_them
from batchmill.core.shadow_figures cimport compare_answers, count_error
from batchmill.core.status cimport Status, kDeadlineExceeded, kResourceExhausted

cdef uint64_t MEASURE_EACH = 8          # batches, one of which is run by a version that has answered it, too


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
    line.run_ends_cpu_ns = thread_ns() + timeout_ns if timeout_ns else (<int64_t> 1 << 62)
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


cdef int64_t run_timed(ShadowLine* line, ModelVersion* version, const int32_t* inputs, size_t count, Scratch* scratch,
                       Status* status) noexcept nogil:
    """Runs what was gathered: the time of the processor that it took, ns, with scratch.outputs; 0: it failed, and status says why."""
    cdef int64_t began
    cdef bint done
    if not begin_run(line, version):
        status.set(kDeadlineExceeded, b"RUN_TERMINATED", string(b"the server stops"))
        return 0
    began = thread_ns()
    done = run(<OrtModel*> version.model, scratch.inputs.data(), inputs, count, all_of_them(scratch, version.outputs.size()),
               version.outputs.size(), &scratch.outputs, status, line.options)
    began = thread_ns() - began
    if end_run(line) and not done:
        status.set(kDeadlineExceeded, b"RUN_TIMEOUT", string(b"the run took longer than run_timeout_ms"))
    return max(<int64_t> 1, began) if done else 0


cdef ModelVersion* to_measure(Shadow* shadow, InferRequest* request) noexcept nogil:
    """A version that has answered a request of the batch, every now and then."""
    if <uint64_t> shadow.batches.load() < shadow.measured + MEASURE_EACH and shadow.measured:
        return NULL
    while request != NULL:
        if request.mirror.get().answered_by != NULL:
            return <ModelVersion*> request.mirror.get().answered_by
        request = request.next
    return NULL


cdef int64_t run_other(ShadowLine* line, ModelVersion* version, ModelVersion* candidate, Scratch* scratch) noexcept nogil:
    """The same batch by a version that has answered. 0: it cannot run what was gathered for the candidate."""
    cdef vector[int32_t] places
    cdef size_t index, other
    cdef Status status
    for index in range(candidate.inputs.size()):
        for other in range(version.inputs.size()):
            if version.inputs[0][other].name == candidate.inputs[0][index].name:
                places.push_back(<int32_t> other)
    if places.size() != candidate.inputs.size() or places.size() != version.inputs.size():
        return 0
    return run_timed(line, version, places.data(), places.size(), scratch, &status)


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


cdef bint run_whole(ShadowLine* line, Shadow* shadow, InferRequest* batch, int64_t rows, int64_t count, Scratch* scratch,
                    Status* status) noexcept nogil:
    """False: it failed, and nothing was compared. Of two versions that are measured each is first in turn: the second finds warm caches."""
    cdef ModelVersion* version = shadow.version
    cdef ModelVersion* other = to_measure(shadow, batch)
    cdef int width = width_of(batch.inputs, version.first_axis())
    cdef bint other_first = shadow.log_ratio.count.load() % 2
    cdef int64_t took, others = 0
    if not gather(version, batch, count, scratch):
        status.set(kResourceExhausted, b"OUT_OF_MEMORY", string(b"no memory for the batch"))
        return False
    if other != NULL and other_first:
        others = run_other(line, other, version, scratch)
    took = run_timed(line, version, all_of_them(scratch, version.inputs.size()), version.inputs.size(), scratch, status)
    if took == 0 or not compare_batch(shadow, batch, rows, scratch, status):
        return False
    if other != NULL and not other_first:
        others = run_other(line, other, version, scratch)
    add(shadow.batches, 1)
    add(shadow.rows, <uint64_t> rows)
    learn(version.times.made(width), max(<int64_t> 1, rows), <double> took, now_ns())
    if others:
        shadow.log_ratio.put(log(<double> took / <double> others))
        shadow.measured = shadow.batches.load()
    return True


cdef void run_batch(ShadowLine* line, Shadow* shadow, InferRequest* batch, int64_t rows, int64_t count, Scratch* scratch) noexcept nogil:
    cdef InferRequest* request = batch
    cdef InferRequest* following
    cdef Status status
    cdef bint done = run_whole(line, shadow, batch, rows, count, scratch, &status)
    scratch.outputs.clear()
    if done:
        return
    if count == 1:
        settle_back(shadow, batch)
        count_error(shadow, status)
        return
    while request != NULL:
        following = request.next
        request.next = NULL
        run_batch(line, shadow, request, request.rows, 1, scratch)
        request.next = following
        request = following


cdef void end_overdue_shadow(ShadowLine* line) noexcept nogil:
    if not line.started.load() or not line.try_lock_run():
        return
    if line.run_ends_cpu_ns and not line.passed and line.cpu_ns() > line.run_ends_cpu_ns:
        line.passed = True
        set_terminate(line.options, True)
    line.unlock_run()
