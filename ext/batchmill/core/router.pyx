"""Picks the version a request asks for: an exact version, a label, otherwise the model's standard version."""

from libc.string cimport memcpy

from batchmill.core.breaker cimport BreakerTerms, state_name
from batchmill.core.clock cimport now_ns
from batchmill.core.histogram cimport answered, kPreferredSizes, routed, snapshot, statistics
from batchmill.core.ort cimport Model
from batchmill.core.padding cimport Padding
from batchmill.core.predictor cimport Curve, kKnots, kWidths, recall
from batchmill.core.status cimport append_echo, kInvalidArgument, kNotFound, kUnavailable

cdef extern from * nogil:
    """
    #include "router.hpp"
    #include "ort.hpp"
    """


cdef bint is_complete(const RouteTable* table) noexcept nogil:
    return table != NULL and table.complete


cdef bint not_found(const RouteTable* table, InferRequest* request, const ModelRoute* route, const char* what,
                    string_view which) noexcept nogil:
    """route: the model's, which is named before what it lacks; NULL: what is not there is the model."""
    cdef string text
    if not is_complete(table):
        request.status.set(kUnavailable, b"NOT_READY", string(b"the server is still loading its models"))
        return False
    if route != NULL:
        text.append(b"model \"").append(route.name).append(b"\" ")
    text.append(what)
    append_echo(text, which)
    text.append(b"\"")
    request.status.set(kNotFound, b"NOT_FOUND", text)
    return False


cdef ModelVersion* named(const vector[pair[string, VersionPointer]]& list, string_view name) noexcept nogil:
    cdef size_t index
    for index in range(list.size()):
        if string_view(list[index].first.data(), list[index].first.size()) == name:
            return list[index].second
    return NULL


cdef bint is_number(string_view text) noexcept nogil:
    cdef size_t index
    for index in range(text.size()):
        if text.data()[index] < 48 or text.data()[index] > 57:
            return False
    return True


cdef bint bad_version(InferRequest* request) noexcept nogil:
    """Triton's words, which its examples look for."""
    cdef string text = string(b"failed to get model version from specified version string '")
    append_echo(text, request.model_version)
    text.append(b"'")
    request.status.set(kInvalidArgument, b"INVALID_REQUEST", text)
    return False


cdef ModelVersion* labelled_version(const RouteTable* table, const ModelRoute* route, InferRequest* request) noexcept nogil:
    """NULL: request.status says why there is none."""
    cdef const RouteLabel* label
    cdef string text
    cdef size_t index
    for index in range(route.labels.size()):
        label = &route.labels[index]
        if string_view(label.name.data(), label.name.size()) != request.label:
            continue
        if label.version == NULL:
            text = string(b"label \"").append(label.name).append(b"\" of model \"").append(route.name).append(b"\" names version ")
            request.status.set(kUnavailable, b"NOT_READY", text.append(label.number).append(b", which is not ready"))
        return label.version
    not_found(table, request, route, b"has no label \"", request.label)
    return NULL


cdef ModelVersion* routed_version(const ModelRoute* route, InferRequest* request) noexcept nogil:
    """Of a request that names no version. NULL: request.status says why there is none."""
    cdef const RouteRule* rule = route.fitting_rule(request)
    cdef ModelVersion* version
    cdef string text
    request.routed = True
    if rule != NULL:
        version = rule.version
        if version == NULL:
            text = string(b"a rule of model \"").append(route.name).append(b"\" wants version ")
            text.append(rule.number).append(b", which is not ready")
    elif route.shares.size():
        version = route.share_of(request.route_key if request.route_key.size() else request.id)
    else:
        version = route.standard
    if version == NULL:
        if text.empty():
            text = string(b"no version of model \"").append(route.name).append(b"\" is ready: the repository index says why")
        request.status.set(kUnavailable, b"NOT_READY", text)
    return version


cdef bint pick(const RouteTable* table, InferRequest* request) noexcept nogil:
    cdef const ModelRoute* route = table.find(request.model_name) if table != NULL else NULL
    cdef ModelVersion* version
    cdef string_view name = request.model_name
    cdef size_t at
    if route == NULL:
        at = name.rfind(64)  # model@label
        if at != <size_t> -1 and table != NULL and not request.label.size():
            request.label = name.substr(at + 1)
            route = table.find(name.substr(0, at))
        if route == NULL:
            return not_found(table, request, NULL, b"Request for unknown model \"", name)
    if request.model_version.size():
        version = named(route.versions, request.model_version)
        if version == NULL:
            if not is_number(request.model_version):
                return bad_version(request)
            return not_found(table, request, route, b"has no version \"", request.model_version)
    elif request.label.size():
        version = labelled_version(table, route, request)
        if version == NULL:
            return False
    else:
        version = routed_version(route, request)
        if version == NULL:
            return False
    version.leases.fetch_add(1)
    request.generation = route.generation
    request.version = <NativeVersion*> version
    if request.routed and route.shadows.size():
        route.draw_shadows(request)
    return True


cdef int ready(const RouteTable* table, string_view model, string_view version) noexcept nogil:
    cdef const ModelRoute* route = table.find(model) if table != NULL else NULL
    cdef int unknown = -1 if is_complete(table) else 0
    if route == NULL:
        return unknown
    if version.size():
        return 1 if named(route.versions, version) != NULL else unknown
    return 1 if route.standard != NULL else 0


cdef bint all_ranked(const vector[TensorSpec]* specs) noexcept nogil:
    cdef size_t index
    for index in range(specs.size()):
        if not specs[0][index].ranked:
            return False
    return True


cdef Padding* new_padding(given) except NULL:
    cdef Padding* made = new Padding()
    cdef size_t index
    inputs, made.output_axes, made.edges = given
    made.inputs.resize(len(inputs))
    for index, (axis, element) in enumerate(inputs):
        made.inputs[index].axis = axis
        memcpy(made.inputs[index].value, <const char*> <bytes> element, min(8, len(element)))
    return made


cdef class Version:
    """One version of one model while it serves; the data plane holds leases on it, Python keeps it alive.

    batched: axis 0 of all inputs and outputs is the batch. fast_ok: its other axes are static, so its run time can be known.
    padding: of a batched version: (axis and raw element for each input, axis for each output, edges), as padding.hpp has them.
    """

    def __cinit__(self, str name, str version, Model model, *, bint batched, bint fast_ok, padding=None):
        self.native = new ModelVersion()
        self.model = model
        self.native.name = name.encode()
        self.native.version = version.encode()
        self.native.number = int(version)
        self.native.model = <OrtModel*> model.model
        self.native.inputs = &model.model.inputs
        self.native.outputs = &model.model.outputs
        self.native.batched = batched
        self.native.fast_ok = fast_ok and all_ranked(&model.model.inputs)
        self.native.max_batch_size.store(64 if batched else 1)
        if padding is not None:
            self.native.padding.reset(new_padding(padding))

    def __dealloc__(self):
        del self.native

    def tune(self, *, int64_t max_batch_size, preferred_batch_sizes, int64_t max_queue_delay_us, int32_t instances, str run_on,
             double weight, int64_t run_timeout_ms, int64_t max_queue_rows, int64_t max_wait_ms, int64_t default_timeout_us,
             str timeout_action, int32_t priority_levels, int32_t default_priority_level, double latency_ms,
             double target, feedback, double breaker_failures, double breaker_window_s, int64_t breaker_min_requests,
             double breaker_open_s, bint breaker_invalid) -> None:
        """Also while it serves: what is about runs counts from the next batch on, what is about the queue from the next request on.

        preferred_batch_sizes: ascending, 8 at most. priority_levels: 0: priorities do not count; else 1 is the highest.
        breaker_failures: the share of failures from which requests are kept from it; 0: none are. breaker_invalid: runs count that fail
        for the values they were given.
        feedback: whether answers carry a token; or the name of the output whose prediction goes with it; else the first that has one.
        """
        cdef int at
        cdef BreakerTerms terms
        self.native.max_batch_size.store(max_batch_size if self.native.batched else 1)
        for at in range(kPreferredSizes):
            self.native.preferred[at].store(preferred_batch_sizes[at] if at < len(preferred_batch_sizes) else 0)
        self.native.max_queue_delay_ns.store(max_queue_delay_us * 1000)
        self.native.instances.store(instances)
        self.native.place.store({"auto": Place.kAuto, "executor": Place.kExecutor, "io": Place.kIoThread}[run_on])
        self.native.weight.store(weight)
        self.native.run_timeout_ns.store(run_timeout_ms * 1000000)
        self.native.queue.max_rows.store(max_queue_rows)
        self.native.max_wait_ns.store(max_wait_ms * 1000000)
        self.native.default_timeout_ns.store(default_timeout_us * 1000)
        self.native.queue.delays.store(timeout_action == "delay")
        self.native.queue.default_priority.store(default_priority_level)
        self.native.queue.priority_levels.store(priority_levels)
        self.native.objective_ns.store(<int64_t> (latency_ms * 1000000))
        self.native.target.store(target)
        terms.failures, terms.min_requests, terms.invalid = breaker_failures, breaker_min_requests, breaker_invalid
        terms.window_ns, terms.open_ns = <int64_t> (breaker_window_s * 1e9), <int64_t> (breaker_open_s * 1e9)
        self.native.breaker.set(terms)
        self.native.feedback.store(self.place_of(feedback) if isinstance(feedback, str) else kAnyOutput if feedback else kNoFeedback)

    cdef int32_t place_of(self, str output):
        cdef size_t index
        for index in range(self.native.outputs.size()):
            if self.native.outputs[0][index].name == output.encode():
                return <int32_t> index
        return kNoOutput

    @property
    def name(self) -> str:
        return self.native.name.decode()

    @property
    def version(self) -> str:
        return self.native.version.decode()

    @property
    def leases(self) -> int:
        """Requests that hold this version now."""
        return self.native.leases.load()

    @property
    def breaker(self) -> str:
        """closed, half_open or open; empty: it has none."""
        return state_name(self.native.breaker.state.load()).decode() if self.native.breaker.on.load() else ""

    @property
    def breaker_opened(self) -> int:
        """How often it has opened."""
        return self.native.breaker.opened.load()

    @property
    def fallbacks(self) -> int:
        """Requests that were given to another in its place."""
        return self.native.fallbacks.load()

    @property
    def queue_rows(self) -> int:
        """Rows that wait now."""
        return self.native.queue.rows.load()

    @property
    def oldest_wait_ns(self) -> int:
        """For how long the first of them has waited; 0: none does."""
        cdef int64_t since = self.native.queue.oldest_ns.load()
        return max(0, now_ns() - since) if since else 0

    def learned(self) -> list:
        """(width of a row, run times at 1, 2, 4 ... rows in ns, 0: not known, mean deviation as a share) for each width that is known.

        A width is what predictor.width_of() makes of a row's shapes; 0: all rows are equally wide.
        """
        cdef Curve* curve
        cdef int width, at
        found = []
        for width in range(kWidths):
            curve = self.native.times.curves[width].load()
            if curve != NULL and curve.learned.load():
                found.append((width, [curve.knots[at].load() for at in range(kKnots)], curve.spread.load()))
        return found

    def recall(self, curves) -> None:
        """Begins with what learned() told elsewhere: before it serves. ValueError when it cannot have been told so."""
        cdef int width
        cdef double spread, run_ns
        cdef vector[double] knots
        for width, told, spread in curves:
            knots = told
            fine = 0 <= width < kWidths and 0 < knots.size() <= <size_t> kKnots and 0 <= spread < 1000
            for run_ns in knots:
                fine = fine and (run_ns == 0 or 1 <= run_ns < 1e16)
            if not fine or max(told) == 0:
                raise ValueError(f"no run times: width {width}, {told}, spread {spread}")
            recall(self.native.times.made(width), knots, spread)

    def stats(self) -> dict:
        """Counts and histograms since the version was made, merged over the threads."""
        return statistics(self.native.stats, kMaxThreads)

    @property
    def answered(self) -> int:
        """Requests answered since the version was made, well or not."""
        return answered(self.native.stats, kMaxThreads)

    @property
    def routed(self) -> int:
        """Requests that named no version and were given to this one, since it was made."""
        return routed(self.native.stats, kMaxThreads)

    @property
    def answered_ns(self) -> int:
        """When the last of them was; monotonic. 0: none was."""
        cdef VersionStats* part
        cdef int thread
        cdef int64_t last = 0
        for thread in range(kMaxThreads):
            part = self.native.stats[thread].load()
            if part != NULL:
                last = max(last, <int64_t> part.last_ns.load())
        return last

    def snapshot(self) -> bytes:
        """All counts since the version was made, packed: histogram.difference() tells what happened between two of them."""
        return snapshot(self.native.stats, kMaxThreads)
