# ONNX Runtime's C library, once it is open: how sessions are set up, and errors in our words.
from libc.stdint cimport int32_t, int64_t, uint32_t
from libcpp cimport bool as cpp_bool
from libcpp.deque cimport deque
from libcpp.string cimport string
from libcpp.vector cimport vector

from batchmill.core.ort_api cimport Api, OrtAllocator, OrtEnv, OrtMemoryInfo, OrtSessionOptions, OrtStatus
from batchmill.core.status cimport Code, Status

cdef extern from "ort.hpp" namespace "batchmill" nogil:
    cdef cppclass Runtime:
        Api api
        OrtEnv* env                 # lives as long as the process
        int32_t wide_threads        # of the shared wide pool, with the caller's; 1: there is none
        OrtMemoryInfo* cpu_memory
        OrtAllocator* allocator     # null: not open

    cdef cppclass LoadOptions:
        int32_t intra_op_threads    # 1: on the caller's thread, no pool; 0: on the shared wide pool
        cpp_bool memory_pattern     # false: the runtime would keep one plan a combination of input shapes, for ever
        vector[string] providers    # first choice first; empty: the CPU

    cdef cppclass RuntimeLog:
        void add(const char* message)
        deque[string] take(int64_t* were_dropped)

cdef const Runtime* runtime() noexcept nogil    # always the same address

# Sequential, all graph optimisations, no spinning threads, errors only to the log. Null: done; the caller releases an error.
cdef OrtStatus* configure(OrtSessionOptions* target, const LoadOptions& options) noexcept nogil

# Both release the error. refuse: true when there was none; what: the words before the runtime's own.
cdef bint refuse(OrtStatus* error, Status* status, Code code, const char* reason, const char* what) noexcept nogil
cdef void refuse_run(OrtStatus* error, Status* status) noexcept nogil
