# A request on its way through the server.
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libcpp.atomic cimport atomic
from libcpp cimport bool as cpp_bool
from libcpp.deque cimport deque
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.utility cimport pair
from libcpp.vector cimport vector

from batchmill.core.notes cimport Coding, HeaderNotes, StageTimes
from batchmill.core.status cimport Status
from batchmill.core.tensor cimport Buffer, TensorView

cdef extern from "message.hpp" namespace "batchmill" nogil:
    int kMostShadows "batchmill::Mirror::kShadows"

    enum class Encoding(uint8_t):
        kProto, kJson

    enum class Errand(uint8_t):
        kNone, kDecode, kCompress

    cdef cppclass RequestedOutput:
        string_view name
        int8_t binary               # REST binary_data; -1: the request's default
        int64_t classification      # top N as BYTES; 0: the tensor itself

    cdef cppclass Remark:
        const char* parameter
        const char* header
        string_view value           # printable ASCII without quotes and backslashes

    int kRemarksMost
    size_t kTokenChars

    cdef cppclass NativeVersion "batchmill::Version":
        pass

    cdef cppclass NativeShadow "batchmill::Shadow":
        pass

    cdef cppclass Mirror:
        NativeShadow** shadows
        int count, at
        cpp_bool kept
        vector[TensorView] outputs
        Buffer bytes
        NativeVersion* answered_by
        int64_t held_bytes, since_ns

    cdef cppclass ReplyTo:
        void* stream
        void* connection
        void* socket
        int32_t io_thread

    cdef cppclass InferRequest:
        Encoding encoding
        string_view model_name, model_version, label, id, route_key
        vector[TensorView] inputs
        vector[RequestedOutput] outputs
        vector[string_view] parameters
        vector[pair[string_view, string_view]] texts_given
        cpp_bool typed_contents, binary_output, raw_binary, stream_reply, done
        Errand errand
        Coding coding, answer_coding
        uint64_t priority
        int64_t timeout_us
        Buffer body, arena
        deque[string] texts
        string path_model, path_version, path_label
        const HeaderNotes* notes
        int64_t max_response_bytes
        NativeVersion* version
        cpp_bool routed
        uint32_t generation
        int32_t fallbacks_tried
        string fallback
        int64_t rows, length, bucket
        int64_t answer_by_ns, deadline_ns, objective_ns, behind_ns, predicted_wait_ns
        atomic[cpp_bool] cancelled
        InferRequest* next
        InferRequest* whole
        InferRequest* parts
        InferRequest* next_part
        atomic[int64_t] parts_left, parts_bytes
        atomic[cpp_bool] broken
        bint is_cancelled()
        Status status
        Buffer response
        size_t response_start
        int64_t json_size
        StageTimes times
        Remark* remarks             # kRemarksMost of them; only the first remark_count are set
        int32_t remark_count
        char* token                 # kTokenChars
        ReplyTo reply_to
        int64_t charged_bytes
        unique_ptr[Mirror] mirror
        bint is_mirrored()
        void mirror_to(NativeShadow* shadow)
        void forget_run()
        void remark(const char* parameter, const char* header, string_view value)
        void take_notes(const HeaderNotes& headers)
        void drop_parts()
        void forget_parts()
        void reset()
        void fetch()
        void fetch_held()
