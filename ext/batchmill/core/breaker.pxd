# A circuit breaker: a version whose runs keep failing is spared requests for a while.
from libc.stdint cimport int32_t, int64_t
from libcpp cimport bool as cpp_bool
from libcpp.atomic cimport atomic

cdef extern from "breaker.hpp" namespace "batchmill" nogil:
    enum class Breaking(int32_t):
        kClosed, kHalfOpen, kOpen

    cdef cppclass BreakerTerms:
        double failures
        int64_t window_ns, open_ns, min_requests
        cpp_bool invalid

    cdef cppclass BreakerMind:
        Breaking state
        int64_t opened
        cpp_bool admits(const BreakerTerms& terms, int64_t now)
        void record(const BreakerTerms& terms, int64_t requests, int64_t failures, int64_t now)

    cdef cppclass Breaker:
        atomic[cpp_bool] on
        atomic[Breaking] state
        atomic[int64_t] opened
        void set(const BreakerTerms& given)
        cpp_bool admits(int64_t now)
        void record(int64_t requests, int64_t failures, int64_t invalid, int64_t now)
        int64_t closed_for_ns(int64_t now)

cdef const char* state_name(Breaking state) noexcept nogil
