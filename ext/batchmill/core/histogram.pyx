"""What Python sees of the threads' histograms and counters, merged."""

from libcpp.vector cimport vector

# A snapshot is a row of uint64: what is counted in the upper 16 bits, how often in the lower 48.
cdef enum:
    COUNT_BITS = 48

cdef int OUTCOMES_AT = 7 * BUCKETS      # after the buckets of the stages
cdef int ROWS_AT = OUTCOMES_AT + kCodes
cdef uint64_t COUNT_MASK = (<uint64_t> 1 << COUNT_BITS) - 1

CODE_NAMES = ("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
              "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
              "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED")
CLOSE_REASONS = ("full", "idle", "linger", "deadline", "delay", "shape", "turn", "drain")    # by CloseReason
STAGES = ("decode", "queue", "assembly", "compute", "encode", "total_grpc", "total_rest")


cdef const Histogram* stage_of(VersionStats* part, int stage) noexcept:
    if stage == 0:
        return &part.decode
    if stage == 1:
        return &part.queue
    if stage == 2:
        return &part.assembly
    if stage == 3:
        return &part.compute
    if stage == 4:
        return &part.encode
    return &part.total[stage - 5]


cdef tuple bounds_of(int bucket):
    return (upper_bound_ns(bucket - 1) if bucket else 0, upper_bound_ns(bucket))


cdef dict summed(const Histogram** parts, int count):
    """{"count", "sum_ns"}"""
    cdef int part, bucket
    cdef uint64_t sum_ns = 0, total = 0
    for part in range(count):
        sum_ns += (<Histogram*> parts[part]).sum_ns.load()
        for bucket in range(BUCKETS):
            total += (<Histogram*> parts[part]).counts[bucket].load()
    return {"count": total, "sum_ns": sum_ns}


cdef int gather(atomic[VersionStats*]* slots, int slot_count, int stage, const Histogram** parts) noexcept:
    cdef int slot, count = 0
    cdef VersionStats* part
    for slot in range(slot_count):
        part = slots[slot].load()
        if part != NULL:
            parts[count] = stage_of(part, stage)
            count += 1
    return count


cdef bytes snapshot(atomic[VersionStats*]* slots, int slot_count):
    cdef vector[uint64_t] counts
    cdef vector[uint64_t] packed
    cdef const Histogram* parts[128]
    cdef VersionStats* part
    cdef uint64_t index
    cdef int stage, slot, bucket, code, count
    counts.resize(ROWS_AT + 1)
    for stage in range(7):
        count = gather(slots, slot_count, stage, parts)
        for slot in range(count):
            for bucket in range(BUCKETS):
                counts[stage * BUCKETS + bucket] += (<Histogram*> parts[slot]).counts[bucket].load()
    for slot in range(slot_count):
        part = slots[slot].load()
        if part != NULL:
            counts[ROWS_AT] += part.rows.load()
            for code in range(kCodes):
                counts[OUTCOMES_AT + code] += part.outcome[code].load()
    for index in range(counts.size()):
        if counts[index]:
            packed.push_back(index << COUNT_BITS | counts[index])
    return (<const char*> packed.data())[:packed.size() * sizeof(uint64_t)]


cdef int64_t routed(atomic[VersionStats*]* slots, int slot_count) noexcept:
    cdef VersionStats* part
    cdef int slot
    cdef uint64_t total = 0
    for slot in range(slot_count):
        part = slots[slot].load()
        if part != NULL:
            total += part.routed.load()
    return total


cdef int64_t answered(atomic[VersionStats*]* slots, int slot_count) noexcept:
    cdef VersionStats* part
    cdef int slot, code
    cdef uint64_t total = 0
    for slot in range(slot_count):
        part = slots[slot].load()
        if part != NULL:
            for code in range(kCodes):
                total += part.outcome[code].load()
    return total


def difference(bytes newer, bytes older) -> dict:
    """What happened between two snapshots of one version: {"ok", "failed", "rows": counts, "stages": {stage: {(lower, upper): how many}}}.

    Buckets in ns, ascending, empty ones left out; an empty snapshot is that of a version that has answered nothing yet.
    """
    cdef const uint64_t* data
    cdef vector[uint64_t] counts
    cdef size_t at
    cdef int stage, bucket, code
    counts.resize(ROWS_AT + 1)
    data = <const uint64_t*> <const char*> newer
    for at in range(len(newer) // sizeof(uint64_t)):
        counts[data[at] >> COUNT_BITS] += data[at] & COUNT_MASK
    data = <const uint64_t*> <const char*> older
    for at in range(len(older) // sizeof(uint64_t)):
        counts[data[at] >> COUNT_BITS] -= data[at] & COUNT_MASK
    stages = {}
    for stage in range(7):
        stages[STAGES[stage]] = {bounds_of(bucket): counts[stage * BUCKETS + bucket]
                                 for bucket in range(BUCKETS) if counts[stage * BUCKETS + bucket]}
    failed = sum([counts[OUTCOMES_AT + code] for code in range(1, kCodes)])
    return {"ok": counts[OUTCOMES_AT], "failed": failed, "rows": counts[ROWS_AT], "stages": stages}


cdef dict statistics(atomic[VersionStats*]* slots, int slot_count):
    cdef const Histogram* parts[128]
    cdef VersionStats* part
    cdef BatchCounts* size
    cdef int slot, code, stage, reason
    cdef int64_t rows
    sums = dict.fromkeys(("success", "rows", "batch_failures", "bytes_in", "bytes_out", "failed_ns", "queue_ns", "assembly_ns",
                          "compute_ns", "encode_ns", "inline_batches"), 0)
    failure, reasons, sizes, stages = {}, {}, {}, {}
    closed = dict.fromkeys(CLOSE_REASONS, (0, 0, 0))
    last_ns = 0
    for slot in range(slot_count):
        part = slots[slot].load()
        if part == NULL:
            continue
        for name, value in (
            ("success", part.outcome[0].load()), ("rows", part.rows.load()), ("batch_failures", part.batch_failures.load()),
            ("bytes_in", part.bytes_in.load()), ("bytes_out", part.bytes_out.load()), ("failed_ns", part.failed_ns.load()),
            ("queue_ns", part.queue_ns.load()), ("assembly_ns", part.assembly_ns.load()), ("compute_ns", part.compute_ns.load()),
            ("encode_ns", part.encode_ns.load()), ("inline_batches", part.inline_batches.load()),
        ):
            sums[name] += value
        last_ns = max(last_ns, part.last_ns.load())
        for code in range(1, kCodes):
            if part.outcome[code].load():
                failure[CODE_NAMES[code]] = failure.get(CODE_NAMES[code], 0) + part.outcome[code].load()
        for reason in range(kReasons):
            if part.reasons[reason].reason.load() == NULL:
                break
            name = part.reasons[reason].reason.load().decode()
            reasons[name] = reasons.get(name, 0) + part.reasons[reason].count.load()
        for reason in range(kCloseReasons):
            name, before = CLOSE_REASONS[reason], closed[CLOSE_REASONS[reason]]
            closed[name] = (before[0] + part.closed[reason].batches.load(), before[1] + part.closed[reason].rows.load(),
                            before[2] + part.closed[reason].wait_ns.load())
        for rows in range(1, kCountedRows + 1):
            size = part.sizes.find(rows)
            if size != NULL and size.batches.load():
                before = sizes.get(rows, (0, 0, 0, 0))
                sizes[rows] = (before[0] + size.batches.load(), before[1] + size.assembly_ns.load(),
                               before[2] + size.compute_ns.load(), before[3] + size.encode_ns.load())
    for stage in range(7):
        stages[STAGES[stage]] = summed(parts, gather(slots, slot_count, stage, parts))
    return {**sums, "last_ns": last_ns, "batches": stages["compute"]["count"], "failure": failure, "reasons": reasons,
            "closed": closed, "batch_sizes": dict(sorted(sizes.items())), "stages": stages}


def recorded(values_ns) -> bytes:
    """The snapshot of a version whose decode took these durations (for tests)."""
    cdef atomic[VersionStats*] slots[1]
    cdef VersionStats* one = new VersionStats()
    slots[0].store(one)
    try:
        for value in values_ns:
            one.decode.record(value)
        return snapshot(slots, 1)
    finally:
        del one


def bucket_bounds(int64_t ns) -> tuple:
    """(lower, upper) of the fine bucket that holds a duration."""
    return bounds_of(bucket_of(ns))
