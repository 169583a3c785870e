"""Which runs are short enough for an I/O thread, which meanwhile does nothing else.

Where every executor is busy, a run of a few times that is better done here, too, than after another model's. And what was measured on an
executor says too much: it wakes up for a run, on a core that has gone cold or that others want. So such runs are also tried every now and
then, and stay if they are short here: else a model once slow would be slow for ever.

One that has held up an I/O thread for too long ends them for a while. By the clock that may have been the kernel's doing, which gave the
core to somebody else; an executor on the same core would make that worse. The thread's own time tells, but to ask for it costs more than
a small run. So a long run only has those after it watched, and of these one that took long of its own moves the version to the executors.
"""

cdef double SHORT_NS = 60000
cdef double BEARABLE_NS = 4 * SHORT_NS
cdef int64_t TRIAL_NS = 10000000        # for so long they are tried ...
cdef int64_t TRIAL_EACH_NS = 500000000  # ... so often
cdef int64_t LONG_NS = 1000000
cdef int64_t PAUSE_NS = 1000000000
cdef int64_t WATCH_NS = 5000000000


cdef bint may_run(InlineRuns* runs, double predicted_ns, bint busy, int64_t now) noexcept nogil:
    cdef int64_t tried = runs.tried_ns.load()
    if predicted_ns <= 0 or predicted_ns > BEARABLE_NS or now < runs.again_ns.load():
        return False
    if busy or predicted_ns <= SHORT_NS:
        return True
    if now - tried > TRIAL_EACH_NS:
        runs.tried_ns.store(now)
        return True
    return now - tried < TRIAL_NS


cdef bint is_watched(const InlineRuns& runs, int64_t now) noexcept nogil:
    return now < runs.watched_until_ns.load()


cdef void note_run(InlineRuns* runs, int64_t began, int64_t took_ns, int64_t cpu_ns) noexcept nogil:
    if took_ns <= LONG_NS:
        return
    if is_watched(runs[0], began) and cpu_ns > LONG_NS:
        runs.again_ns.store(began + PAUSE_NS)
    runs.watched_until_ns.store(began + WATCH_NS)
