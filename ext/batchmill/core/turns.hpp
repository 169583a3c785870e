// Who is served next among the versions that have work for the executors.
#pragma once
#include <atomic>
#include <vector>

#include "router.hpp"

namespace batchmill {

// Guarded by the executor pool's mutex, but for the atomics.
struct Turns {
    std::vector<Version*> due;             // have rows and a free instance
    double served_ns = 0;                  // what the version that was served last had had before: who comes now starts with no less
    const Version* last = nullptr;         // who that was; compared, never looked into
    int64_t changed_ns = 0;                // when it last was another
    std::atomic<int64_t> turn_ns{20000000};  // while several have work, no batch is to take longer
    std::atomic<bool> draining{false};     // no more requests will come
    std::atomic<int32_t> due_count{0};     // due's size, for who may not wait for the mutex
};

}  // namespace batchmill
