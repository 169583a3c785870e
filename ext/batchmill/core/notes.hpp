// What is said of a request beside its tensors: by its headers, and by the clock.
#pragma once
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coding.hpp"

namespace batchmill {

// Whether a header's name, in any case, is this one, in lower case. From its end: names of one length rather begin alike.
inline bool is_header(std::string_view name, std::string_view lower) {
    if (name.size() != lower.size()) return false;
    for (size_t at = name.size(); at-- > 0;) {
        char byte = name[at];
        if ((byte >= 'A' && byte <= 'Z' ? byte | 32 : byte) != lower[at]) return false;
    }
    return true;
}

// The headers that rules of routes ask for. One is known by its key from then on: the table that it was read for may be gone when it is asked for.
struct WatchedHeaders {
    std::vector<std::pair<uint64_t, std::string>> names;  // in lower case
    uint64_t sizes = 0, ends = 0;                         // the bits of each name's size and last byte: most headers need no other look

    static uint64_t key_of(std::string_view lower) { return std::hash<std::string_view>{}(lower) | 1; }
    static uint64_t bit_of(size_t size) { return uint64_t{1} << (size < 63 ? size : 63); }
    static uint64_t end_of(std::string_view name) { return uint64_t{1} << (name.back() & 31); }  // alike in either case
    void add(const std::string& lower) {
        names.emplace_back(key_of(lower), lower);
        sizes |= bit_of(lower.size());
        ends |= end_of(lower);
    }
    // 0: nobody asks for it.
    uint64_t find(std::string_view name) const {
        if (!(sizes & bit_of(name.size())) || name.empty() || !(ends & end_of(name))) return 0;
        for (const auto& [key, lower] : names)
            if (is_header(name, lower)) return key;
        return 0;
    }
};

// The front end keeps it; the requests of a stream share it.
struct HeaderNotes {
    static constexpr size_t kIdMost = 256, kTraceMost = 128;  // bytes; longer ones are not carried
    static constexpr size_t kWatchedMost = 256;               // bytes that a rule may ask for

    std::string route_key, request_id, traceparent;
    std::vector<std::pair<uint64_t, std::string>> watched;    // those of WatchedHeaders that came, by their keys
    bool server_timing = false;                               // the answer tells its stage times
    Coding coding = Coding::kIdentity;                        // of the body, or of the messages that are marked compressed
    AcceptedCodings accepts;

    // The first of a name counts.
    void take_watched(const WatchedHeaders& wanted, std::string_view name, std::string_view value) {
        uint64_t key = wanted.find(name);
        if (key && !watched_value(key)) watched.emplace_back(key, value.substr(0, kWatchedMost + 1));
    }
    // Null: it did not come.
    const std::string* watched_value(uint64_t key) const {
        for (const auto& one : watched)
            if (one.first == key) return &one.second;
        return nullptr;
    }
    void take_id(std::string_view value) {
        if (value.size() <= kIdMost) request_id = value;
    }
    void take_trace(std::string_view value) {
        if (value.size() <= kTraceMost) traceparent = value;
    }
    void take_timing(std::string_view value) { server_timing = value == "1"; }
    // Content-Encoding, or grpc-encoding: one coding, once.
    void take_coding(std::string_view value) { coding = coding == Coding::kIdentity ? coding_of(value) : Coding::kUnknown; }

    void swap(HeaderNotes& other) {
        route_key.swap(other.route_key);
        request_id.swap(other.request_id);
        traceparent.swap(other.traceparent);
        watched.swap(other.watched);
        std::swap(server_timing, other.server_timing);
        std::swap(coding, other.coding);
        std::swap(accepts, other.accepts);
    }
    void reset() {
        route_key.clear();
        request_id.clear();
        traceparent.clear();
        if (!watched.empty()) watched.clear();
        server_timing = false;
        coding = Coding::kIdentity;
        accepts = {};
    }
};

// Monotonic clock, ns; 0: not reached.
struct StageTimes {
    int64_t received = 0, queued = 0, started = 0, gathered = 0, computed = 0, encoded = 0;
    int64_t answered = 0;

    // Calls visit(name, ns) for each stage that has both ends, the total last. The names are those of the metrics.
    template <class Visitor>
    void each(Visitor visit) const {
        const struct { const char* name; int64_t from, to; } stages[] = {
            {"decode", received, queued}, {"queue", queued, started},     {"assembly", started, gathered},
            {"compute", gathered, computed}, {"encode", computed, encoded}, {"total", received, answered},
        };
        for (const auto& stage : stages)
            if (stage.from && stage.to) visit(stage.name, stage.to > stage.from ? stage.to - stage.from : 0);
    }
    // The value of a Server-Timing header: durations in milliseconds (W3C Server Timing, section 3).
    std::string server_timing() const {
        std::string text;
        each([&](const char* name, int64_t ns) {
            char one[64];
            int size = snprintf(one, sizeof one, "%s%s;dur=%.3f", text.empty() ? "" : ", ", name, static_cast<double>(ns) / 1e6);
            text.append(one, static_cast<size_t>(size));
        });
        return text;
    }
};

}  // namespace batchmill
