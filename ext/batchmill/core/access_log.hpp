// A sample of the answered requests, on its way from an I/O thread to the log: one writer, one reader, no lock, bounded.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

#include "message.hpp"
#include "router.hpp"

namespace batchmill {

// Of one request. Texts longer than their room are cut.
struct AccessRecord {
    StageTimes times;
    int64_t rows = 0;
    uint64_t bytes_in = 0, bytes_out = 0;
    int32_t code = 0;
    Encoding encoding = Encoding::kProto;
    bool stream = false;
    const char* reason = "";  // a static string
    char model[128], version[24], id[HeaderNotes::kIdMost + 1], traceparent[HeaderNotes::kTraceMost + 1], peer[64];
};

struct AccessLog {
    static constexpr uint64_t kSlots = 1024;

    std::unique_ptr<AccessRecord[]> slots;  // null: off
    uint64_t threshold = 0;                 // of 2^64: the share of the requests
    uint64_t random = 0x9e3779b97f4a7c15;
    std::atomic<uint64_t> written{0}, read{0}, dropped{0};

    // Before the thread starts. share: 0 to 1.
    void open(double share, uint64_t seed) {
        if (share <= 0) return;
        threshold = share >= 1 ? UINT64_MAX : static_cast<uint64_t>(share * 18446744073709551616.0);
        random += seed;
        slots.reset(new AccessRecord[kSlots]);
    }
    bool wants() { return threshold && next_random() <= threshold; }

    void put(const InferRequest& request, const char* peer) {
        uint64_t at = written.load(std::memory_order_relaxed);
        if (at - read.load(std::memory_order_acquire) == kSlots) {
            dropped.fetch_add(1, std::memory_order_relaxed);
            return;
        }
        AccessRecord& record = slots[at % kSlots];
        record.times = request.times;
        record.rows = request.rows;
        record.bytes_in = request.body.size;
        record.bytes_out = request.response.size - request.response_start;
        record.code = request.status.code;
        record.encoding = request.encoding;
        record.stream = request.stream_reply;
        record.reason = request.status.reason;
        copy(record.model, request.version ? std::string_view(request.version->name) : request.model_name);
        copy(record.version, request.version ? std::string_view(request.version->version) : request.model_version);
        copy(record.id, !request.id.empty() || !request.notes ? request.id : std::string_view(request.notes->request_id));
        copy(record.traceparent, request.notes ? std::string_view(request.notes->traceparent) : std::string_view());
        copy(record.peer, peer);
        written.store(at + 1, std::memory_order_release);
    }
    // The oldest record that was not taken; null: none. It stays until took().
    const AccessRecord* front() const {
        uint64_t at = read.load(std::memory_order_relaxed);
        return at == written.load(std::memory_order_acquire) ? nullptr : &slots[at % kSlots];
    }
    void took() { read.store(read.load(std::memory_order_relaxed) + 1, std::memory_order_release); }

private:
    template <size_t N>
    static void copy(char (&target)[N], std::string_view text) {
        size_t size = std::min(N - 1, text.size());
        if (size) memcpy(target, text.data(), size);  // an empty view may point nowhere, which memcpy must not be given
        target[size] = 0;
    }
    // xorshift64 (Marsaglia, 2003): what is logged cannot be told from what is asked.
    uint64_t next_random() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return random;
    }
};

}  // namespace batchmill
