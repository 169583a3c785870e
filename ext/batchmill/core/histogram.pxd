# Latency histograms and counters, one writer each (histogram.hpp), and their merged snapshots.
from libc.stdint cimport int64_t, uint64_t

cdef extern from "histogram.hpp" namespace "batchmill" nogil:
    cdef cppclass Counter:
        uint64_t load()

    void add(Counter& counter, uint64_t by)
    int kCodes

    cdef cppclass Histogram:
        Counter* counts
        Counter sum_ns
        void record(int64_t ns)

    int BUCKETS "batchmill::Histogram::kBuckets"
    int bucket_of "batchmill::Histogram::bucket_of"(int64_t ns)
    int64_t upper_bound_ns "batchmill::Histogram::upper_bound_ns"(int bucket)

    cdef cppclass VersionStats:
        Histogram total, queue, compute
        Counter* outcome
        Counter rows, batches, batch_failures, queue_ns, compute_ns

cdef dict merged(const Histogram** parts, int count)    # {"count", "sum_ns", "bounds_ns", "counts"}: at most 20 bounds
