// Run times by rows, learned from the runs that are served: one curve for each width of a row.
#pragma once
#include <atomic>
#include <cstdint>

#include "relaxed.hpp"

namespace batchmill {

// Written by whichever thread has run a batch, without a lock: a sample may be lost to another, which harms nothing.
struct Curve {
    static constexpr int kKnots = 16;      // at 1, 2, 4 ... 32,768 rows; lines between them

    Relaxed<double> knots[kKnots] = {};  // expected run time, ns; 0: nothing near has been measured
    Relaxed<double> spread{0};         // mean deviation from what was expected, as a share of it
    Relaxed<double> row_ns{0};         // of a row in the batch size that serves most rows a second
    Relaxed<int64_t> best_rows{0};     // that size, at least; 0: not known
    Relaxed<int64_t> knee_rows{0};     // the smallest size that serves nearly as many; 0: any size is worth while
    Relaxed<int64_t> next_rows{0};     // a size that should be measured; 0: none
    Relaxed<int64_t> learned{0};       // runs
    Relaxed<int64_t> measured_ns{0};   // when the last of them ended; monotonic
    Relaxed<bool> recalled{false};     // from outside of the runs that are served, and none of them has confirmed it yet
};

// A version's curves, made as they are needed. A width is a quarter of a power of two of the elements of a row.
struct RunTimes {
    static constexpr int kWidths = 4 * 48;

    std::atomic<Curve*> curves[kWidths] = {};

    ~RunTimes() {
        for (auto& one : curves) delete one.load();
    }
    Curve* made(int width) {
        Curve* curve = curves[width].load(std::memory_order_acquire);
        if (curve) return curve;
        Curve* mine = new Curve();
        if (curves[width].compare_exchange_strong(curve, mine)) return mine;
        delete mine;                   // another thread was faster
        return curve;
    }
};

// What is known about rows of some width: a curve, and by how much they cost more than its own.
struct Estimate {
    const Curve* curve = nullptr;      // null: nothing is known
    double scale = 1;
};

}  // namespace batchmill
