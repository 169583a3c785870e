"""The versions' counters and histograms as text for Prometheus (exposition format 0.0.4), written without the GIL.

A thousand models are 150,000 lines, which prometheus-client would hold the GIL for seconds to write.
"""

from libc.stdint cimport int64_t, uint64_t
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.vector cimport vector

from batchmill.core.clock cimport now_ns
from batchmill.core.histogram cimport kCodes, kCloseReasons
from batchmill.core.router cimport ModelVersion, Version, VersionPointer
from batchmill.core.status cimport kCancelled, kInternal, kResourceExhausted, kUnavailable

ctypedef pair[const char*, uint64_t] ReasonSum

cdef extern from "exposition.hpp" namespace "batchmill" nogil:
    cdef cppclass MergedHistogram:
        uint64_t sum, count

    cdef cppclass MergedStats:
        string labels
        const ModelVersion* version
        MergedHistogram* stages
        uint64_t* outcome
        uint64_t bytes_in, bytes_out, rows, batch_failures, queue_ns, assembly_ns, compute_ns, encode_ns, inline_batches, padding_bytes
        uint64_t* closed_batches    # by CloseReason
        uint64_t* closed_rows
        uint64_t* closed_wait_ns
        vector[ReasonSum] reasons
        uint64_t requests()

    MergedStats merged(const ModelVersion& version)

    cdef cppclass PrometheusText:
        string out
        void family(const char* name, const char* kind, const char* help)
        void integer(const char* name, const string& labels, const char* extra, uint64_t value)
        void seconds(const char* name, const string& labels, const char* extra, uint64_t ns)
        void histogram(const char* name, const string& labels, const char* extra, const MergedHistogram& one)
        void batch_rows(const char* name, const MergedStats& one)

ctypedef vector[MergedStats] Everything

# What one number of a version is; the last eight as Triton counts, where each request has its batch's whole time.
cdef enum Figure:
    kRows, kBatches, kFailedBatches, kInlineBatches, kPaddingBytes, kBytesIn, kBytesOut, kQueueRows, kQueueRequests, kLeases, kSuccess
    kRequestUs, kQueueUs, kAssemblyUs, kComputeUs, kEncodeUs

cdef const char** OUTCOMES = [
    b',outcome="ok"', b',outcome="cancelled"', b',outcome="unknown"', b',outcome="invalid_argument"', b',outcome="deadline_exceeded"',
    b',outcome="not_found"', b',outcome="already_exists"', b',outcome="permission_denied"', b',outcome="resource_exhausted"',
    b',outcome="failed_precondition"', b',outcome="aborted"', b',outcome="out_of_range"', b',outcome="unimplemented"',
    b',outcome="internal"', b',outcome="unavailable"', b',outcome="data_loss"', b',outcome="unauthenticated"']


def render(versions, *, bint triton=False) -> bytes:
    """All series of the versions that have answered something, of which there may be thousands. triton: nv_inference_* as well."""
    cdef vector[VersionPointer] pointers
    cdef Version version
    held = tuple(versions)          # keeps them alive
    for version in held:
        pointers.push_back(version.native)
    return text_of(pointers, triton)


cdef bytes text_of(const vector[VersionPointer]& versions, bint triton):
    cdef Everything everything
    cdef PrometheusText text
    cdef size_t at
    with nogil:
        for at in range(versions.size()):
            everything.push_back(merged(versions[at][0]))
            if everything.back().requests() or versions[at].leases.load():
                everything.back().labels = labels_of(versions[at])
            else:
                everything.pop_back()
        write_outcomes(text, everything)
        write_figures(text, everything)
        write_closes(text, everything)
        write_histograms(text, everything)
        if triton:
            write_triton(text, everything)
    return text.out


cdef string labels_of(const ModelVersion* version) noexcept nogil:
    cdef string labels = string(b'model="')
    cdef size_t at
    for at in range(version.name.size()):
        if version.name[at] == c'"' or version.name[at] == c'\\':
            labels.push_back(c'\\')
        labels.push_back(version.name[at])
    return labels.append(b'",version="').append(version.version).append(b'"')


cdef void write_outcomes(PrometheusText& text, const Everything& all) noexcept nogil:
    cdef size_t at, which
    cdef int code
    cdef string extra
    text.family(b"batchmill_requests_total", b"counter", b"Requests answered, by outcome: ok or a gRPC code")
    for at in range(all.size()):
        for code in range(kCodes):
            if code == 0 or all[at].outcome[code]:
                text.integer(b"batchmill_requests_total", all[at].labels, OUTCOMES[code], all[at].outcome[code])
    text.family(b"batchmill_request_failures_total", b"counter", b"Requests not answered well, by reason")
    for at in range(all.size()):
        for which in range(all[at].reasons.size()):
            extra = string(b',reason="').append(lower(all[at].reasons[which].first)).append(b'"')
            text.integer(b"batchmill_request_failures_total", all[at].labels, extra.c_str(), all[at].reasons[which].second)


cdef void write_closes(PrometheusText& text, const Everything& all) noexcept nogil:
    cdef const char** reasons = [b',reason="full"', b',reason="idle"', b',reason="linger"', b',reason="deadline"', b',reason="delay"',
                                 b',reason="shape"', b',reason="turn"', b',reason="drain"']
    cdef size_t at
    cdef int which
    text.family(b"batchmill_closed_batches_total", b"counter", b"Batches, by why no more rows were in them")
    for at in range(all.size()):
        for which in range(kCloseReasons):
            if all[at].closed_batches[which]:
                text.integer(b"batchmill_closed_batches_total", all[at].labels, reasons[which], all[at].closed_batches[which])
    text.family(b"batchmill_closed_rows_total", b"counter", b"Rows of those batches")
    for at in range(all.size()):
        for which in range(kCloseReasons):
            if all[at].closed_batches[which]:
                text.integer(b"batchmill_closed_rows_total", all[at].labels, reasons[which], all[at].closed_rows[which])
    text.family(b"batchmill_closed_wait_seconds_total", b"counter", b"How long the first request of each of those batches waited")
    for at in range(all.size()):
        for which in range(kCloseReasons):
            if all[at].closed_batches[which]:
                text.seconds(b"batchmill_closed_wait_seconds_total", all[at].labels, reasons[which], all[at].closed_wait_ns[which])


cdef string lower(const char* reason) noexcept nogil:
    cdef string text = string(reason)
    cdef size_t at
    for at in range(text.size()):
        if c'A' <= text[at] <= c'Z':
            text[at] = text[at] + 32
    return text


cdef void write_figure(PrometheusText& text, const Everything& all, Figure which, const char* name, const char* kind,
                       const char* help) noexcept nogil:
    cdef size_t at
    text.family(name, kind, help)
    for at in range(all.size()):
        text.integer(name, all[at].labels, b"", figure(all[at], which))


cdef void write_figures(PrometheusText& text, const Everything& all) noexcept nogil:
    cdef size_t at
    cdef int64_t now = now_ns(), since
    write_figure(text, all, kRows, b"batchmill_rows_total", b"counter", b"Rows computed")
    write_figure(text, all, kBatches, b"batchmill_batches_total", b"counter", b"Batches run")
    write_figure(text, all, kFailedBatches, b"batchmill_failed_batches_total", b"counter", b"Batches that failed and ran again in parts")
    write_figure(text, all, kInlineBatches, b"batchmill_inline_batches_total", b"counter", b"Batches run on an I/O thread")
    write_figure(text, all, kPaddingBytes, b"batchmill_padding_bytes_total", b"counter", b"Bytes that rows were filled up with")
    write_figure(text, all, kBytesIn, b"batchmill_request_bytes_total", b"counter", b"Bytes of request bodies")
    write_figure(text, all, kBytesOut, b"batchmill_response_bytes_total", b"counter", b"Bytes of answers")
    write_figure(text, all, kQueueRows, b"batchmill_queue_rows", b"gauge", b"Rows that wait now")
    write_figure(text, all, kQueueRequests, b"batchmill_queue_requests", b"gauge", b"Requests that wait now")
    write_figure(text, all, kLeases, b"batchmill_version_in_flight_requests", b"gauge", b"Requests a version holds now")
    text.family(b"batchmill_queue_oldest_seconds", b"gauge", b"For how long the oldest request that waits has waited")
    for at in range(all.size()):
        since = all[at].version.queue.oldest_ns.load()
        text.seconds(b"batchmill_queue_oldest_seconds", all[at].labels, b"", now - since if 0 < since < now else 0)


cdef uint64_t figure(const MergedStats& one, Figure which) noexcept nogil:
    if which == kRows:
        return one.rows
    if which == kBatches:
        return one.stages[3].count
    if which == kFailedBatches:
        return one.batch_failures
    if which == kInlineBatches:
        return one.inline_batches
    if which == kPaddingBytes:
        return one.padding_bytes
    if which == kBytesIn:
        return one.bytes_in
    if which == kBytesOut:
        return one.bytes_out
    if which == kQueueRows:
        return one.version.queue.rows.load()
    if which == kQueueRequests:
        return one.version.queue.requests.load()
    if which == kLeases:
        return one.version.leases.load()
    if which == kSuccess:
        return one.outcome[0]
    if which == kRequestUs:
        return (one.stages[5].sum + one.stages[6].sum) // 1000
    if which == kQueueUs:
        return one.queue_ns // 1000
    return (one.assembly_ns if which == kAssemblyUs else one.compute_ns if which == kComputeUs else one.encode_ns) // 1000


cdef void write_histograms(PrometheusText& text, const Everything& all) noexcept nogil:
    cdef const char** names = [
        b"batchmill_decode_duration_seconds", b"batchmill_queue_duration_seconds", b"batchmill_assembly_duration_seconds",
        b"batchmill_compute_duration_seconds", b"batchmill_encode_duration_seconds", b"batchmill_request_duration_seconds"]
    cdef const char** helps = [
        b"Request: read, parsed, routed and checked", b"Request: from queued to the start of its run", b"Batch: rows gathered",
        b"Batch: the model's run", b"Batch: answers written", b"From the last byte read to the answer, of requests answered well"]
    cdef size_t at
    cdef int stage
    text.family(b"batchmill_batch_rows", b"histogram", b"Rows of a batch")
    for at in range(all.size()):
        text.batch_rows(b"batchmill_batch_rows", all[at])
    for stage in range(5):
        text.family(names[stage], b"histogram", helps[stage])
        for at in range(all.size()):
            text.histogram(names[stage], all[at].labels, b"", all[at].stages[stage])
    text.family(names[5], b"histogram", helps[5])
    for at in range(all.size()):
        if all[at].stages[5].count:
            text.histogram(names[5], all[at].labels, b',protocol="grpc"', all[at].stages[5])
        if all[at].stages[6].count:
            text.histogram(names[5], all[at].labels, b',protocol="rest"', all[at].stages[6])


cdef void write_triton(PrometheusText& text, const Everything& all) noexcept nogil:
    """Names, units and reasons of Triton's metrics."""
    cdef size_t at
    cdef int code
    cdef uint64_t rejected, cancelled, broken, failed
    write_figure(text, all, kSuccess, b"nv_inference_request_success", b"counter", b"Requests answered well")
    write_figure(text, all, kRows, b"nv_inference_count", b"counter", b"Rows computed")
    write_figure(text, all, kBatches, b"nv_inference_exec_count", b"counter", b"Batches run")
    write_figure(text, all, kQueueRequests, b"nv_inference_pending_request_count", b"gauge", b"Requests that wait now")
    write_figure(text, all, kRequestUs, b"nv_inference_request_duration_us", b"counter", b"Sum of requests' durations")
    write_figure(text, all, kQueueUs, b"nv_inference_queue_duration_us", b"counter", b"Sum of requests' time in the queue")
    write_figure(text, all, kAssemblyUs, b"nv_inference_compute_input_duration_us", b"counter", b"Sum of requests' batches' gathering")
    write_figure(text, all, kComputeUs, b"nv_inference_compute_infer_duration_us", b"counter", b"Sum of requests' batches' runs")
    write_figure(text, all, kEncodeUs, b"nv_inference_compute_output_duration_us", b"counter", b"Sum of requests' batches' encoding")
    text.family(b"nv_inference_request_failure", b"counter", b"Requests not answered well, by Triton's reasons")
    for at in range(all.size()):
        failed = 0
        for code in range(1, kCodes):
            failed += all[at].outcome[code]
        rejected = all[at].outcome[<int> kResourceExhausted] + all[at].outcome[<int> kUnavailable]
        cancelled, broken = all[at].outcome[<int> kCancelled], all[at].outcome[<int> kInternal]
        text.integer(b"nv_inference_request_failure", all[at].labels, b',reason="REJECTED"', rejected)
        text.integer(b"nv_inference_request_failure", all[at].labels, b',reason="CANCELED"', cancelled)
        text.integer(b"nv_inference_request_failure", all[at].labels, b',reason="BACKEND"', broken)
        text.integer(b"nv_inference_request_failure", all[at].labels, b',reason="OTHER"', failed - rejected - cancelled - broken)
