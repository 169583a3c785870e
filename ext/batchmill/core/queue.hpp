// The bounded queue of one model version: an intrusive list, counted in rows.
#pragma once
#include <mutex>

#include "message.hpp"

namespace batchmill {

struct RequestQueue {
    std::mutex mutex;
    InferRequest* head = nullptr;
    InferRequest* tail = nullptr;
    std::atomic<int64_t> rows{0};       // written under the mutex, read anywhere
    std::atomic<int64_t> requests{0};   // as rows, for those who look on
    std::atomic<int64_t> oldest_ns{0};  // when the head was queued; 0: empty
    std::atomic<int64_t> max_rows{4096}; // may change at any time

    void count(int64_t by) { requests.store(requests.load(std::memory_order_relaxed) + by, std::memory_order_relaxed); }
};

}  // namespace batchmill
