"""Ends a version's runs on I/O threads for a while when one has held up such a thread for too long.

By the clock that may have been the kernel's doing, which had given the core to somebody else; an executor on the same core would make
that worse. The thread's own time tells, but to ask for it costs more than a small run. So a long run only has those after it watched,
and of these one that took long of its own moves the version to the executors.
"""

cdef int64_t LONG_NS = 1000000
cdef int64_t PAUSE_NS = 1000000000
cdef int64_t WATCH_NS = 5000000000


cdef bint may_run(const InlineRuns& runs, int64_t now) noexcept nogil:
    return now >= runs.again_ns.load()


cdef bint is_watched(const InlineRuns& runs, int64_t now) noexcept nogil:
    return now < runs.watched_until_ns.load()


cdef void note_run(InlineRuns* runs, int64_t began, int64_t took_ns, int64_t cpu_ns) noexcept nogil:
    if took_ns <= LONG_NS:
        return
    if is_watched(runs[0], began) and cpu_ns > LONG_NS:
        runs.again_ns.store(began + PAUSE_NS)
    runs.watched_until_ns.store(began + WATCH_NS)
