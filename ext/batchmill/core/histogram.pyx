"""What Python sees of the threads' histograms and counters, merged."""

from libc.stdlib cimport calloc, free

CODE_NAMES = ("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
              "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
              "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED")
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


cdef dict fine_of(const Histogram** parts, int count):
    """{upper bound of a bucket, ns: how many}, ascending; empty buckets left out."""
    cdef int part, bucket
    cdef uint64_t at
    found = {}
    for bucket in range(BUCKETS):
        at = 0
        for part in range(count):
            at += (<Histogram*> parts[part]).counts[bucket].load()
        if at:
            found[upper_bound_ns(bucket)] = at
    return found


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


cdef dict latencies(atomic[VersionStats*]* slots, int slot_count):
    cdef const Histogram* parts[128]
    cdef int stage
    found = {}
    for stage in range(7):
        found[STAGES[stage]] = fine_of(parts, gather(slots, slot_count, stage, parts))
    return found


cdef dict statistics(atomic[VersionStats*]* slots, int slot_count):
    cdef const Histogram* parts[128]
    cdef VersionStats* part
    cdef BatchCounts* size
    cdef int slot, code, stage, reason
    cdef int64_t rows
    sums = dict.fromkeys(("success", "rows", "batch_failures", "bytes_in", "bytes_out", "failed_ns", "assembly_ns", "compute_ns",
                          "encode_ns"), 0)
    failure, reasons, sizes, stages = {}, {}, {}, {}
    last_ns = 0
    for slot in range(slot_count):
        part = slots[slot].load()
        if part == NULL:
            continue
        for name, value in (
            ("success", part.outcome[0].load()), ("rows", part.rows.load()), ("batch_failures", part.batch_failures.load()),
            ("bytes_in", part.bytes_in.load()), ("bytes_out", part.bytes_out.load()), ("failed_ns", part.failed_ns.load()),
            ("assembly_ns", part.assembly_ns.load()), ("compute_ns", part.compute_ns.load()),
            ("encode_ns", part.encode_ns.load()),
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
        for rows in range(1, kCountedRows + 1):
            size = part.sizes.find(rows)
            if size != NULL and size.batches.load():
                before = sizes.get(rows, (0, 0, 0, 0))
                sizes[rows] = (before[0] + size.batches.load(), before[1] + size.assembly_ns.load(),
                               before[2] + size.compute_ns.load(), before[3] + size.encode_ns.load())
    for stage in range(7):
        stages[STAGES[stage]] = summed(parts, gather(slots, slot_count, stage, parts))
    return {**sums, "last_ns": last_ns, "batches": stages["compute"]["count"], "failure": failure, "reasons": reasons,
            "batch_sizes": dict(sorted(sizes.items())), "stages": stages}


def fine(values_ns) -> dict:
    """{upper bound, ns: how many} of one histogram that was fed these durations (for tests)."""
    cdef Histogram* one = <Histogram*> calloc(1, sizeof(Histogram))
    cdef const Histogram* parts[1]
    try:
        for value in values_ns:
            one.record(value)
        parts[0] = one
        return fine_of(parts, 1)
    finally:
        free(one)


def bucket_bounds(int64_t ns) -> tuple:
    """(lower, upper) of the fine bucket that holds a duration."""
    cdef int bucket = bucket_of(ns)
    return (upper_bound_ns(bucket - 1) if bucket else 0, upper_bound_ns(bucket))
