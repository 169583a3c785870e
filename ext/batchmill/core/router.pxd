# The versions that serve, and the immutable table that says who gets a request.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.atomic cimport atomic
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from batchmill.core.breaker cimport Breaker
from batchmill.core.histogram cimport VersionStats
from batchmill.core.message cimport InferRequest, NativeVersion
from batchmill.core.padding cimport Padding
from batchmill.core.predictor cimport RunTimes
from batchmill.core.queue cimport RequestQueue
from batchmill.core.tensor cimport DataType, Shape, TensorSpec

cdef extern from "router.hpp" namespace "batchmill" nogil:
    int kMaxThreads

    int32_t kNoFeedback, kNoOutput, kAnyOutput

    enum class Place(int32_t):
        kAuto, kExecutor, kIoThread

    cdef cppclass OrtModel:
        pass

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
        atomic[int64_t] inline_again_ns
        atomic[int32_t] batch_failures
        atomic[int64_t] unbatched_until_ns
        atomic[cpp_bool] shrinks
        atomic[VersionStats*]* stats
        int64_t expected_rows, last_ended_ns
        int first_axis()
        double drift()
        VersionStats* stats_of(int thread)

    ctypedef ModelVersion* VersionPointer   # Cython takes no '*' inside a nested template

    uint32_t kSlots

    cdef cppclass RouteRule:
        cpp_bool of_header
        string name, value, number
        ModelVersion* version

    cdef cppclass RouteShare:
        uint32_t end
        ModelVersion* version

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
        vector[pair[string, VersionPointer]] versions, labels
        ModelVersion* standard
        vector[RouteRule] rules
        vector[RouteShare] shares
        vector[FallbackStep] fallbacks
        uint32_t generation
        void set_seed()
        ModelVersion* share_of(string_view key)

    uint64_t drawn "batchmill::ModelRoute::drawn"()

    cdef cppclass RouteTable:
        vector[unique_ptr[ModelRoute]] routes
        vector[string] watched
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
