"""Whether a request is taken in: what the predictor says about its wait and its run, beside what it has time for.

Source of the idea: Clockwork (OSDI 2020): who cannot be served in time is told so at once, and costs no run.
"""

from batchmill.core.predictor cimport expected_ns, guarded_ns

# Of a predicted wait, what is reckoned with where it must not be longer: a queue as long as the deadline allows would make everybody late
# as soon as the machine is a little slower than it was. A shorter one serves as many.
cdef double MARGIN = 1.25


cdef Entry predict(int64_t rows, Ahead ahead, const Terms& terms, bint timed) noexcept nogil:
    """Full batches run before it; what is left of those ahead that are of its shape runs with it."""
    cdef Entry entry
    cdef int64_t rest = ahead.alike % terms.most_rows, with_it = min(rest + rows, max(rows, terms.most_rows))
    cdef double before = ahead.work_ns - <double> rest * terms.row_ns
    entry.verdict = kTaken
    entry.rows_ahead = ahead.rows
    entry.behind_a_run = terms.busy_ns > 0
    entry.wait_ns = (max(0.0, before) / terms.parallel + terms.busy_ns) * terms.drift
    entry.alone_ns = entry.run_ns = entry.latest_start_ns = entry.latest_end_ns = 0
    if not timed:
        return entry
    entry.alone_ns = expected_ns(terms.known, rows)
    entry.run_ns = guarded_ns(terms.known, with_it) if entry.wait_ns > 0 else expected_ns(terms.known, with_it)
    entry.latest_start_ns = entry.wait_ns * MARGIN
    entry.latest_end_ns = entry.latest_start_ns + entry.run_ns
    return entry


cdef Verdict judge(const Entry& entry, Ahead ahead, const Terms& terms, int64_t start_by_ns, int64_t finish_by_ns, int64_t objective_ns,
                   bint fresh) noexcept nogil:
    """fresh: the prediction rests on a recent run. One that does not refuses nobody who need not wait: it may be wrong for ever.

    An objective refuses only those who would have to wait: one that even a lone run misses is the model's, not theirs.
    """
    if entry.wait_ns == 0 and not fresh:
        return kTaken
    if finish_by_ns and entry.alone_ns > finish_by_ns:
        return kHopeless
    if terms.max_wait_ns and entry.wait_ns > terms.max_wait_ns:
        return kTooLong
    if (start_by_ns and entry.latest_start_ns > start_by_ns) or (finish_by_ns and entry.latest_end_ns > finish_by_ns):
        return kUnmeetable
    if objective_ns and ahead.rows and entry.latest_end_ns > objective_ns:
        return kUnmeetable
    return kTaken
