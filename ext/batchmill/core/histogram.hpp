// Log-linear latency histograms and counters: one writer each, so a record is a load, an add and a store; readers merge.
// Source of the layout: HdrHistogram (16 steps an octave: at most 1/16 wide, so a mid-point is within 3.2%).
#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>

#include "relaxed.hpp"

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

constexpr int kCodes = 17;    // gRPC status codes 0..16
constexpr int kReasons = 24;  // different reasons of refusals that are told apart

// Why a batch was closed: it was as large as is worth while; nobody else waited; nobody came back in time; the most urgent had no
// time for more; the queue delay had passed; only other shapes waited; other models wait for their turn; no more will come.
enum class CloseReason { kFull, kIdle, kLinger, kDeadline, kDelay, kShape, kTurn, kDrain };
constexpr int kCloseReasons = 8;
constexpr int kPreferredSizes = 8;  // that a version may have

// Batches closed for one reason. wait_ns: of the request that had waited longest in each, summed.
struct CloseCounts {
    Counter batches{0}, rows{0}, wait_ns{0};
};

// Batches of one size; times in ns, summed over the batches.
struct BatchCounts {
    Counter batches{0}, assembly_ns{0}, compute_ns{0}, encode_ns{0};
};

// Batches by their rows, with memory for the sizes that come: a part for each power of two, made with the first batch in it.
struct BatchSizes {
    static constexpr int64_t kCountedRows = 1024;  // batches of more rows count as this many
    static constexpr int kParts = 11;

    std::atomic<BatchCounts*> parts[kParts] = {};  // [s]: 2^s .. 2^(s+1)-1 rows

    ~BatchSizes() {
        for (auto& part : parts) delete[] part.load();
    }
    static int part_of(int64_t rows) { return 63 - __builtin_clzll(static_cast<uint64_t>(rows)); }
    BatchCounts& made(int64_t rows) {
        rows = rows < 1 ? 1 : rows > kCountedRows ? kCountedRows : rows;
        int at = part_of(rows);
        BatchCounts* part = parts[at].load(std::memory_order_relaxed);
        if (!part) parts[at].store(part = new BatchCounts[at == kParts - 1 ? 1 : int64_t{1} << at], std::memory_order_release);
        return part[rows - (int64_t{1} << at)];
    }
    // Null: there was none in its part. rows: 1..kCountedRows.
    BatchCounts* find(int64_t rows) const {
        int at = part_of(rows);
        BatchCounts* part = parts[at].load(std::memory_order_acquire);
        return part ? part + (rows - (int64_t{1} << at)) : nullptr;
    }
};

struct ReasonCount {
    std::atomic<const char*> reason{nullptr};  // a static string
    Counter count{0};
};

// What one thread has seen of one version.
struct VersionStats {
    Histogram decode, queue, total[2];      // a request: read and checked; queued..started; received..answered, by Encoding
    Histogram assembly, compute, encode;    // a batch: rows gathered; the run; answers written
    Counter outcome[kCodes] = {};           // requests by status code; [0] is success
    ReasonCount reasons[kReasons];          // requests that were not answered well
    Counter bytes_in{0}, bytes_out{0};      // bodies of requests and answers
    Counter rows{0}, batch_failures{0};
    Counter padding_bytes{0};               // that rows were filled up with to share runs
    // Summed over requests, each of which counts its batch's whole time, as the statistics extension wants it.
    Counter failed_ns{0}, queue_ns{0}, assembly_ns{0}, compute_ns{0}, encode_ns{0};  // queue_ns: of those answered well
    Relaxed<uint64_t> last_ns{0};                   // when the last request was answered; monotonic
    BatchSizes sizes;
    CloseCounts closed[kCloseReasons];
    Counter inline_batches{0};              // run on an I/O thread
    Counter routed{0};                      // requests that the model's route gave to this version

    void count_reason(const char* reason) {
        for (ReasonCount& one : reasons) {
            const char* known = one.reason.load(std::memory_order_relaxed);
            if (!known) one.reason.store(known = reason, std::memory_order_release);
            if (!std::strcmp(known, reason)) return add(one.count, 1);
        }
    }
    void count_close(CloseReason reason, int64_t batch_rows, int64_t wait_ns) {
        CloseCounts& counts = closed[static_cast<int>(reason)];
        add(counts.batches, 1);
        add(counts.rows, static_cast<uint64_t>(batch_rows));
        add(counts.wait_ns, static_cast<uint64_t>(wait_ns > 0 ? wait_ns : 0));
    }
    void count_batch(int64_t batch_rows, int64_t requests, int64_t assembly, int64_t run, int64_t encoding) {
        this->assembly.record(assembly);
        compute.record(run);
        encode.record(encoding);
        add(rows, static_cast<uint64_t>(batch_rows));
        add(assembly_ns, static_cast<uint64_t>(assembly * requests));
        add(compute_ns, static_cast<uint64_t>(run * requests));
        add(encode_ns, static_cast<uint64_t>(encoding * requests));
        BatchCounts& counts = sizes.made(batch_rows);
        add(counts.batches, 1);
        add(counts.assembly_ns, static_cast<uint64_t>(assembly));
        add(counts.compute_ns, static_cast<uint64_t>(run));
        add(counts.encode_ns, static_cast<uint64_t>(encoding));
    }
};

}  // namespace batchmill
