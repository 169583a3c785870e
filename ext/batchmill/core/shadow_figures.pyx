"""What shadows have found: answers compared output by output, the worst of them kept, and all of it told to Python at any time."""

from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int64_t, uint64_t
from libcpp.memory cimport shared_ptr
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from batchmill.core.comparison cimport Compared, Disagreement, NamedTensor, compared, count_compared, told_figures, told_moments
from batchmill.core.histogram cimport add
from batchmill.core.message cimport Mirror
from batchmill.core.router cimport Version
from batchmill.core.tensor cimport TensorSpec, datatype_name, total_bytes

cdef extern from * nogil:
    """
    #include <algorithm>
    #include <chrono>
    #include "router.hpp"
    static inline int64_t batchmill_unix_ms() {
        return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
    }
    static inline void batchmill_put_worst(batchmill::Shadow* shadow, batchmill::Disagreement& one) {
        auto& worst = shadow->worst;
        auto at = std::upper_bound(worst.begin(), worst.end(), one, [](auto& a, auto& b) { return a.excess > b.excess; });
        worst.insert(at, std::move(one));
        if (static_cast<int64_t>(worst.size()) > shadow->settings.keep) worst.pop_back();
    }
    """
    int64_t unix_ms "batchmill_unix_ms"()
    void put_worst "batchmill_put_worst"(Shadow* shadow, Disagreement& one)

ctypedef shared_ptr[Shadow] SharedShadow

cdef size_t WORST_BYTES = 1 << 20       # of a disagreement; of a larger one only the scores and shapes are kept


cdef const TensorView* named(const vector[TensorView]& views, string_view name) noexcept nogil:
    cdef size_t index
    for index in range(views.size()):
        if views[index].name == name:
            return &views[index]
    return NULL


cdef void keep_tensors(vector[NamedTensor]& target, const vector[TensorView]& source, bint whole) noexcept nogil:
    cdef size_t index
    target.resize(source.size())
    for index in range(source.size()):
        target[index].name.assign(source[index].name.data(), source[index].name.size())
        target[index].dtype, target[index].shape = source[index].dtype, source[index].shape
        if whole:
            target[index].bytes.assign(<const char*> source[index].data, source[index].size)


cdef void keep_worst(Shadow* shadow, InferRequest* request, const vector[TensorView]& said, Disagreement& found) noexcept nogil:
    """If it is worse than one of those that are kept, or there is room."""
    cdef Mirror* mirror = request.mirror.get()
    cdef int64_t size
    cdef bint wanted
    shadow.lock()
    wanted = shadow.active.load() and (<int64_t> shadow.worst.size() < shadow.settings.keep or (
        shadow.worst.size() > 0 and found.excess > shadow.worst.back().excess))
    shadow.unlock()
    if not wanted:
        return
    size = (total_bytes(request.inputs.data(), request.inputs.size()) + total_bytes(said.data(), said.size())
            + total_bytes(mirror.outputs.data(), mirror.outputs.size()))
    found.whole = not shadow.settings.redact and size <= <int64_t> WORST_BYTES
    if not shadow.settings.redact:
        found.id.assign(request.id.data(), min(request.id.size(), <size_t> 256))
    found.unix_ms = unix_ms()
    keep_tensors(found.inputs, request.inputs, found.whole)
    keep_tensors(found.answered, mirror.outputs, found.whole)
    keep_tensors(found.candidate, said, found.whole)
    shadow.lock()
    if shadow.active.load():
        put_worst(shadow, found)
    shadow.unlock()


cdef void compare_answers(Shadow* shadow, InferRequest* request, const vector[TensorView]& said) noexcept nogil:
    cdef const vector[TensorSpec]* specs = shadow.version.outputs
    cdef Mirror* mirror = request.mirror.get()
    cdef const TensorView* answered
    cdef Compared one
    cdef Disagreement found
    cdef bint agrees = mirror.outputs.size() == said.size()
    cdef size_t index, spec
    if not agrees:
        found.excess, found.shapes_differ = INFINITY, True
    for index in range(said.size()):
        answered = named(mirror.outputs, said[index].name)
        if answered == NULL:
            agrees = False
            continue
        one = compared(answered[0], said[index], shadow.settings.tolerance)
        for spec in range(specs.size()):
            if said[index].name == string_view(specs[0][spec].name.data(), specs[0][spec].name.size()):
                count_compared(&shadow.outputs[spec], one)
        agrees = agrees and one.agrees
        if not one.agrees and (found.output.empty() or one.excess > found.excess):
            found.output.assign(said[index].name.data(), said[index].name.size())
            found.excess, found.max_abs, found.max_rel, found.cosine = one.excess, one.max_abs, one.max_rel, one.cosine
            found.shapes_differ = found.shapes_differ or one.shapes_differ
    add(shadow.compared, 1)
    if agrees:
        add(shadow.agreeing, 1)
    else:
        keep_worst(shadow, request, said, found)


cdef void count_error(Shadow* shadow, const Status& status) noexcept nogil:
    add(shadow.errors, 1)
    shadow.lock()
    shadow.last_error.assign(status.message.data(), min(status.message.size(), <size_t> 500))
    shadow.unlock()


# Python changes the shadows of versions, with the GIL held.
cdef void end_shadows(Version version, uint64_t wanted):
    cdef vector[SharedShadow] kept
    cdef size_t index
    cdef Shadow* shadow
    for index in range(version.native.shadows.size()):
        shadow = version.native.shadows[index].get()
        if shadow.epoch != wanted and shadow.active.load():
            shadow.end()
        if shadow.references.load() or index + 1 == version.native.shadows.size():
            kept.push_back(version.native.shadows[index])
    version.native.shadows.swap(kept)


cdef Shadow* shadow_in_force(Version version, uint64_t epoch, dict settings):
    cdef Shadow* shadow
    if version.native.shadows.size():
        shadow = version.native.shadows.back().get()
        if shadow.epoch == epoch and shadow.active.load():
            shadow.paired.store(<bint> settings["paired"])
            return shadow
    shadow = new Shadow(version.native.outputs.size())
    shadow.version, shadow.epoch = version.native, epoch
    shadow.settings.max_pending_bytes, shadow.settings.max_cpu = settings["max_pending_bytes"], settings["max_cpu"]
    shadow.settings.tolerance.rtol, shadow.settings.tolerance.atol = settings["rtol"], settings["atol"]
    shadow.settings.tolerance.by_argmax, shadow.settings.keep = settings["by_argmax"], settings["keep"]
    shadow.settings.redact = settings["redact"]
    shadow.paired.store(<bint> settings["paired"])
    version.native.shadows.push_back(SharedShadow(shadow))
    return shadow


# For Python.
cdef str text(string given):
    cdef bytes raw = given
    return raw.decode(errors="replace")


cdef SharedShadow last_of(Version version):
    if version.native.shadows.size():
        return version.native.shadows.back()
    return SharedShadow()


def stats_of(Version version) -> dict | None:
    """What was found of it as a candidate since it became one; None: it never was since it was loaded. Nothing is stopped to tell."""
    cdef SharedShadow held = last_of(version)
    cdef Shadow* shadow = held.get()
    cdef size_t index
    cdef string error
    if shadow == NULL:
        return None
    with nogil:
        shadow.lock()
        error = shadow.last_error
        shadow.unlock()
    outputs = {}
    for index in range(shadow.outputs.size()):
        outputs[text(version.native.outputs[0][index].name)] = told_figures(&shadow.outputs[index])
    return {
        "epoch": shadow.epoch, "active": shadow.active.load(), "mirrored": shadow.mirrored.load(), "compared": shadow.compared.load(),
        "agreeing": shadow.agreeing.load(), "errors": shadow.errors.load(), "shed": shadow.shed.load(), "expired": shadow.expired.load(),
        "dropped": shadow.dropped.load(), "pending": shadow.pending.load(), "pending_bytes": shadow.pending_bytes.load(),
        "batches": shadow.batches.load(), "rows": shadow.rows.load(), "cpu_ns": shadow.cpu_ns.load(),
        "log_latency_ratio": told_moments(&shadow.log_ratio), "last_error": text(error), "outputs": outputs,
    }


cdef list told_tensors(const vector[NamedTensor]& tensors, bint whole):
    cdef size_t index
    cdef int axis
    told = []
    for index in range(tensors.size()):
        shape = []
        for axis in range(tensors[index].shape.rank):
            shape.append(tensors[index].shape.dims[axis])
        told.append((text(tensors[index].name), datatype_name(tensors[index].dtype).decode(), shape,
                     <bytes> tensors[index].bytes if whole else None))
    return told


def worst_of(Version version) -> list:
    """The answers furthest apart, the worst first: scores, and (name, datatype, shape, raw bytes or None) of inputs and both answers."""
    cdef SharedShadow held = last_of(version)
    cdef Shadow* shadow = held.get()
    cdef vector[Disagreement] worst
    cdef size_t index
    if shadow == NULL:
        return []
    with nogil:
        shadow.lock()
        worst = shadow.worst
        shadow.unlock()
    told = []
    for index in range(worst.size()):
        told.append({
            "id": text(worst[index].id), "output": text(worst[index].output), "unix_ms": worst[index].unix_ms,
            "excess": worst[index].excess if isfinite(worst[index].excess) else None,
            "max_abs": worst[index].max_abs, "max_rel": worst[index].max_rel, "cosine": worst[index].cosine,
            "shapes_differ": worst[index].shapes_differ, "inputs": told_tensors(worst[index].inputs, worst[index].whole),
            "answered": told_tensors(worst[index].answered, worst[index].whole),
            "candidate": told_tensors(worst[index].candidate, worst[index].whole),
        })
    return told
