# The versions that serve, and the immutable table that says who gets a request.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.atomic cimport atomic
from libcpp.memory cimport shared_ptr, unique_ptr
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from batchmill.core.breaker cimport Breaker
from batchmill.core.comparison cimport Disagreement, OutputFigures, RunningMoments, Tolerance
from batchmill.core.histogram cimport Counter, VersionStats
from batchmill.core.message cimport InferRequest, NativeVersion
from batchmill.core.notes cimport WatchedHeaders
from batchmill.core.ort_api cimport OrtRunOptions
from batchmill.core.padding cimport Padding
from batchmill.core.predictor cimport RunTimes
from batchmill.core.queue cimport RequestQueue
from batchmill.core.tensor cimport DataType, Shape, TensorSpec
from batchmill.core.threads cimport pthread_t

cdef extern from "shadow.hpp" namespace "batchmill" nogil:
    cdef cppclass ShadowSettings:
        int64_t max_pending_bytes, keep
        double max_cpu
        Tolerance tolerance
        cpp_bool redact

    cdef cppclass Shadow:
        ModelVersion* version
        uint64_t epoch
        ShadowSettings settings
        atomic[cpp_bool] active, paired
        atomic[int64_t] references, pending_bytes, pending
        atomic[uint64_t] mirrored, shed, dropped
        Counter compared, agreeing, errors, expired, batches, rows, cpu_ns
        RunningMoments log_ratio
        uint64_t measured
        vector[OutputFigures] outputs
        int64_t allowed_ns
        vector[Disagreement] worst
        string last_error
        Shadow(size_t output_count)
        void lock()
        void unlock()
        void let_go()
        void end()

    cdef cppclass RequestStack:
        void push(InferRequest* request)
        InferRequest* take()

    int64_t kMostPending "batchmill::ShadowLine::kMostPending"

    cdef cppclass ShadowLine:
        RequestStack inbox
        vector[RequestStack*] homes
        atomic[cpp_bool] active, stopping, dozing
        atomic[int64_t] pressed_until_ns
        atomic[cpp_bool]* draining
        const atomic[int32_t]* due
        int wake_fd
        atomic[cpp_bool] started
        pthread_t thread
        OrtRunOptions* options
        int64_t run_ends_cpu_ns
        cpp_bool passed
        bint try_lock_run()
        void lock_run()
        void unlock_run()
        int64_t cpu_ns()
        void send(InferRequest* request)
        void send_home(InferRequest* request)

cdef extern from "router.hpp" namespace "batchmill" nogil:
    int kMaxThreads

    int32_t kNoFeedback, kNoOutput, kAnyOutput

    enum class Place(int32_t):
        kAuto, kExecutor, kIoThread

    cdef cppclass OrtModel:
        pass

    cdef cppclass InlineRuns:
        atomic[int64_t] again_ns
        atomic[int64_t] watched_until_ns
        atomic[int64_t] tried_ns

    cdef cppclass Culprits:
        atomic[double] share, cost
        atomic[int64_t] small_rows, small_until_ns, most_rows
        bint any()

    cdef cppclass ModelVersion "batchmill::Version":
        string name, version
        uint64_t number
        OrtModel* model
        const vector[TensorSpec]* inputs
        const vector[TensorSpec]* outputs
        cpp_bool batched, fast_ok, due
        unique_ptr[Padding] padding
        atomic[int64_t] max_batch_size, max_queue_delay_ns, default_timeout_ns, run_timeout_ns
        atomic[int32_t] instances
        atomic[int32_t]* preferred
        atomic[int64_t] max_wait_ns, objective_ns
        atomic[double] target, weight
        atomic[Place] place
        atomic[int32_t] feedback
        int32_t running
        double served_ns
        int last_width
        RequestQueue queue
        Breaker breaker
        atomic[int64_t] fallbacks
        atomic[int64_t] leases
        RunTimes times
        atomic[double] waited_ns, predicted_ns, slack_share
        atomic[int64_t] busy_until_ns
        InlineRuns inline_runs
        Culprits culprits
        atomic[cpp_bool] shrinks
        atomic[VersionStats*]* stats
        int64_t expected_rows, last_ended_ns
        int first_axis()
        double drift()
        vector[shared_ptr[Shadow]] shadows
        cpp_bool is_shadowing()
        VersionStats* stats_of(int thread)

    ctypedef ModelVersion* VersionPointer   # Cython takes no '*' inside a nested template

    uint32_t kSlots

    cdef cppclass RouteRule:
        uint64_t header
        string name, value, number
        ModelVersion* version

    cdef cppclass RouteLabel:
        string name, number
        ModelVersion* version

    cdef cppclass RouteShare:
        uint32_t end
        ModelVersion* version

    cdef cppclass RouteShadow:
        uint32_t share
        Shadow* shadow
    uint32_t kOnError, kOnInvalid, kOnUnavailable

    cdef cppclass ConstantOutput:
        string name, raw
        DataType dtype
        Shape shape

    cdef cppclass FallbackStep:
        uint32_t on
        vector[ConstantOutput] constant
        ModelVersion* version
        string model, told

    cdef cppclass ModelRoute:
        string name
        vector[pair[string, VersionPointer]] versions
        vector[RouteLabel] labels
        ModelVersion* standard
        vector[RouteRule] rules
        vector[RouteShare] shares
        vector[RouteShadow] shadows
        vector[FallbackStep] fallbacks
        uint32_t generation
        void set_seed()
        const RouteRule* fitting_rule(const InferRequest* request)
        ModelVersion* share_of(string_view key)
        void draw_shadows(InferRequest* request)

    uint64_t drawn "batchmill::ModelRoute::drawn"()

    cdef cppclass RouteTable:
        vector[unique_ptr[ModelRoute]] routes
        WatchedHeaders watched
        cpp_bool complete
        void insert(ModelRoute* route)
        const ModelRoute* find(string_view name)

# Picks the version a request asks for and takes a lease on it. False: request.status says why not.
cdef bint pick(const RouteTable* table, InferRequest* request) noexcept nogil

# 1: serves; 0: known, nothing serves yet; -1: unknown.
cdef int ready(const RouteTable* table, string_view model, string_view version) noexcept nogil

from batchmill.core.ort cimport Model

# (axis and raw element for each input, axis for each output, edges), as padding.hpp has them.
cdef Padding* new_padding(given) except NULL


cdef class Version:
    cdef ModelVersion* native       # owned
    cdef Model model                # kept alive for native.model
    cdef int32_t place_of(self, str output)
