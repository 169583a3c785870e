// What is said of a request beside its tensors: by its headers, and by the clock.
#pragma once
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coding.hpp"

namespace batchmill {

// Whether a header's name, in any case, is this one, in lower case.
inline bool is_header(std::string_view name, std::string_view lower) {
    if (name.size() != lower.size()) return false;
    for (size_t at = 0; at < name.size(); ++at) {
        char byte = name[at];
        if ((byte >= 'A' && byte <= 'Z' ? byte | 32 : byte) != lower[at]) return false;
    }
    return true;
}

// The front end keeps it; the requests of a stream share it.
struct HeaderNotes {
    static constexpr size_t kIdMost = 256, kTraceMost = 128;  // bytes; longer ones are not carried
    static constexpr size_t kWatchedMost = 256;               // bytes that a rule may ask for

    std::string route_key, request_id, traceparent;
    std::vector<std::pair<std::string, std::string>> watched; // headers that rules of routes ask for, by their names in lower case
    bool server_timing = false;                               // the answer tells its stage times
    Coding coding = Coding::kIdentity;                        // of the body, or of the messages that are marked compressed
    AcceptedCodings accepts;

    // names: those that rules ask for, in lower case. The first of a name counts.
    void take_watched(const std::vector<std::string>& names, std::string_view name, std::string_view value) {
        for (const auto& one : names)
            if (is_header(name, one) && !watched_value(one)) watched.emplace_back(one, value.substr(0, kWatchedMost + 1));
    }
    const std::string* watched_value(std::string_view name) const {
        for (const auto& one : watched)
            if (one.first == name) return &one.second;
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
