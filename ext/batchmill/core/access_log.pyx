"""The access log's records as Python sees them."""

import time
from datetime import UTC, datetime

from libc.stdint cimport int64_t

from batchmill.core.clock cimport now_ns
from batchmill.core.histogram import CODE_NAMES
from batchmill.core.message cimport Encoding, InferRequest


cdef str text_of(const char* given):
    return given.decode("utf-8", "replace")


cdef dict stages_of(const StageTimes& times):
    found = {}
    for part in times.server_timing().decode().split(", "):
        stage, _, took = part.partition(";dur=")
        found[f"{stage}_ms"] = float(took)
    return found


cdef dict fields_of(const AccessRecord* record, int64_t zero_ns):
    """zero_ns: the clock's zero, since the epoch. What a request does not have is left out."""
    fields = {
        "at": datetime.fromtimestamp((zero_ns + record.times.answered) / 1e9, UTC).isoformat(timespec="milliseconds"),
        "protocol": "rest" if record.encoding == Encoding.kJson else "grpc-stream" if record.stream else "grpc",
        "model": text_of(record.model), "version": text_of(record.version), "outcome": CODE_NAMES[record.code].lower(),
        "reason": text_of(record.reason), "request_id": text_of(record.id), "traceparent": text_of(record.traceparent),
        "peer": text_of(record.peer),
    }
    fields = {name: value for name, value in fields.items() if value}
    fields.update(rows=record.rows, request_bytes=record.bytes_in, response_bytes=record.bytes_out)
    fields.update(stages_of(record.times))
    return fields


cdef list taken_from(AccessLog* log):
    cdef const AccessRecord* record = log.front()
    cdef int64_t zero_ns = time.time_ns() - now_ns()
    found = []
    while record != NULL:
        found.append(fields_of(record, zero_ns))
        log.took()
        record = log.front()
    return found


def rehearse(double share, int requests, int taken_every, bytes request_id=b"") -> tuple:
    """(records, dropped) of so many answered requests, for tests. taken_every: the reader comes after so many."""
    cdef AccessLog* log = new AccessLog()
    cdef InferRequest* request = new InferRequest()
    cdef int turn
    found = []
    log.open(share, 0)
    request.id = request_id
    for turn in range(requests):
        request.times.received, request.times.answered = now_ns() - 1500000, now_ns()
        if log.wants():
            log.put(request[0], b"loopback")
        if turn % taken_every == taken_every - 1:
            found += taken_from(log)
    found += taken_from(log)
    dropped = log.dropped.load()
    del log, request
    return found, dropped
