"""Who is served next among the versions that have work for the executors.

Start-time fair queueing (Goyal, Vin and Cheng, 1996) by run time and weight: a version that has had less than the others is served first,
so that one with endless work delays another by one of its batches. Among those who have had about as much, the most urgent
request decides. All of it with the executor pool's mutex held.
"""

from libc.math cimport fabs

from batchmill.core.batcher cimport LastBatch, Plan, most_rows, plan
from batchmill.core.histogram cimport kPreferredSizes
from batchmill.core.predictor cimport Estimate, expected_ns, find, guarded_ns, is_confirmed

cdef double EQUAL_NS = 200000               # run time that makes no difference between two versions
cdef int64_t COMPANY_NS = 1000000000        # for so long after another was served, a version is not alone


cdef BatchLimits limits_of(Turns* turns, ModelVersion* version) noexcept nogil:
    cdef BatchLimits limits
    cdef int at
    limits.max_batch_size = version.max_batch_size.load()
    if version.culprits.most_rows.load():
        limits.max_batch_size = min(limits.max_batch_size, version.culprits.most_rows.load())
    limits.max_queue_delay_ns = version.max_queue_delay_ns.load()
    limits.draining = turns.draining.load()
    for at in range(kPreferredSizes):
        limits.preferred[at] = version.preferred[at].load()
        if limits.preferred[at] == 0:       # nobody looks beyond
            break
    return limits


cdef Plan plan_of(Turns* turns, ModelVersion* version, int64_t now) noexcept nogil:
    cdef BatchLimits limits = limits_of(turns, version)
    cdef Estimate known = find(&version.times, version.last_width)
    cdef LastBatch last
    cdef int64_t rows = version.queue.rows.load(), urgent = version.queue.urgent_ns.load()
    limits.max_batch_size = most_rows(rows, limits, known)
    last.expected_rows = version.expected_rows
    last.ended_ns = version.last_ended_ns
    last.run_ns = 0
    if version.expected_rows > 1:
        last.run_ns = <int64_t> expected_ns(known, min(version.expected_rows, limits.max_batch_size))
    if limits.max_queue_delay_ns:
        urgent -= <int64_t> guarded_ns(known, min(rows, limits.max_batch_size))
    return plan(rows, version.queue.oldest_ns.load(), urgent, now, limits, last)


cdef void line_up(Turns* turns, ModelVersion* version) noexcept nogil:
    if version.due or version.running >= version.instances.load() or version.queue.rows.load() == 0:
        return
    version.due = True
    version.served_ns = max(version.served_ns, turns.served_ns)
    turns.due.push_back(version)
    turns.due_count.store(<int32_t> turns.due.size())


cdef void remove(Turns* turns, size_t index) noexcept nogil:
    turns.due[index].due = False
    turns.due[index] = turns.due.back()
    turns.due.pop_back()
    turns.due_count.store(<int32_t> turns.due.size())


cdef void step_out(Turns* turns, ModelVersion* version) noexcept nogil:
    cdef size_t index = 0
    while version.due and index < turns.due.size():
        if turns.due[index] == version:
            remove(turns, index)
        index += 1


cdef bint goes_before(ModelVersion* one, ModelVersion* other) noexcept nogil:
    if fabs(one.served_ns - other.served_ns) > EQUAL_NS:
        return one.served_ns < other.served_ns
    return one.queue.urgent_ns.load() < other.queue.urgent_ns.load()


cdef ModelVersion* next_turn(Turns* turns, int64_t now, int64_t* wait_until, CloseReason* reason) noexcept nogil:
    cdef size_t index = 0
    cdef ModelVersion* version
    cdef ModelVersion* found = NULL
    cdef Plan decision
    wait_until[0] = 0
    while index < turns.due.size():
        version = turns.due[index]
        if version.queue.rows.load() == 0:      # an I/O thread took them
            remove(turns, index)
            continue
        decision = plan_of(turns, version, now)
        if not decision.close:
            if wait_until[0] == 0 or decision.wait_until_ns < wait_until[0]:
                wait_until[0] = decision.wait_until_ns
        elif found == NULL or goes_before(version, found):
            found = version
            reason[0] = decision.reason
        index += 1
    if found != NULL:
        step_out(turns, found)
    return found


cdef Rules rules_of(Turns* turns, ModelVersion* version, bint shares, int64_t now) noexcept nogil:
    cdef Rules rules
    rules.limits = limits_of(turns, version)
    rules.times = &version.times
    rules.first_axis = version.first_axis()
    rules.slack_share = version.slack_share.load()
    shares = shares and (turns.due.size() > 0 or (turns.last != NULL and (
        turns.last != version or now - turns.changed_ns < COMPANY_NS)))
    rules.turn_ns = <double> turns.turn_ns.load() if shares and turns.turn_ns.load() else -1
    return rules


cdef void started(Turns* turns, ModelVersion* version, const Taken& taken, int64_t now) noexcept nogil:
    """version.running counts the batch already."""
    if turns.last != version:
        turns.changed_ns = now if turns.last != NULL else now - COMPANY_NS
        turns.last = version
    turns.served_ns = max(turns.served_ns, version.served_ns)
    version.last_width = taken.width
    version.served_ns += taken.expected_ns / version.weight.load()
    if version.running >= version.instances.load():
        version.busy_until_ns.store(now)
        if is_confirmed(find(&version.times, taken.width)):
            version.busy_until_ns.store(now + <int64_t> taken.expected_ns)


cdef void ended(Turns* turns, ModelVersion* version, const Taken& taken, int64_t began, int64_t now) noexcept nogil:
    version.running -= 1
    version.busy_until_ns.store(0)
    version.served_ns += (<double> (now - began) - taken.expected_ns) / version.weight.load()
    version.expected_rows = taken.rows + version.queue.rows.load() if taken.rows else 0
    version.last_ended_ns = now
    line_up(turns, version)
