// What a scrape tells of a version: its threads' counters and histograms, merged into the few buckets of Prometheus.
#pragma once
#include <charconv>
#include <utility>
#include <vector>

#include "router.hpp"

namespace batchmill {

// Upper bounds, ns: 16 us .. 17 s by powers of two, coarser at the end. Each is the edge of a fine bucket, so merging only sums.
constexpr int kBounds = 19;
constexpr int kBoundBits[kBounds] = {14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 32, 34};
constexpr int kSizeBounds = 11;  // rows of a batch: 1, 2, 4 .. 1024
constexpr int kStages = 7;       // decode, queue, assembly, compute, encode, total by Encoding

struct MergedHistogram {
    uint64_t counts[kBounds + 1] = {};  // the last: what is longer
    uint64_t sum = 0, count = 0;

    void add(const Histogram& fine) {
        int coarse = 0;
        uint64_t here = 0;
        for (int bucket = 0; bucket < Histogram::kBuckets; ++bucket) {
            here += fine.counts[bucket].load(std::memory_order_relaxed);
            if (bucket % Histogram::kSteps != Histogram::kSteps - 1) continue;  // inside of an octave
            while (coarse < kBounds && Histogram::upper_bound_ns(bucket) > int64_t{1} << kBoundBits[coarse]) ++coarse;
            counts[coarse] += here;
            count += here;
            here = 0;
        }
        sum += fine.sum_ns.load(std::memory_order_relaxed);
    }
};

struct MergedStats {
    std::string labels;             // model="..",version=".."
    const Version* version = nullptr;
    MergedHistogram stages[kStages];
    uint64_t sizes[kSizeBounds + 1] = {}, batches = 0, counted_rows = 0;  // batches by rows
    uint64_t outcome[kCodes] = {};
    uint64_t bytes_in = 0, bytes_out = 0, rows = 0, batch_failures = 0, queue_ns = 0, assembly_ns = 0, compute_ns = 0, encode_ns = 0;
    uint64_t padding_bytes = 0, inline_batches = 0, closed_batches[kCloseReasons] = {}, closed_rows[kCloseReasons] = {}, closed_wait_ns[kCloseReasons] = {};
    std::vector<std::pair<const char*, uint64_t>> reasons;

    uint64_t requests() const {
        uint64_t all = 0;
        for (uint64_t one : outcome) all += one;
        return all;
    }
    void add(const VersionStats& part) {
        const Histogram* fine[kStages] = {&part.decode, &part.queue, &part.assembly, &part.compute, &part.encode, &part.total[0], &part.total[1]};
        for (int stage = 0; stage < kStages; ++stage) stages[stage].add(*fine[stage]);
        for (int code = 0; code < kCodes; ++code) outcome[code] += part.outcome[code].load();
        bytes_in += part.bytes_in.load();
        bytes_out += part.bytes_out.load();
        rows += part.rows.load();
        batch_failures += part.batch_failures.load();
        padding_bytes += part.padding_bytes.load();
        inline_batches += part.inline_batches.load();
        for (int reason = 0; reason < kCloseReasons; ++reason) {
            closed_batches[reason] += part.closed[reason].batches.load();
            closed_rows[reason] += part.closed[reason].rows.load();
            closed_wait_ns[reason] += part.closed[reason].wait_ns.load();
        }
        queue_ns += part.queue_ns.load();
        assembly_ns += part.assembly_ns.load();
        compute_ns += part.compute_ns.load();
        encode_ns += part.encode_ns.load();
        for (const ReasonCount& one : part.reasons) add_reason(one.reason.load(), one.count.load());
        for (int64_t first = 1, at = 0; at < BatchSizes::kParts; first *= 2, ++at)
            for (int64_t size = first; part.sizes.find(first) && size < 2 * first && size <= BatchSizes::kCountedRows; ++size)
                add_size(size, part.sizes.find(size)->batches.load());
    }

private:
    void add_reason(const char* reason, uint64_t count) {
        if (!reason) return;
        for (auto& known : reasons)
            if (!std::strcmp(known.first, reason)) return void(known.second += count);
        reasons.emplace_back(reason, count);
    }
    void add_size(int64_t size, uint64_t count) {
        int bound = 0;
        while (bound < kSizeBounds && size > int64_t{1} << bound) ++bound;
        sizes[bound] += count;
        batches += count;
        counted_rows += count * static_cast<uint64_t>(size);
    }
};

inline MergedStats merged(const Version& version) {
    MergedStats all;
    all.version = &version;
    for (const auto& slot : version.stats)
        if (const VersionStats* part = slot.load(std::memory_order_acquire)) all.add(*part);
    return all;
}

// Lines of the exposition format 0.0.4.
struct PrometheusText {
    std::string out;

    void family(const char* name, const char* kind, const char* help) {
        out.append("# HELP ").append(name).append(1, ' ').append(help).append("\n# TYPE ").append(name).append(1, ' ').append(kind).append(1, '\n');
    }
    // extra: more labels, with the comma before them.
    void integer(const char* name, const std::string& labels, const char* extra, uint64_t value) {
        begin(name, "", labels, extra);
        number(value);
        out.append(1, '\n');
    }
    void seconds(const char* name, const std::string& labels, const char* extra, uint64_t ns) { in_seconds(name, "", labels, extra, ns); }
    void histogram(const char* name, const std::string& labels, const char* extra, const MergedHistogram& one) {
        static const char* const bounds[] = {
            "1.6384e-05", "3.2768e-05", "6.5536e-05", "0.000131072", "0.000262144", "0.000524288", "0.001048576", "0.002097152", "0.004194304", "0.008388608",
            "0.016777216", "0.033554432", "0.067108864", "0.134217728", "0.268435456", "0.536870912", "1.073741824", "4.294967296", "17.179869184", "+Inf"};
        uint64_t so_far = 0;
        for (int at = 0; at <= kBounds; ++at) bucket(name, labels, extra, bounds[at], so_far += one.counts[at]);
        in_seconds(name, "_sum", labels, extra, one.sum);
        count(name, labels, extra, one.count);
    }
    void batch_rows(const char* name, const MergedStats& one) {
        static const char* const bounds[] = {"1", "2", "4", "8", "16", "32", "64", "128", "256", "512", "1024", "+Inf"};
        uint64_t so_far = 0;
        for (int at = 0; at <= kSizeBounds; ++at) bucket(name, one.labels, "", bounds[at], so_far += one.sizes[at]);
        begin(name, "_sum", one.labels, "");
        number(one.counted_rows);
        out.append(1, '\n');
        count(name, one.labels, "", one.batches);
    }

private:
    void begin(const char* name, const char* suffix, const std::string& labels, const char* extra) {
        out.append(name).append(suffix).append(1, '{').append(labels).append(extra).append("} ");
    }
    void number(uint64_t value) {
        char text[24];
        out.append(text, static_cast<size_t>(std::to_chars(text, text + sizeof text, value).ptr - text));
    }
    void bucket(const char* name, const std::string& labels, const char* extra, const char* bound, uint64_t value) {
        out.append(name).append("_bucket{").append(labels).append(extra).append(",le=\"").append(bound).append("\"} ");
        number(value);
        out.append(1, '\n');
    }
    void count(const char* name, const std::string& labels, const char* extra, uint64_t value) {
        begin(name, "_count", labels, extra);
        number(value);
        out.append(1, '\n');
    }
    void in_seconds(const char* name, const char* suffix, const std::string& labels, const char* extra, uint64_t ns) {
        begin(name, suffix, labels, extra);
        number(ns / 1000000000);
        char digits[10];
        uint64_t rest = ns % 1000000000;
        for (int at = 8; at >= 0; --at, rest /= 10) digits[at] = static_cast<char>('0' + rest % 10);
        out.append(1, '.').append(digits, 9).append(1, '\n');
    }
};

}  // namespace batchmill
