// Log-linear latency histograms and counters: one writer each, so a record is a load, an add and a store; readers merge.
// Source of the layout: HdrHistogram (16 steps an octave: at most 1/16 wide, so a mid-point is within 3.2%).
#pragma once
#include <atomic>
#include <cstdint>

namespace batchmill {

using Counter = std::atomic<uint64_t>;

inline void add(Counter& counter, uint64_t by) {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

struct Histogram {
    static constexpr int kSteps = 16;        // an octave
    static constexpr int kFirstOctave = 9;   // 512 ns: everything shorter falls into the first bucket
    static constexpr int kOctaves = 28;      // up to 137 s: everything longer falls into the last
    static constexpr int kBuckets = kSteps * kOctaves;

    Counter counts[kBuckets] = {};
    Counter sum_ns{0};

    static int bucket_of(int64_t ns) {
        if (ns < (int64_t{1} << kFirstOctave)) return 0;
        int octave = 63 - __builtin_clzll(static_cast<uint64_t>(ns));
        if (octave >= kFirstOctave + kOctaves) return kBuckets - 1;
        return (octave - kFirstOctave) * kSteps + static_cast<int>((ns >> (octave - 4)) & (kSteps - 1));
    }
    // The smallest value beyond the bucket.
    static int64_t upper_bound_ns(int bucket) {
        int octave = bucket / kSteps + kFirstOctave;
        return (int64_t{1} << octave) + (int64_t{bucket % kSteps} + 1) * (int64_t{1} << (octave - 4));
    }
    void record(int64_t ns) {
        if (ns < 0) ns = 0;
        add(counts[bucket_of(ns)], 1);
        add(sum_ns, static_cast<uint64_t>(ns));
    }
};

constexpr int kCodes = 17;  // gRPC status codes 0..16

// What one thread has seen of one version.
struct VersionStats {
    Histogram total, queue, compute;  // received..answered; queued..started; the run, once a batch
    Counter outcome[kCodes] = {};     // requests by status code; [0] is success
    Counter rows{0}, batches{0}, batch_failures{0};
    Counter queue_ns{0}, compute_ns{0};  // summed over requests, as the statistics extension wants it
};

}  // namespace batchmill
