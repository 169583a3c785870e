"""Who answers in the place of a version that failed, may not be asked, or would be late: the model's fallbacks, one after the other."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from batchmill.core cimport json_codec, pb_response
from batchmill.core.histogram cimport VersionStats, add
from batchmill.core.message cimport Encoding, NativeVersion
from batchmill.core.router cimport ConstantOutput, FallbackStep, ModelRoute, ModelVersion, kOnError, kOnInvalid, kOnUnavailable
from batchmill.core.status cimport kInternal
from batchmill.core.tensor cimport TensorView


cdef uint32_t kind_of(const InferRequest* request) noexcept nogil:
    """Of what went wrong, where another version might do better; 0: none might."""
    cdef string_view reason = string_view(request.status.reason)
    if request.status.code == kInternal:
        return kOnError
    if reason == string_view(b"RUN_TIMEOUT") or reason == string_view(b"RUN_OUT_OF_MEMORY"):
        return kOnError
    if reason == string_view(b"RUN_FAILED"):
        return kOnInvalid
    if reason == string_view(b"BREAKER_OPEN") or reason == string_view(b"NOT_READY"):
        return kOnUnavailable
    # Also where a run alone would take too long. A deadline that has passed is found so again, whoever is asked.
    if reason == string_view(b"DEADLINE_UNMEETABLE") or reason == string_view(b"DEADLINE_EXCEEDED"):
        return kOnUnavailable
    return 0


cdef ModelVersion* target_of(const RouteTable* table, const FallbackStep* step, const InferRequest* request) noexcept nogil:
    cdef const ModelRoute* other
    if step.version != NULL or step.model.empty():
        return step.version
    other = table.find(string_view(step.model.data(), step.model.size()))
    if other == NULL:
        return NULL
    return other.share_of(request.route_key if request.route_key.size() else request.id) if other.shares.size() else other.standard


cdef void count_failure(ModelVersion* version, const InferRequest* request, int thread) noexcept nogil:
    cdef VersionStats* stats = version.stats_of(thread)
    add(stats.outcome[<int> request.status.code], 1)
    stats.count_reason(request.status.reason)
    version.fallbacks.fetch_add(1)


cdef void leave(InferRequest* request, int thread) noexcept nogil:
    """The request is as it was when it had been read: what became of it with its version is counted there, and the lease given back."""
    cdef ModelVersion* version = <ModelVersion*> request.version
    cdef int32_t axis
    cdef size_t index
    if version == NULL:
        request.forget_run()
        return
    request.deadline_ns = request.answer_by_ns
    if version.padding.get() != NULL and request.length:
        for index in range(min(version.padding.get().inputs.size(), request.inputs.size())):
            axis = version.padding.get().inputs[index].axis
            if axis:
                request.inputs[index].shape.dims[axis] = request.length
    count_failure(version, request, thread)
    request.forget_run()
    request.version = NULL
    version.leases.fetch_sub(1)     # last: after it the version may be destroyed


cdef bint is_asked_for(const InferRequest* request, string_view name) noexcept nogil:
    cdef size_t index
    for index in range(request.outputs.size()):
        if request.outputs[index].name == name:
            return True
    return request.outputs.empty()


cdef int64_t rows_given(ModelVersion* version, const InferRequest* request) noexcept nogil:
    """Of what was asked; the last one that was asked in vain may not have come so far as to count them."""
    return request.inputs[0].shape.dims[0] if version.batched and request.inputs.size() and request.inputs[0].shape.rank else 1


cdef bint may_be_answered(const FallbackStep* step, const InferRequest* request) noexcept nogil:
    """Rows without elements may be as many as a caller likes: no answer is written that he would not get."""
    cdef int64_t size = 0
    cdef size_t index
    for index in range(step.constant.size()):
        if is_asked_for(request, string_view(step.constant[index].name.data(), step.constant[index].name.size())):
            size += <int64_t> step.constant[index].raw.size()
    return size == 0 or rows_given(<ModelVersion*> request.version, request) <= request.max_response_bytes // size


cdef void answer_constant(const FallbackStep* step, InferRequest* request, int thread) noexcept nogil:
    """In the name of the version that failed, whose lease it keeps. A row of it for each row that was asked for."""
    cdef ModelVersion* version = <ModelVersion*> request.version
    cdef string_view name = string_view(version.name.data(), version.name.size())
    cdef string_view number = string_view(version.version.data(), version.version.size())
    cdef vector[TensorView] outputs
    cdef vector[string] raws
    cdef int64_t rows = rows_given(version, request)
    cdef size_t index
    raws.resize(step.constant.size())
    outputs.reserve(step.constant.size())
    for index in range(step.constant.size()):
        if is_asked_for(request, string_view(step.constant[index].name.data(), step.constant[index].name.size())):
            raws[index] = step.constant[index].raw
            outputs.push_back(view_of(step.constant[index]))
            if version.batched and rows != 1 and outputs.back().shape.rank and outputs.back().shape.dims[0] == 1:
                raws[index].clear()
                for _ in range(rows if step.constant[index].raw.size() else 0):
                    raws[index].append(step.constant[index].raw)
                outputs.back().shape.dims[0] = rows
            outputs.back().data, outputs.back().size = <const uint8_t*> raws[index].data(), raws[index].size()
    count_failure(version, request, thread)
    request.forget_run()
    request.remark(b"fallback", b"x-fallback", string_view(request.fallback.data(), request.fallback.size()))
    if request.encoding == Encoding.kProto:
        pb_response.encode(request, name, number, outputs.data(), outputs.size())
    else:
        json_codec.encode(request, name, number, outputs.data(), outputs.size(), &request.response, &request.json_size)


cdef TensorView view_of(const ConstantOutput& output) noexcept nogil:
    cdef TensorView view
    view.name = string_view(output.name.data(), output.name.size())
    view.dtype, view.shape = output.dtype, output.shape
    return view


cdef Taking take_fallback(const RouteTable* table, InferRequest* request, int thread) noexcept nogil:
    cdef uint32_t kind = kind_of(request)
    cdef const ModelRoute* route
    cdef const FallbackStep* step
    cdef ModelVersion* version
    if kind == 0 or not request.routed or table == NULL or request.is_cancelled():
        return kNobody
    route = table.find(request.model_name)
    if route == NULL:
        return kNobody
    while <size_t> request.fallbacks_tried < route.fallbacks.size():
        step = &route.fallbacks[request.fallbacks_tried]
        request.fallbacks_tried += 1
        if not step.on & kind:
            continue
        if step.constant.size() and request.version != NULL:
            if not may_be_answered(step, request):
                continue
            request.fallback = string(step.told)
            answer_constant(step, request, thread)
            return kAnswered
        version = target_of(table, step, request)
        if version == NULL or <NativeVersion*> version == request.version:
            continue
        version.leases.fetch_add(1)
        leave(request, thread)
        request.version = <NativeVersion*> version
        request.fallback = string(step.told)
        return kAgain
    return kNobody
