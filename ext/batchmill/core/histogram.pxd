# Latency histograms and counters, one writer each (histogram.hpp), and their merged snapshots.
from libc.stdint cimport int64_t, uint64_t
from libcpp.atomic cimport atomic

cdef extern from "histogram.hpp" namespace "batchmill" nogil:
    cdef cppclass Counter:
        uint64_t load()
        void store(uint64_t)

    void add(Counter& counter, uint64_t by)
    int kCodes

    cdef cppclass Histogram:
        Counter* counts
        Counter sum_ns
        void record(int64_t ns)

    int BUCKETS "batchmill::Histogram::kBuckets"
    int bucket_of "batchmill::Histogram::bucket_of"(int64_t ns)
    int64_t upper_bound_ns "batchmill::Histogram::upper_bound_ns"(int bucket)

    int kReasons

    int kCloseReasons
    int kPreferredSizes

    enum class CloseReason:
        kFull, kIdle, kLinger, kDeadline, kDelay, kShape, kTurn, kDrain

    cdef cppclass CloseCounts:
        Counter batches, rows, wait_ns

    cdef cppclass BatchCounts:
        Counter batches, assembly_ns, compute_ns, encode_ns

    cdef cppclass BatchSizes:
        BatchCounts* find(int64_t rows)

    int64_t kCountedRows "batchmill::BatchSizes::kCountedRows"

    cdef cppclass ReasonCount:
        atomic[const char*] reason
        Counter count

    cdef cppclass VersionStats:
        Histogram decode, queue, assembly, compute, encode
        Histogram* total            # by Encoding
        Counter* outcome
        ReasonCount* reasons
        Counter bytes_in, bytes_out, rows, batch_failures, padding_bytes, failed_ns, last_ns, queue_ns, assembly_ns, compute_ns, encode_ns
        BatchSizes sizes
        CloseCounts* closed         # by CloseReason
        Counter inline_batches, routed
        void count_close(CloseReason reason, int64_t rows, int64_t wait_ns)
        void count_reason(const char* reason)
        void count_batch(int64_t rows, int64_t requests, int64_t assembly_ns, int64_t compute_ns, int64_t encode_ns)

# What Python sees; slots: one a thread, null where it has seen nothing.
cdef dict statistics(atomic[VersionStats*]* slots, int slot_count)
cdef bytes snapshot(atomic[VersionStats*]* slots, int slot_count)       # for difference()
cdef int64_t routed(atomic[VersionStats*]* slots, int slot_count) noexcept
cdef int64_t answered(atomic[VersionStats*]* slots, int slot_count) noexcept
