// The bounded queue of one model version: a sub-queue for each shape, the most urgent request first; counted in rows.
#pragma once
#include <atomic>
#include <mutex>
#include <vector>

#include "relaxed.hpp"
#include "sub_queues.hpp"

namespace batchmill {

struct RequestQueue {
    std::mutex mutex;
    std::vector<SubQueue> shapes;      // some of them empty: kept for the next request of that shape
    uint64_t arrivals = 0;
    bool has_unpriced = false;         // of some that wait it was not known what they will cost when they came
    bool mixed = false;                // some request is more urgent than one that came before it
    int64_t latest_ns = 0, newest_ns = 0;  // since it was empty: the greatest urgency, and when the last was queued
    std::atomic<int64_t> rows{0};      // written under the mutex, read anywhere
    std::atomic<int64_t> requests{0};  // as rows, for those who look on
    Relaxed<int64_t> oldest_ns{0}; // when the one that waits longest was queued; 0: empty
    Relaxed<int64_t> urgent_ns{0}; // the urgency of the one on top of all
    std::atomic<int64_t> work_ns{0};   // what all that wait will cost, as predicted when each came, or as soon as it could be
    int64_t swept_ns = 0;              // when those for whom nobody waits any more were last looked for
    std::atomic<InferRequest*> swept{nullptr};  // of them, to be handed out with the next that are taken, or by the next sweep
    std::atomic<int64_t> max_rows{4096};             // these may change at any time
    std::atomic<bool> delays{false};                 // who has waited too long lets others go first, and is not refused
    std::atomic<int32_t> priority_levels{0};         // 0: priorities do not count
    std::atomic<int32_t> default_priority{0};        // the level of those who ask for none or for one there is not

    void count(int64_t more_rows, int64_t more_requests, int64_t more_ns) {
        work_ns.store(work_ns.load(std::memory_order_relaxed) + more_ns, std::memory_order_relaxed);
        rows.store(rows.load(std::memory_order_relaxed) + more_rows, std::memory_order_relaxed);
        requests.store(requests.load(std::memory_order_relaxed) + more_requests, std::memory_order_relaxed);
    }
};

}  // namespace batchmill
